"""Detection of the cluster that this process belongs to.

The peers come from TF_CONFIG, Slurm or Kubernetes, always as a list of addresses in order of rank. TensorFlow's
resolvers for the last two are not used: the one for Slurm needs `nvidia-smi`, divides by zero without GPUs and sorts
hosts as text, so that it looks for rank 0 of `n[9-10]` on n10; the one for Kubernetes lists the pods of all namespaces,
takes the address of the node instead of the pod, and sorts pod 10 before pod 2.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bmcli.advice import make_command
from bmcli.errors import BmcliError
from bmcli.recipe.runtime import RuntimeOptions

KUBERNETES_PORT = 2222
_TASKS = ("chief", "worker")
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and the rank of this process.

    Args:
        addresses: `host:port` of every worker, by rank; the chief's is the first.
        rank: Rank of this process, from 0.
        resolver: The `cluster_resolver` of `MultiWorkerMirroredStrategy`.
    """

    addresses: tuple[str, ...]
    rank: int
    resolver: tf.distribute.cluster_resolver.ClusterResolver

    @property
    def workers(self) -> int:
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0


def detect_cluster(runtime: RuntimeOptions, environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Detect the cluster that the recipe names, or with `auto` the one that the environment describes.

    With `auto`, a cluster of one worker is ignored unless the strategy is `multi_worker`.

    Raises:
        BmcliError: The environment does not describe the cluster that the recipe names, or describes it incorrectly.
    """
    if runtime.strategy not in ("auto", "multi_worker"):
        return None
    if runtime.cluster != "auto":
        return _READERS[runtime.cluster](environment)
    for kind, is_described in _DETECTORS.items():
        if is_described(environment):
            cluster = _READERS[kind](environment)
            return cluster if cluster.workers > 1 or runtime.strategy == "multi_worker" else None
    if runtime.strategy == "multi_worker":
        raise BmcliError(
            "multi_worker needs the addresses of its peers, but there is no TF_CONFIG, no Slurm step of several tasks, "
            "and no Kubernetes job with BMCLI_WORKERS.",
            path="runtime.strategy",
            suggestion=f"{make_command('train', 'RECIPE', '--workers', '2')} starts two workers on this machine.",
        )
    return None


def _from_tf_config(environment: Mapping[str, str]) -> Cluster:
    """Read `{"cluster": {"worker": ["host:port"]}, "task": {"type": "worker", "index": 0}}`, perhaps with a chief."""
    config = _parse_tf_config(environment)
    jobs, task = config.get("cluster"), config.get("task")
    if not isinstance(jobs, dict) or not jobs:
        raise _cluster_error(
            "TF_CONFIG names no cluster.", 'Expected {"cluster": {"worker": ["host:port"]}, "task": ...}.'
        )
    for job in jobs:
        _require_task_type(str(job))
    if not isinstance(task, dict):
        raise _cluster_error(
            "TF_CONFIG does not name the task of this process.", 'Add "task": {"type": "worker", "index": 0}.'
        )
    _require_task_type(str(task.get("type")))
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise _cluster_error(
                f"TF_CONFIG: expected a list of host:port for {job}, received {json.dumps(addresses)}."
            )
    if len(jobs.get("chief", ())) > 1:
        raise _cluster_error(
            f"TF_CONFIG: expected one chief, received {len(jobs['chief'])}.", "Make the others workers."
        )
    index = _parse_number(task.get("index"), "task index of TF_CONFIG")
    of_type = jobs.get(task["type"], ())
    if index >= len(of_type):
        raise _cluster_error(
            f"TF_CONFIG: task {task['type']} {index} is not among {len(of_type)} of that type.", "Count from 0."
        )
    ordered = [address for job in _TASKS for address in jobs.get(job, ())]
    before = len(jobs.get("chief", ())) if task["type"] == "worker" else 0
    return _build_cluster(ordered, before + index, "TF_CONFIG")


def _parse_tf_config(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        raise _cluster_error(
            "the variable TF_CONFIG is not set.", "Set it for every worker, or set runtime.cluster to auto."
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _cluster_error(f"TF_CONFIG is not JSON: {error}.", "Correct or unset the variable.") from None
    if not isinstance(config, dict):
        raise _cluster_error(
            f"TF_CONFIG: expected an object, received {type(config).__name__}.", "Correct or unset the variable."
        )
    return config


def _require_task_type(task: str) -> None:
    if task not in _TASKS:
        advice = {
            "evaluator": "Leave the evaluator out; the chief evaluates.",
            "ps": "Leave the parameter servers out; weights are mirrored on all workers.",
            "master": "Rename it to chief.",
        }
        raise _cluster_error(f"TF_CONFIG: expected a task worker or chief, received '{task}'.", advice.get(task, ""))


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """Read the tasks of this Slurm step from the variables that `srun` sets for each task."""
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        raise _cluster_error("this process is not a task of a Slurm step.", "Start it with `srun bmcli train ...`.")
    tasks = _parse_number(environment["SLURM_STEP_NUM_TASKS"], "SLURM_STEP_NUM_TASKS")
    rank = _parse_number(environment["SLURM_PROCID"], "SLURM_PROCID")
    hosts = expand_hosts(environment.get("SLURM_STEP_NODELIST", ""))
    counts = _parse_task_counts(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if len(hosts) != len(counts) or sum(counts) != tasks or rank >= tasks:
        raise _cluster_error(
            f"Slurm's variables contradict each other: task {rank} of {tasks}, {len(hosts)} nodes with {counts} tasks.",
            "Start every worker with the same `srun`.",
        )
    _require_block_distribution(environment, counts, rank)
    base = _slurm_port(environment)
    addresses = [f"{host}:{base + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
    return _build_cluster(addresses, rank, "Slurm")


def expand_hosts(names: str) -> list[str]:
    """Expand a host list in Slurm's notation, such as `n[1-2,05],m5` or `rack[1-2]n[01-04]`, in its order."""
    hosts: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names):
        pieces = [_expand_range(piece[1:-1]) if piece[0] == "[" else [piece] for piece in _split_ranges(part)]
        hosts += ["".join(chosen) for chosen in itertools.product(*pieces)]
    if not hosts:
        raise _cluster_error("Slurm names no nodes for this step.", "Start it with `srun bmcli train ...`.")
    return hosts


def _split_ranges(part: str) -> list[str]:
    return re.findall(r"\[[^\]]*\]|[^\[\]]+", part)


def _expand_range(text: str) -> list[str]:
    """Expand `1-3,07` to 1, 2, 3, 07; leading zeros stay."""
    expanded: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, end = _parse_number(first, "node list"), _parse_number(last or first, "node list")
        expanded += [str(number).zfill(len(first)) for number in range(start, end + 1)]
    return expanded


def _parse_task_counts(text: str) -> list[int]:
    """Expand `2(x3),1` to 2, 2, 2, 1."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in groups for _ in range(int(times or 1))]


def _require_block_distribution(environment: Mapping[str, str], counts: Sequence[int], rank: int) -> None:
    """Refuse tasks that do not fill the nodes one after the other."""
    # The addresses are computed for that order. A task can check only its own node, whose ranks Slurm lists for it.
    first = 0
    for count in counts:
        if first <= rank < first + count:
            expected = ",".join(str(first + i) for i in range(count))
            if environment.get("SLURM_GTIDS", expected) != expected:
                raise _cluster_error(
                    f"the tasks on this node are {environment['SLURM_GTIDS']}, expected {expected}.",
                    "Fill the nodes one after the other: `srun --distribution=block`.",
                )
        first += count


def _slurm_port(environment: Mapping[str, str]) -> int:
    """First port on each node."""
    # It differs between jobs and steps, so that they can share nodes; every worker computes it without communication.
    # From 32768 on, systems use ports for outgoing connections.
    if "BMCLI_PORT" in environment:
        return _parse_number(environment["BMCLI_PORT"], "BMCLI_PORT")
    job, step = (_parse_number(environment.get(f"SLURM_{name}", "0"), name) for name in ("JOB_ID", "STEP_ID"))
    return 20000 + 32 * ((job + 61 * step) % 375)


def _from_kubernetes(environment: Mapping[str, str]) -> Cluster:
    """Read the pods of an Indexed Job: their names in a headless service, `train-0.train.default.svc...`."""
    # Names need neither a client of the Kubernetes API nor permission to use it, and a replaced pod keeps its name.
    for variable, advice in (
        ("JOB_COMPLETION_INDEX", "Make it a pod of a Job with `completionMode: Indexed`."),
        ("BMCLI_WORKERS", "Set it in the pod's template to the Job's number of `completions`."),
    ):
        if not environment.get(variable):
            raise _cluster_error(f"the variable {variable} is not set.", advice)
    rank = _parse_number(environment["JOB_COMPLETION_INDEX"], "JOB_COMPLETION_INDEX")
    workers = _parse_number(environment["BMCLI_WORKERS"], "BMCLI_WORKERS")
    if rank >= workers:
        raise _cluster_error(
            f"pod {rank} is not among {workers} workers.", "Give BMCLI_WORKERS, completions and parallelism one number."
        )
    name = socket.getfqdn()
    host, _, domain = name.partition(".")
    if not domain or not host.endswith(f"-{rank}"):
        raise _cluster_error(
            f"the names of the peers do not follow from this pod's, '{name}'; expected JOB-{rank}.SERVICE....",
            "Create a headless service, and set `subdomain` in the pod's template to its name.",
        )
    port = _parse_number(environment.get("BMCLI_PORT", str(KUBERNETES_PORT)), "BMCLI_PORT")
    stem = host.removesuffix(str(rank))
    return _build_cluster([f"{stem}{index}.{domain}:{port}" for index in range(workers)], rank, "Kubernetes")


def _has_tf_config(environment: Mapping[str, str]) -> bool:
    # Some platforms set it without a cluster for a single machine.
    return bool(environment.get("TF_CONFIG", "").strip() and _parse_tf_config(environment).get("cluster"))


def _has_slurm_step(environment: Mapping[str, str]) -> bool:
    # A batch script has SLURM_PROCID and SLURM_NTASKS as well, but it is one process: only steps have this variable.
    return environment.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environment


def _has_kubernetes_job(environment: Mapping[str, str]) -> bool:
    # The index alone may as well number the runs of a sweep.
    return "JOB_COMPLETION_INDEX" in environment and "BMCLI_WORKERS" in environment


_READERS = {"tf_config": _from_tf_config, "slurm": _from_slurm, "kubernetes": _from_kubernetes}
_DETECTORS = {"tf_config": _has_tf_config, "slurm": _has_slurm_step, "kubernetes": _has_kubernetes_job}


def clear_cluster_variables(environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove the description of a cluster from an environment, for a process that works alone."""
    # Without these variables `detect_cluster` finds none, whatever others a scheduler sets.
    for variable in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "BMCLI_WORKERS"):
        environment.pop(variable, None)


def _build_cluster(addresses: Sequence[str], rank: int, source: str) -> Cluster:
    for address in addresses:
        port = _ADDRESS.fullmatch(address)
        if not port or not 0 < int(port[1]) < 65536:
            raise _cluster_error(f"{source}: expected an address as host:port, received '{address}'.")
        if addresses.count(address) > 1:
            raise _cluster_error(f"{source}: the address {address} is given twice.", "Give each worker another.")
    # Every worker must name all tasks in the same way, so that the chief is worker 0 whatever the source calls it.
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}),
        task_type="worker",
        task_id=rank,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )
    return Cluster(tuple(addresses), rank, resolver)


def _parse_number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,10}", str(value)):
        raise _cluster_error(f"{name}: expected a number from 0, received {json.dumps(value)}.")
    return int(value)


def _cluster_error(message: str, suggestion: str = "") -> BmcliError:
    return BmcliError(message, path="runtime.cluster", suggestion=suggestion)
