"""A process finds its peers in the environment, and waits for them in a way that ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from bmcli.distribution import rendezvous
from bmcli.distribution.cluster import Cluster, clear_cluster_variables, detect_cluster, expand_hosts
from bmcli.distribution.launch import find_free_ports
from bmcli.distribution.rendezvous import wait_for_peers
from bmcli.errors import BmcliError, RunFailed
from bmcli.recipe.runtime import RuntimeOptions

AUTO = RuntimeOptions()
MULTI_WORKER = RuntimeOptions(strategy="multi_worker")


def tf_config(cluster: Any = None, task: Any = None) -> dict[str, str]:
    workers = {"worker": ["a:1", "b:2"]}
    config = {"cluster": cluster or workers, "task": task or {"type": "worker", "index": 1}}
    return {"TF_CONFIG": json.dumps(config)}


def slurm(**changes: str) -> dict[str, str]:
    usual = {
        "PROCID": "2", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "n[9-10]", "STEP_TASKS_PER_NODE": "2,1", "GTIDS": "2",
        "JOB_ID": "1000", "STEP_ID": "0",
    }  # fmt: skip
    return {f"SLURM_{name}": value for name, value in {**usual, **changes}.items()}


def kubernetes(**changes: str) -> dict[str, str]:
    return {"JOB_COMPLETION_INDEX": "1", "BMCLI_WORKERS": "3", **changes}


@pytest.fixture(autouse=True)
def _pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "train-1.train.default.svc.cluster.local")


def found(environment: Mapping[str, str], runtime: RuntimeOptions = AUTO) -> Cluster:
    cluster = detect_cluster(runtime, environment)
    assert cluster
    return cluster


def test_without_a_description_of_peers_there_is_no_cluster() -> None:
    assert detect_cluster(AUTO, {}) is None


def test_tf_config_names_the_peers() -> None:
    cluster = found(tf_config())
    assert (cluster.addresses, cluster.workers, cluster.rank, cluster.is_chief) == (("a:1", "b:2"), 2, 1, False)


def test_the_resolver_gives_tensorflow_the_same() -> None:
    resolver = found(tf_config()).resolver
    assert resolver.cluster_spec().as_dict() == {"worker": ["a:1", "b:2"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@pytest.mark.parametrize(("task", "rank"), [("chief", 0), ("worker", 1)])
def test_a_chief_comes_before_the_workers(task: str, rank: int) -> None:
    cluster = found(tf_config({"worker": ["w:1"], "chief": ["c:1"]}, {"type": task, "index": 0}))
    assert (cluster.addresses, cluster.rank, cluster.is_chief) == (("c:1", "w:1"), rank, rank == 0)


@pytest.mark.parametrize("text", ["", "{}", '{"environment": "cloud"}', '{"cluster": {}, "task": {}}'])
def test_a_tf_config_without_a_cluster_means_none(text: str) -> None:
    assert detect_cluster(AUTO, {"TF_CONFIG": text}) is None


def test_a_cluster_of_one_counts_only_if_requested() -> None:
    one = tf_config({"worker": ["a:1"]}, {"type": "worker", "index": 0})
    assert detect_cluster(AUTO, one) is None
    assert found(one, MULTI_WORKER).workers == 1


@pytest.mark.parametrize("strategy", ["one_device", "mirrored", "tpu"])
def test_other_strategies_have_no_cluster(strategy: Any) -> None:
    assert detect_cluster(RuntimeOptions(strategy=strategy), tf_config()) is None


def test_a_process_can_leave_its_cluster() -> None:
    for environment in (tf_config(), slurm(), kubernetes()):
        assert detect_cluster(AUTO, environment)
        clear_cluster_variables(environment)
        assert detect_cluster(AUTO, environment) is None
        clear_cluster_variables(environment)


def test_multi_worker_without_peers_suggests_how_to_start_some() -> None:
    with pytest.raises(BmcliError, match="needs the addresses of its peers") as caught:
        detect_cluster(MULTI_WORKER, {})
    assert caught.value.faults[0].path == "runtime.strategy"
    assert "--workers 2" in caught.value.faults[0].suggestion


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": '{"cluster": '}, "not JSON"),
        ({"TF_CONFIG": "[1]"}, "expected an object, received list"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "does not name the task"),
        (tf_config(["a:1"]), "names no cluster"),
        (tf_config(task={"type": "worker", "index": 2}), "worker 2 is not among 2"),
        (tf_config(task={"type": "worker", "index": -1}), "expected a number from 0, received -1"),
        (tf_config(task={"type": "worker", "index": True}), "expected a number from 0, received true"),
        (tf_config(task={"type": "worker"}), "expected a number from 0, received null"),
        (tf_config(task={"type": "chief", "index": 0}), "chief 0 is not among 0"),
        (tf_config(task={"type": "evaluator", "index": 0}), "received 'evaluator'"),
        (tf_config({"worker": ["a:1"], "ps": ["p:1"]}), "received 'ps'"),
        (tf_config({"worker": ["a", "b:2"]}), "host:port, received 'a'"),
        (tf_config({"worker": ["a:0", "b:2"]}), "host:port, received 'a:0'"),
        (tf_config({"worker": ["a:99999", "b:2"]}), "host:port, received 'a:99999'"),
        (tf_config({"worker": ["a:1", "a:1"]}), "a:1 is given twice"),
        (tf_config({"worker": "a:1"}), "expected a list of host:port for worker"),
        (tf_config({"worker": ["a:1"], "chief": ["b:1", "c:1"]}), "expected one chief, received 2"),
        (slurm(STEP_TASKS_PER_NODE="1,1"), "Slurm's variables contradict each other"),
        (slurm(STEP_NODELIST="n9"), "Slurm's variables contradict each other"),
        (slurm(STEP_NODELIST=""), "names no nodes"),
        (slurm(PROCID="3"), "Slurm's variables contradict each other"),
        (slurm(PROCID="x"), 'received "x"'),
        (slurm(GTIDS="1"), "tasks on this node are 1, expected 2"),
        (kubernetes(BMCLI_WORKERS="1"), "pod 1 is not among 1"),
        (kubernetes(BMCLI_WORKERS="two"), 'received "two"'),
        (kubernetes(JOB_COMPLETION_INDEX="2"), "do not follow from this pod's"),
    ],
)
def test_what_is_malformed_is_reported(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        detect_cluster(AUTO, environment)
    assert caught.value.faults[0].path == "runtime.cluster"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tf_config", "TF_CONFIG is not set"),
        ("slurm", "not a task of a Slurm step"),
        ("kubernetes", "JOB_COMPLETION_INDEX is not set"),
    ],
)
def test_what_the_recipe_demands_has_to_be_there(kind: Any, message: str) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        detect_cluster(RuntimeOptions(cluster=kind), {})
    assert caught.value.faults[0].suggestion


def test_slurm_names_the_peers_in_order_of_rank() -> None:
    cluster = found(slurm())
    hosts = [address.split(":")[0] for address in cluster.addresses]
    assert (hosts, cluster.rank) == (["n9", "n9", "n10"], 2)
    assert len(set(cluster.addresses)) == 3


def test_a_batch_script_of_slurm_is_no_cluster() -> None:
    environment = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}
    assert detect_cluster(AUTO, environment) is None


def test_jobs_that_share_a_node_have_ports_of_their_own() -> None:
    steps = [slurm(), slurm(JOB_ID="1001"), slurm(STEP_ID="1")]
    assert len({found(step).addresses[0] for step in steps}) == 3
    assert found({**slurm(), "BMCLI_PORT": "5000"}).addresses[1] == "n9:5001"


@pytest.mark.parametrize(
    ("names", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-2],m5,o[3-4,06]", ["n1", "n2", "m5", "o3", "o4", "o06"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("r[1-2]n[1-2]-ib", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"]),
    ],
)
def test_lists_of_hosts(names: str, hosts: list[str]) -> None:
    assert expand_hosts(names) == hosts


def test_kubernetes_names_the_pods_of_the_job() -> None:
    cluster = found(kubernetes())
    assert cluster.addresses == tuple(f"train-{i}.train.default.svc.cluster.local:2222" for i in range(3))
    assert cluster.rank == 1


def test_a_pod_without_a_service_gets_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "train-1")
    with pytest.raises(BmcliError, match="names of the peers") as caught:
        detect_cluster(AUTO, kubernetes())
    assert "headless service" in caught.value.faults[0].suggestion


def test_an_index_alone_is_no_cluster() -> None:
    assert detect_cluster(AUTO, {"JOB_COMPLETION_INDEX": "1"}) is None


def test_what_is_nearest_is_taken_first() -> None:
    assert found({**slurm(), **kubernetes(), **tf_config()}).addresses[0] == "a:1"
    assert found({**slurm(), **kubernetes()}).addresses[0].startswith("n9:")


def local(rank: int, ports: list[int]) -> Cluster:
    return found(tf_config({"worker": [f"127.0.0.1:{port}" for port in ports]}, {"type": "worker", "index": rank}))


def meet(clusters: list[Cluster], timeout_s: float, agreements: list[str] | None = None) -> list[str]:
    """Result of each worker when these start together: "met", or its error."""
    results = [""] * len(clusters)

    def start(i: int) -> None:
        try:
            agreement = agreements[i] if agreements else ""
            links = rendezvous._connect_workers(clusters[i], time.monotonic() + timeout_s, timeout_s, agreement)
            rendezvous._close_links(links)
            results[i] = "met"
        except BmcliError as error:
            results[i] = str(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(len(clusters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_workers_that_are_all_there_meet() -> None:
    ports = find_free_ports(3)
    assert meet([local(rank, ports) for rank in (2, 0, 1)], 20.0) == ["met"] * 3


def test_all_workers_learn_which_one_is_missing() -> None:
    ports = find_free_ports(3)
    results = meet([local(rank, ports) for rank in (0, 2)], 1.5)
    assert results == [f"after 1.5 s there is no connection to worker 1 (127.0.0.1:{ports[1]})."] * 2


def test_a_missing_chief_is_reported() -> None:
    ports = find_free_ports(2)
    assert "no connection to worker 0" in meet([local(1, ports)], 1.0)[0]


def test_workers_of_different_recipes_do_not_meet() -> None:
    ports = find_free_ports(2)
    results = meet([local(rank, ports) for rank in range(2)], 20.0, ["this", "that"])
    assert results == ["worker 1 has another recipe or other peers than worker 0."] * 2


def test_other_programs_that_connect_are_refused() -> None:
    ports = find_free_ports(2)
    results: list[str] = []
    chief = threading.Thread(target=lambda: results.extend(meet([local(0, ports)], 20.0)))
    chief.start()
    for attempt in range(100):
        try:
            with socket.create_connection(("127.0.0.1", ports[0])) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            break
        except ConnectionRefusedError:
            assert attempt < 99
            time.sleep(0.05)
    assert meet([local(1, ports)], 20.0) == ["met"]
    chief.join()
    assert results == ["met"]


def test_a_port_in_use_is_reported_at_once() -> None:
    ports = find_free_ports(2)
    with (
        socket.create_server(("", ports[1])),
        pytest.raises(RunFailed, match=f"worker 1 cannot listen on port {ports[1]}: address already in use"),
        wait_for_peers(local(1, ports), 60.0),
    ):
        pass


def test_handlers_of_signals_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    one = found(
        tf_config({"worker": [f"127.0.0.1:{find_free_ports(1)[0]}"]}, {"type": "worker", "index": 0}), MULTI_WORKER
    )
    with wait_for_peers(one, 20.0):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


WORKER = """
import sys, time
import bmcli.__main__
import bmcli.cli
from bmcli.cli.group import ResumableCommand
import click

@click.command(cls=ResumableCommand)
def cli():
    import tensorflow as tf
    from bmcli.recipe.runtime import RuntimeOptions
    from bmcli.distribution import cluster, rendezvous
    found = cluster.detect_cluster(RuntimeOptions())
    print("waits", flush=True)
    with rendezvous.wait_for_peers(found, float(sys.argv[1])):
        print("makes", flush=True)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=found.resolver)
    print("made", strategy.num_replicas_in_sync, flush=True)
    time.sleep(60)

bmcli.cli.cli = cli
sys.argv = ["bmcli", *sys.argv[1:]]
cli.params.append(click.Argument(["seconds"], expose_value=False))
bmcli.__main__.main()
"""


StartWorker = Callable[[int, list[int], float], "subprocess.Popen[str]"]


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Start a process that finds its cluster in TF_CONFIG and makes the strategy, below the boundary of bmcli."""
    started: list[subprocess.Popen[str]] = []

    def start(rank: int, ports: list[int], timeout_s: float) -> subprocess.Popen[str]:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        variables = tf_config({"worker": addresses}, {"type": "worker", "index": rank})
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(timeout_s)], env={**os.environ, **variables}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    for output in process.stdout:
        if output.strip() == line:
            return
    pytest.fail(f"ended without '{line}'")


ComeAndLeave = Callable[[list[int]], None]


@pytest.fixture
def peer_that_leaves() -> ComeAndLeave:
    """Meet a chief as worker 1, and leave without making the strategy."""

    def come_and_leave(ports: list[int]) -> None:
        assert meet([local(1, ports)], 60.0) == ["met"]

    return come_and_leave


def test_two_workers_make_a_strategy_and_answer_signals_again(start_worker: StartWorker) -> None:
    ports = find_free_ports(2)
    workers = [start_worker(rank, ports, 100.0) for rank in range(2)]
    for worker in workers:
        wait_for_line(worker, "made 2")
    time.sleep(1.0)
    workers[1].send_signal(signal.SIGTERM)  # TensorFlow replaced the handler meanwhile
    workers[1].communicate(timeout=20)
    assert workers[1].returncode == 130


def test_a_peer_that_never_starts_ends_the_wait(start_worker: StartWorker) -> None:
    worker = start_worker(0, find_free_ports(2), 1.0)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "after 1 s there is no connection to worker 1" in err
    assert "raise runtime.start_timeout" in err


def test_a_signal_ends_the_wait(start_worker: StartWorker) -> None:
    worker = start_worker(0, find_free_ports(2), 600.0)
    wait_for_line(worker, "waits")
    time.sleep(0.5)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=20)
    assert worker.returncode == 130
    assert "interrupted; nothing was saved." in err


@pytest.mark.slow
def test_ctrl_c_ends_a_worker_whose_peer_was_lost_while_starting(
    start_worker: StartWorker, peer_that_leaves: ComeAndLeave
) -> None:
    ports = find_free_ports(2)
    worker = start_worker(0, ports, 600.0)
    peer_that_leaves(ports)
    wait_for_line(worker, "makes")
    time.sleep(1.0)
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=20)
    assert worker.returncode == -signal.SIGINT


def test_a_worker_whose_peer_was_lost_while_starting_ends_in_time(
    start_worker: StartWorker, peer_that_leaves: ComeAndLeave
) -> None:
    ports = find_free_ports(2)
    chief = start_worker(0, ports, 5.0)
    wait_for_line(chief, "waits")
    peer_that_leaves(ports)
    out, err = chief.communicate(timeout=60)
    assert (chief.returncode, "made" in out) == (1, False)
    assert "a worker was lost during the start. Start all workers again." in err
    assert "Timeout" not in err, "no dump of the stack"
