"""Which cluster this process belongs to, and a start that cannot hang.

The peers come from TF_CONFIG, Slurm or Kubernetes, always as a list of addresses in order of rank. TensorFlow's own
resolvers for the last two are not used: Slurm's needs `nvidia-smi`, divides by zero without GPUs and sorts hosts
as text, so that rank 0 of `n[9-10]` is sought on n10; that of Kubernetes asks for every pod of all namespaces, takes
the address of the node instead of the pod's, and sorts pod 10 before pod 2.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from bmcli.errors import BmcliError, RunFailed
from bmcli.recipe.schema import RuntimeOptions

KUBERNETES_PORT = 2222
_TASKS = ("chief", "worker")
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is.

    Args:
        addresses: `host:port` of every worker, by rank; the chief's is the first.
        rank: This process, from 0.
        resolver: What `MultiWorkerMirroredStrategy` takes as `cluster_resolver`.
    """

    addresses: tuple[str, ...]
    rank: int
    resolver: tf.distribute.cluster_resolver.ClusterResolver

    @property
    def workers(self) -> int:
        return len(self.addresses)

    @property
    def chief(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0


def find(runtime: RuntimeOptions, environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that the recipe demands, or with `auto` the one that the environment tells of.

    With `auto`, a cluster of one is none, unless the strategy is `multi_worker`.

    Raises:
        BmcliError: What the recipe demands is not there, or what is there is malformed.
    """
    if runtime.strategy not in ("auto", "multi_worker"):
        return None
    if runtime.cluster != "auto":
        return _READERS[runtime.cluster](environment)
    for kind, is_told in _TOLD.items():
        if is_told(environment):
            cluster = _READERS[kind](environment)
            return cluster if cluster.workers > 1 or runtime.strategy == "multi_worker" else None
    if runtime.strategy == "multi_worker":
        raise BmcliError(
            "multi_worker needs to know its peers, but there is no TF_CONFIG, no Slurm step of several tasks, and no "
            "Kubernetes job with BMCLI_WORKERS.",
            path="runtime.strategy",
            suggestion="`bmcli train RECIPE --workers 2` starts two workers on this machine.",
        )
    return None


def _from_tf_config(environment: Mapping[str, str]) -> Cluster:
    """`{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`; it may have a chief."""
    config = _tf_config(environment)
    jobs, task = config.get("cluster"), config.get("task")
    if not isinstance(jobs, dict) or not jobs:
        raise _wrong("TF_CONFIG names no cluster.", 'Expected {"cluster": {"worker": ["host:port"]}, "task": ...}.')
    for job in jobs:
        _require_task_type(str(job))
    if not isinstance(task, dict):
        raise _wrong("TF_CONFIG does not say which task this is.", 'Add "task": {"type": "worker", "index": 0}.')
    _require_task_type(str(task.get("type")))
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise _wrong(f"TF_CONFIG: expected a list of host:port for {job}, received {json.dumps(addresses)}.")
    if len(jobs.get("chief", ())) > 1:
        raise _wrong(f"TF_CONFIG: expected one chief, received {len(jobs['chief'])}.", "Make the others workers.")
    index = _number(task.get("index"), "task index of TF_CONFIG")
    of_type = jobs.get(task["type"], ())
    if index >= len(of_type):
        raise _wrong(
            f"TF_CONFIG: task {task['type']} {index} is not among {len(of_type)} of that type.", "Count from 0."
        )
    ordered = [address for job in _TASKS for address in jobs.get(job, ())]
    before = len(jobs.get("chief", ())) if task["type"] == "worker" else 0
    return _cluster(ordered, before + index, "TF_CONFIG")


def _tf_config(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        raise _wrong("the variable TF_CONFIG is not set.", "Set it for every worker, or let runtime.cluster be auto.")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _wrong(f"TF_CONFIG is not JSON: {error}.", "Mend or unset the variable.") from None
    if not isinstance(config, dict):
        raise _wrong(f"TF_CONFIG: expected an object, received {type(config).__name__}.", "Mend or unset the variable.")
    return config


def _require_task_type(task: str) -> None:
    if task not in _TASKS:
        advice = {
            "evaluator": "The chief evaluates by itself: leave the evaluator out.",
            "ps": "Weights are mirrored on all workers: leave the parameter servers out.",
            "master": "Call it chief.",
        }
        raise _wrong(f"TF_CONFIG: a task is a worker or chief, received '{task}'.", advice.get(task, ""))


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of this Slurm step, which `srun` describes to each of them."""
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        raise _wrong("this process is not a task of a Slurm step.", "Start it with `srun bmcli train ...`.")
    tasks = _number(environment["SLURM_STEP_NUM_TASKS"], "SLURM_STEP_NUM_TASKS")
    rank = _number(environment["SLURM_PROCID"], "SLURM_PROCID")
    hosts = expand_hosts(environment.get("SLURM_STEP_NODELIST", ""))
    counts = _tasks_of_nodes(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if len(hosts) != len(counts) or sum(counts) != tasks or rank >= tasks:
        raise _wrong(
            f"Slurm's variables disagree: task {rank} of {tasks}, {len(hosts)} nodes with {counts} tasks.",
            "Start every worker with the same `srun`.",
        )
    _require_block_distribution(environment, counts, rank)
    base = _slurm_port(environment)
    addresses = [f"{host}:{base + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
    return _cluster(addresses, rank, "Slurm")


def expand_hosts(names: str) -> list[str]:
    """Hosts of a list as Slurm writes it: `n[1-2,05],m5` or `rack[1-2]n[01-04]`, in its order."""
    hosts: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names):
        pieces = [_expand_range(piece[1:-1]) if piece[0] == "[" else [piece] for piece in _pieces(part)]
        hosts += ["".join(chosen) for chosen in itertools.product(*pieces)]
    if not hosts:
        raise _wrong("Slurm names no nodes for this step.", "Start it with `srun bmcli train ...`.")
    return hosts


def _pieces(part: str) -> list[str]:
    return re.findall(r"\[[^\]]*\]|[^\[\]]+", part)


def _expand_range(text: str) -> list[str]:
    """`1-3,07` as 1, 2, 3, 07; leading zeros stay."""
    expanded: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, end = _number(first, "node list"), _number(last or first, "node list")
        expanded += [str(number).zfill(len(first)) for number in range(start, end + 1)]
    return expanded


def _tasks_of_nodes(text: str) -> list[int]:
    """`2(x3),1` as 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _require_block_distribution(environment: Mapping[str, str], counts: Sequence[int], rank: int) -> None:
    """Slurm tells each task the ranks on its own node alone: they have to be those of consecutive filling."""
    first = 0
    for count in counts:
        if first <= rank < first + count:
            expected = ",".join(str(first + i) for i in range(count))
            if environment.get("SLURM_GTIDS", expected) != expected:
                raise _wrong(
                    f"the tasks on this node are {environment['SLURM_GTIDS']}, expected {expected}.",
                    "Fill the nodes one after the other: `srun --distribution=block`.",
                )
        first += count


def _slurm_port(environment: Mapping[str, str]) -> int:
    """The first port on each node: another for each job and step, so that jobs can share nodes.

    Below 32768, where systems take ports for outgoing connections.
    """
    if "BMCLI_PORT" in environment:
        return _number(environment["BMCLI_PORT"], "BMCLI_PORT")
    job, step = (_number(environment.get(f"SLURM_{name}", "0"), name) for name in ("JOB_ID", "STEP_ID"))
    return 20000 + 32 * ((job + 61 * step) % 375)


def _from_kubernetes(environment: Mapping[str, str]) -> Cluster:
    """The pods of an Indexed Job, by the names that a headless service gives them: `train-0.train.default.svc...`.

    Names need neither a client of the Kubernetes API nor rights to use it, and a pod that is replaced keeps its own.
    """
    for variable, advice in (
        ("JOB_COMPLETION_INDEX", "Make it a pod of a Job with `completionMode: Indexed`."),
        ("BMCLI_WORKERS", "Set it in the pod's template to the Job's number of `completions`."),
    ):
        if not environment.get(variable):
            raise _wrong(f"the variable {variable} is not set.", advice)
    rank = _number(environment["JOB_COMPLETION_INDEX"], "JOB_COMPLETION_INDEX")
    workers = _number(environment["BMCLI_WORKERS"], "BMCLI_WORKERS")
    if rank >= workers:
        raise _wrong(
            f"pod {rank} is not among {workers} workers.", "Give BMCLI_WORKERS, completions and parallelism one number."
        )
    name = socket.getfqdn()
    host, _, domain = name.partition(".")
    if not domain or not host.endswith(f"-{rank}"):
        raise _wrong(
            f"the peers cannot be found from this pod's name, '{name}'; expected JOB-{rank}.SERVICE....",
            "Make a headless service, and set `subdomain` in the pod's template to its name.",
        )
    port = _number(environment.get("BMCLI_PORT", str(KUBERNETES_PORT)), "BMCLI_PORT")
    stem = host.removesuffix(str(rank))
    return _cluster([f"{stem}{index}.{domain}:{port}" for index in range(workers)], rank, "Kubernetes")


def _tf_config_is_told(environment: Mapping[str, str]) -> bool:
    # Some platforms set it without a cluster for a single machine.
    return bool(environment.get("TF_CONFIG", "").strip() and _tf_config(environment).get("cluster"))


def _slurm_is_told(environment: Mapping[str, str]) -> bool:
    # A batch script has SLURM_PROCID and SLURM_NTASKS as well, but it is one process: only steps have this variable.
    return environment.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environment


def _kubernetes_is_told(environment: Mapping[str, str]) -> bool:
    # The index alone may as well number the runs of a sweep.
    return "JOB_COMPLETION_INDEX" in environment and "BMCLI_WORKERS" in environment


_READERS = {"tf_config": _from_tf_config, "slurm": _from_slurm, "kubernetes": _from_kubernetes}
_TOLD = {"tf_config": _tf_config_is_told, "slurm": _slurm_is_told, "kubernetes": _kubernetes_is_told}


def _cluster(addresses: Sequence[str], rank: int, source: str) -> Cluster:
    for address in addresses:
        port = _ADDRESS.fullmatch(address)
        if not port or not 0 < int(port[1]) < 65536:
            raise _wrong(f"{source}: expected an address as host:port, received '{address}'.")
        if addresses.count(address) > 1:
            raise _wrong(f"{source}: the address {address} is given twice.", "Each worker needs its own.")
    # The chief is worker 0, whatever the source called it: every worker must name all alike, and needs no more.
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}),
        task_type="worker",
        task_id=rank,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )
    return Cluster(tuple(addresses), rank, resolver)


def _number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,10}", str(value)):
        raise _wrong(f"{name}: expected a number from 0, received {json.dumps(value)}.")
    return int(value)


def _wrong(message: str, suggestion: str = "") -> BmcliError:
    return BmcliError(message, path="runtime.cluster", suggestion=suggestion)


@contextlib.contextmanager
def waiting_for_peers(cluster: Cluster, timeout_s: float, agreement: str = "") -> Iterator[None]:
    """Waits until all workers are there; the body then makes the strategy.

    TensorFlow would wait for them as well, for longer than ten minutes, but holding Python's lock and with a handler
    of SIGTERM of its own: no thread runs meanwhile, and SIGTERM is not answered. Here it is. Should a worker be lost
    after all were there, while the body runs, Ctrl-C ends the process directly, and after `timeout_s` it ends
    with exit code 1 and the place where it hung. Our handlers of signals are put back after the body.

    Args:
        timeout_s: From now until all are there, and again for the body.
        agreement: What all have to be given alike, such as their recipe.

    Raises:
        RunFailed: Not all came in time, they do not agree, or the port is taken.
    """
    _meet(cluster, time.monotonic() + timeout_s, timeout_s, agreement)
    # gRPC would ask the proxy of http_proxy for the peers, even for those on this machine, and wait for ever.
    os.environ.setdefault("no_grpc_proxy", ",".join(address.rpartition(":")[0] for address in cluster.addresses))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before.items():
            signal.signal(number, handler)


def _meet(cluster: Cluster, deadline: float, timeout_s: float, agreement: str) -> None:
    """Each worker tells the chief that it is there; the chief tells all when all are."""
    told = f"{cluster.addresses} {agreement}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    # Held by every worker, so that a taken port is found before TensorFlow, which takes it next, makes the others wait.
    with _listening(cluster) as door:
        missing = _gather(cluster, door, deadline, digest) if cluster.chief else _report(cluster, deadline, digest)
    if missing:
        names = ", ".join(f"worker {rank} ({cluster.addresses[rank]})" for rank in missing)
        raise RunFailed(
            f"after {timeout_s:g} s there is no word from {names}.",
            path="runtime.start_timeout",
            suggestion="Check that every worker runs and can reach the others, or raise runtime.start_timeout.",
        )


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    port = int(cluster.addresses[cluster.rank].rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            door = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        else:
            door = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise RunFailed(
            f"worker {cluster.rank} cannot listen on port {port}: {(error.strerror or str(error)).lower()}.",
            path="runtime.cluster",
            suggestion="Another program has it, or a worker that was not ended yet.",
        ) from None
    with door:
        yield door


def _gather(cluster: Cluster, door: socket.socket, deadline: float, digest: str) -> list[int]:
    """The chief's part: the ranks that did not come, after all others were told of it."""
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as guests:
        while len(present) < cluster.workers - 1 and time.monotonic() < deadline:
            door.settimeout(max(0.01, min(0.5, deadline - time.monotonic())))
            with contextlib.suppress(OSError):
                guest = guests.enter_context(door.accept()[0])
                rank, theirs = _introduced(guest)
                if theirs != digest:
                    _tell_all([*present.values(), guest], f"disagree {rank}")
                    raise _disagreement(rank)
                present[rank] = guest
            present = {rank: guest for rank, guest in present.items() if not _left(guest)}
        missing = [rank for rank in range(1, cluster.workers) if rank not in present]
        _tell_all(list(present.values()), f"missing {' '.join(map(str, missing))}")
    return missing


def _introduced(guest: socket.socket) -> tuple[int, str]:
    """Rank and digest of a worker; anything else that knocks is turned away as an OSError."""
    guest.settimeout(2.0)
    name, _, rest = _line(guest).partition(" ")
    rank, _, digest = rest.partition(" ")
    if name != "bmcli" or not rank.isdecimal():
        raise OSError("not a worker")
    return int(rank), digest


def _report(cluster: Cluster, deadline: float, digest: str) -> list[int]:
    """A worker's part: the ranks that did not come, by the chief's word; the chief itself if it is silent."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as chief:
                chief.sendall(f"bmcli {cluster.rank} {digest}\n".encode())
                chief.settimeout(max(0.01, deadline + 2.0 - time.monotonic()))
                answer, *ranks = _line(chief).split(" ")
        except (OSError, UnicodeError):
            time.sleep(0.2)  # not there yet, or gone again
            continue
        if answer == "disagree":
            raise _disagreement(int(ranks[0]))
        if answer == "missing":
            return [int(rank) for rank in ranks if rank]
        raise RunFailed(
            f"{cluster.addresses[0]} answers, but does not wait for worker {cluster.rank}.",
            path="runtime.cluster",
            suggestion="The others train already, or another program has that port: end them and start all again.",
        )
    return [0]


def _line(peer: socket.socket) -> str:
    """What a peer says up to the end of its line; an OSError if it leaves before, or says too much."""
    heard = b""
    while not heard.endswith(b"\n"):
        piece = peer.recv(1)
        if not piece or len(heard) > 100_000:
            raise OSError("no answer")
        heard += piece
    return heard[:-1].decode("ascii", "replace")


def _tell_all(guests: Sequence[socket.socket], word: str) -> None:
    for guest in guests:
        with contextlib.suppress(OSError):
            guest.sendall(f"{word}\n".encode())


def _left(guest: socket.socket) -> bool:
    guest.setblocking(False)
    try:
        return guest.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        guest.settimeout(2.0)


def _disagreement(rank: int) -> RunFailed:
    return RunFailed(
        f"worker {rank} was given another recipe or other peers than worker 0.",
        path="runtime.cluster",
        suggestion="Start all workers with the same command and the same addresses.",
    )
