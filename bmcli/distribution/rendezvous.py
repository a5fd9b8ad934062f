"""Rendezvous of the workers before TensorFlow lets them wait for each other, so that a start cannot hang."""

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

JOIN_S = 15.0  # for TensorFlow to connect the workers, once all of them are present
TF_HEARTBEAT_TIMEOUT_S = 600.0  # after which TensorFlow ends a silent worker; `Peers` notices one much earlier


@contextlib.contextmanager
def wait_for_peers(cluster: Cluster, timeout_s: float, agreement: str = "") -> Iterator[Peers]:
    """Wait until all workers are present, then run the body, which makes the strategy.

    If a worker is lost while the body runs, the process ends after `JOIN_S` with exit code 1, and a signal ends it
    directly. The handlers of signals are restored after the body.

    Args:
        timeout_s: Seconds until all workers must be present.
        agreement: A text that must be equal on all workers, such as their recipe.

    Yields:
        The other workers, whose heartbeats are already watched.

    Raises:
        RunFailed: A worker is missing, the agreements differ, or the port is in use.
        WorkerLost: A worker was lost while the body ran.
    """
    # TensorFlow would also wait for the workers, for more than ten minutes, but it holds Python's global lock and
    # handles SIGTERM itself meanwhile: no thread runs, and the signal has no effect.
    links = _connect_workers(cluster, time.monotonic() + timeout_s, timeout_s, agreement)
    private_api.set_heartbeat_timeout(cluster.workers, TF_HEARTBEAT_TIMEOUT_S)
    # gRPC would look for the peers, even those on this machine, behind the proxy of http_proxy, and wait forever.
    os.environ.setdefault("no_grpc_proxy", ",".join(address.rpartition(":")[0] for address in cluster.addresses))
    # Python's handlers run only when TensorFlow returns; the default action of the kernel ends the process.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        with _exit_on_hang(JOIN_S):
            yield Peers(links)
    except (tf.errors.OpError, RuntimeError):
        if LAUNCHED_VARIABLE in os.environ:
            os._exit(LOST_PEER_EXIT_CODE)  # without a message, because the launcher knows which worker was lost
        raise WorkerLost(_LOST_MESSAGE, suggestion=_RESTART_ADVICE) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_LOST_MESSAGE = "a worker was lost during the start."
_RESTART_ADVICE = "Start all workers again."
# Prints its argument as soon as its input has a byte, and nothing if its input ends without one.
_PRINTER_SCRIPT = "import sys\nif sys.stdin.buffer.read(1):\n    sys.stderr.write(sys.argv[1])"


@contextlib.contextmanager
def _exit_on_hang(seconds: float) -> Iterator[None]:
    """End the process with exit code 1 if the body takes too long."""
    # While TensorFlow holds the global lock, no Python thread runs: only the watchdog of `faulthandler` can end the
    # process, and it first dumps the stack. The dump goes to another process, which prints a message instead.
    message = "" if LAUNCHED_VARIABLE in os.environ else f"{_LOST_MESSAGE} {_RESTART_ADVICE}\n"
    printer = subprocess.Popen([sys.executable, "-I", "-S", "-c", _PRINTER_SCRIPT, message], stdin=subprocess.PIPE)
    assert printer.stdin is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=printer.stdin)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        printer.communicate()


def _connect_workers(cluster: Cluster, deadline: float, timeout_s: float, agreement: str) -> dict[int, socket.socket]:
    """Connect every worker to the chief, which sends them the result once all are present or the time is over.

    Returns:
        A connection to each worker that this one watches, by rank.
    """
    digest = hashlib.sha256(f"{cluster.addresses} {agreement}".encode()).hexdigest()
    # Every worker opens its port, which TensorFlow opens next: one that is in use is noticed before others wait for it.
    with _open_port(cluster) as server:
        missing, links = (
            _accept_workers(cluster, server, deadline, digest)
            if cluster.is_chief
            else _connect_to_chief(cluster, deadline, digest)
        )
    if missing:
        _close_links(links)
        names = ", ".join(f"worker {rank} ({cluster.addresses[rank]})" for rank in missing)
        raise RunFailed(
            f"after {timeout_s:g} s there is no connection to {names}.",
            path="runtime.start_timeout",
            suggestion="Check that every worker runs and can reach the others, or raise runtime.start_timeout.",
        )
    return links


@contextlib.contextmanager
def _open_port(cluster: Cluster) -> Iterator[socket.socket]:
    port = int(cluster.addresses[cluster.rank].rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        else:
            server = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise RunFailed(
            f"worker {cluster.rank} cannot listen on port {port}: {(error.strerror or str(error)).lower()}.",
            path="runtime.cluster",
            suggestion="Another program uses it, or a worker that is still running: end it, or choose another port.",
        ) from None
    with server:
        yield server


Connections = tuple[list[int], dict[int, socket.socket]]
"""The ranks of missing workers, and a connection to each of the others by rank."""


def _accept_workers(cluster: Cluster, server: socket.socket, deadline: float, digest: str) -> Connections:
    """Accept the other workers as the chief, and send all of them the ranks of those that are missing."""
    present: dict[int, socket.socket] = {}
    while len(present) < cluster.workers - 1 and time.monotonic() < deadline:
        server.settimeout(max(0.01, min(0.5, deadline - time.monotonic())))
        with contextlib.suppress(OSError):
            _accept_worker(server.accept()[0], present, digest)
        # A worker may end while it waits for others, and may be started again.
        gone = {rank: link for rank, link in present.items() if _has_disconnected(link)}
        present = {rank: link for rank, link in present.items() if rank not in gone}
        _close_links(gone)
    missing = [rank for rank in range(1, cluster.workers) if rank not in present]
    _send_to_all(list(present.values()), f"missing {' '.join(map(str, missing))}")
    return missing, present


def _accept_worker(link: socket.socket, present: dict[int, socket.socket], digest: str) -> None:
    """Add a worker to those that are present; one with another agreement ends the rendezvous."""
    try:
        rank, worker_digest = _read_introduction(link)
    except OSError:
        link.close()
        raise
    if worker_digest != digest:
        _send_to_all([*present.values(), link], f"disagree {rank}")
        _close_links({**present, rank: link})
        raise _disagreement_error(rank)
    if rank in present:  # it was started again
        present[rank].close()
    present[rank] = link


def _close_links(links: Mapping[int, socket.socket]) -> None:
    for link in links.values():
        link.close()


def _read_introduction(link: socket.socket) -> tuple[int, str]:
    """Read the rank and the digest of a worker; raises OSError for any other program that connects."""
    link.settimeout(2.0)  # another program may connect and send nothing
    name, _, rest = _read_line(link).partition(" ")
    rank, _, digest = rest.partition(" ")
    if name != "bmcli" or not rank.isdecimal():
        raise OSError("not a worker")
    return int(rank), digest


def _connect_to_chief(cluster: Cluster, deadline: float, digest: str) -> Connections:
    """Connect to the chief as another worker; the chief itself is missing if it does not reply in time."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as on_failure:
            try:
                chief = socket.create_connection((host.strip("[]"), int(port)), timeout=5.0)
                on_failure.enter_context(chief)
                chief.sendall(f"bmcli {cluster.rank} {digest}\n".encode())
                # The chief replies when all are present or its time is over, which may be a little later than here.
                chief.settimeout(max(0.01, deadline + 2.0 - time.monotonic()))
                reply, *ranks = _read_line(chief).split(" ")
            except (OSError, UnicodeError):
                time.sleep(0.2)  # the chief is not started yet, or has ended
                continue
            if reply == "disagree":
                raise _disagreement_error(int(ranks[0]))
            if reply == "missing":
                on_failure.pop_all()
                return [int(rank) for rank in ranks if rank], {0: chief}
        raise RunFailed(
            f"{cluster.addresses[0]} responds, but does not wait for worker {cluster.rank}.",
            path="runtime.cluster",
            suggestion="The others already train, or another program uses that port: end them and start all workers "
            "again.",
        )
    return [0], {}


def _read_line(peer: socket.socket) -> str:
    """Read a line from a peer; raises OSError if the connection ends before, or the line is too long."""
    line = b""
    while not line.endswith(b"\n"):
        piece = peer.recv(1)  # byte by byte, because what follows the line is for `Peers` to read
        if not piece or len(line) > 100_000:
            raise OSError("no complete line")
        line += piece
    return line[:-1].decode("ascii", "replace")


def _send_to_all(links: Sequence[socket.socket], message: str) -> None:
    for link in links:
        with contextlib.suppress(OSError):
            link.sendall(f"{message}\n".encode())


def _has_disconnected(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        link.settimeout(2.0)


def _disagreement_error(rank: int) -> RunFailed:
    return RunFailed(
        f"worker {rank} has another recipe or other peers than worker 0.",
        path="runtime.cluster",
        suggestion="Start all workers with the same command and the same addresses.",
    )
