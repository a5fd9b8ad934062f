"""A start of several workers that cannot hang: they meet before TensorFlow makes them wait for each other."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from bmcli import private_api
from bmcli.distribution.cluster import Cluster
from bmcli.distribution.launch import LAUNCHED_VARIABLE, LOST_PEER_EXIT_CODE
from bmcli.distribution.peers import Peers
from bmcli.errors import RunFailed, WorkerLost

JOIN_S = 15.0  # for TensorFlow's part of a start, once all are there
TF_HEARTBEAT_TIMEOUT_S = 600.0  # after which TensorFlow takes a silent worker for lost; we do much earlier


@contextlib.contextmanager
def wait_for_peers(cluster: Cluster, timeout_s: float, agreement: str = "") -> Iterator[Peers]:
    """Waits until all workers are there; the body then makes the strategy, while they already watch each other.

    TensorFlow would wait for them as well, for longer than ten minutes, but holding Python's lock and with a handler
    of SIGTERM of its own: no thread runs meanwhile, and SIGTERM is not answered. Here it is. Should a worker be lost
    after all were there, while the body runs, the process ends after `JOIN_S` with exit code 1, and a signal ends it
    directly. Our handlers of signals are put back after the body.

    Args:
        timeout_s: From now until all are there.
        agreement: What all have to be given alike, such as their recipe.

    Raises:
        RunFailed: Not all came in time, they do not agree, or the port is taken.
        WorkerLost: One was lost while the body ran.
    """
    links = _connect_workers(cluster, time.monotonic() + timeout_s, timeout_s, agreement)
    private_api.set_heartbeat_timeout(cluster.workers, TF_HEARTBEAT_TIMEOUT_S)
    # gRPC would ask the proxy of http_proxy for the peers, even for those on this machine, and wait for ever.
    os.environ.setdefault("no_grpc_proxy", ",".join(address.rpartition(":")[0] for address in cluster.addresses))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        with _exit_on_hang(JOIN_S):
            yield Peers(links)
    except (tf.errors.OpError, RuntimeError):
        if LAUNCHED_VARIABLE in os.environ:
            os._exit(LOST_PEER_EXIT_CODE)  # without a word, because the launcher knows more
        raise WorkerLost(_LOST_MESSAGE, suggestion=_RESTART_ADVICE) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_LOST_MESSAGE = "a worker was lost while all of them started."
_RESTART_ADVICE = "Start all workers again."
# Says its argument once there is something to read, and nothing if there never is.
_SPEAKER_SCRIPT = "import sys\nif sys.stdin.buffer.read(1):\n    sys.stderr.write(sys.argv[1])"


@contextlib.contextmanager
def _exit_on_hang(seconds: float) -> Iterator[None]:
    """Ends the process with 1 if the body takes too long, although no thread of Python can run.

    Only `faulthandler` can do that, which first dumps the stack: another process says in words what that means.
    """
    words = "" if LAUNCHED_VARIABLE in os.environ else f"{_LOST_MESSAGE} {_RESTART_ADVICE}\n"
    speaker = subprocess.Popen([sys.executable, "-I", "-S", "-c", _SPEAKER_SCRIPT, words], stdin=subprocess.PIPE)
    assert speaker.stdin is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=speaker.stdin)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        speaker.communicate()


def _connect_workers(cluster: Cluster, deadline: float, timeout_s: float, agreement: str) -> dict[int, socket.socket]:
    """Each worker tells the chief that it is there; the chief tells all when all are.

    Returns:
        A connection to each worker that this one watches, by rank.
    """
    told = f"{cluster.addresses} {agreement}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    # Held by every worker, so that a taken port is found before TensorFlow, which takes it next, makes the others wait.
    with _open_port(cluster) as door:
        missing, links = (
            _accept_workers(cluster, door, deadline, digest)
            if cluster.is_chief
            else _connect_to_chief(cluster, deadline, digest)
        )
    if missing:
        _close_links(links)
        names = ", ".join(f"worker {rank} ({cluster.addresses[rank]})" for rank in missing)
        raise RunFailed(
            f"after {timeout_s:g} s there is no word from {names}.",
            path="runtime.start_timeout",
            suggestion="Check that every worker runs and can reach the others, or raise runtime.start_timeout.",
        )
    return links


@contextlib.contextmanager
def _open_port(cluster: Cluster) -> Iterator[socket.socket]:
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


Connections = tuple[list[int], dict[int, socket.socket]]
"""The ranks that did not come, and connections to those that did."""


def _accept_workers(cluster: Cluster, server: socket.socket, deadline: float, digest: str) -> Connections:
    """The chief's part: who came, after all were told who did not."""
    present: dict[int, socket.socket] = {}
    while len(present) < cluster.workers - 1 and time.monotonic() < deadline:
        server.settimeout(max(0.01, min(0.5, deadline - time.monotonic())))
        with contextlib.suppress(OSError):
            _accept_worker(server.accept()[0], present, digest)
        gone = {rank: guest for rank, guest in present.items() if _has_disconnected(guest)}
        present = {rank: guest for rank, guest in present.items() if rank not in gone}
        _close_links(gone)
    missing = [rank for rank in range(1, cluster.workers) if rank not in present]
    _send_to_all(list(present.values()), f"missing {' '.join(map(str, missing))}")
    return missing, present


def _accept_worker(guest: socket.socket, present: dict[int, socket.socket], digest: str) -> None:
    """Adds a worker to those that are there; one that does not agree ends the meeting."""
    try:
        rank, theirs = _read_introduction(guest)
    except OSError:
        guest.close()
        raise
    if theirs != digest:
        _send_to_all([*present.values(), guest], f"disagree {rank}")
        _close_links({**present, rank: guest})
        raise _disagreement_error(rank)
    if rank in present:
        present[rank].close()
    present[rank] = guest


def _close_links(links: Mapping[int, socket.socket]) -> None:
    for link in links.values():
        link.close()


def _read_introduction(guest: socket.socket) -> tuple[int, str]:
    """Rank and digest of a worker; anything else that knocks is turned away as an OSError."""
    guest.settimeout(2.0)
    name, _, rest = _read_line(guest).partition(" ")
    rank, _, digest = rest.partition(" ")
    if name != "bmcli" or not rank.isdecimal():
        raise OSError("not a worker")
    return int(rank), digest


def _connect_to_chief(cluster: Cluster, deadline: float, digest: str) -> Connections:
    """A worker's part: who did not come, by the chief's word; the chief itself if it is silent."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as unless_met:
            try:
                chief = socket.create_connection((host.strip("[]"), int(port)), timeout=5.0)
                unless_met.enter_context(chief)
                chief.sendall(f"bmcli {cluster.rank} {digest}\n".encode())
                chief.settimeout(max(0.01, deadline + 2.0 - time.monotonic()))
                answer, *ranks = _read_line(chief).split(" ")
            except (OSError, UnicodeError):
                time.sleep(0.2)  # not there yet, or gone again
                continue
            if answer == "disagree":
                raise _disagreement_error(int(ranks[0]))
            if answer == "missing":
                unless_met.pop_all()
                return [int(rank) for rank in ranks if rank], {0: chief}
        raise RunFailed(
            f"{cluster.addresses[0]} answers, but does not wait for worker {cluster.rank}.",
            path="runtime.cluster",
            suggestion="The others train already, or another program has that port: end them and start all again.",
        )
    return [0], {}


def _read_line(peer: socket.socket) -> str:
    """What a peer says up to the end of its line; an OSError if it leaves before, or says too much."""
    heard = b""
    while not heard.endswith(b"\n"):
        piece = peer.recv(1)
        if not piece or len(heard) > 100_000:
            raise OSError("no answer")
        heard += piece
    return heard[:-1].decode("ascii", "replace")


def _send_to_all(guests: Sequence[socket.socket], message: str) -> None:
    for guest in guests:
        with contextlib.suppress(OSError):
            guest.sendall(f"{message}\n".encode())


def _has_disconnected(guest: socket.socket) -> bool:
    guest.setblocking(False)
    try:
        return guest.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        guest.settimeout(2.0)


def _disagreement_error(rank: int) -> RunFailed:
    return RunFailed(
        f"worker {rank} was given another recipe or other peers than worker 0.",
        path="runtime.cluster",
        suggestion="Start all workers with the same command and the same addresses.",
    )
