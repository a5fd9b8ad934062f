"""A start of several workers that cannot hang: they meet before TensorFlow makes them wait for each other."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence

from bmcli.errors import RunFailed
from bmcli.training.cluster import Cluster


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
