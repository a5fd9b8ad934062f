"""Heartbeats between the workers of a training, so that none of them waits for a lost one.

TensorFlow's collective operations wait forever for a suspended worker, and its coordination service may end a process
with a dump of the native stack. Therefore every worker keeps the connection to the chief from the rendezvous, and sends
a line on it every second: threads notice a silent worker, and end the process even if its main thread is inside
TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from bmcli.distribution.launch import LAUNCHED_VARIABLE, LOST_PEER_EXIT_CODE
from bmcli.errors import BmcliError, Interrupted
from bmcli.messages import uncover_stderr, write_faults

HEARTBEAT_S = 1.0
PEER_TIMEOUT_S = 9.0  # of silence, after which a worker is lost
GRACE_S = 2.0  # for the main thread to end by itself, once a worker is lost
FAULT_GRACE_S = 8.0  # the same once a worker has reported an error, which this one may be about to meet too

_ALIVE, _DONE, _FAULT, _LOST = b"alive", b"done", b"fault", b"lost"

WorkerLostHandler = Callable[[str], BmcliError]
"""Records in the run that a worker was lost, given a sentence that describes it; returns the error for the user."""


class Peers:
    """The workers to which this one has a connection: all others for the chief, and the chief for all others.

    Args:
        links: A connection to each, by rank.
    """

    def __init__(self, links: Mapping[int, socket.socket]) -> None:
        self._links = dict(links)
        self._is_guarded = threading.Event()
        self._is_over = threading.Event()
        self._is_loss_known = threading.Event()
        self._loss_lock = threading.Lock()
        self._exit_lock = threading.Lock()
        self._loss_message = ""
        self._on_loss: WorkerLostHandler | None = None
        for link in self._links.values():
            link.settimeout(PEER_TIMEOUT_S)
        # Daemons, because a thread that waits for a peer must not keep this process alive at its end.
        for rank, link in self._links.items():
            threading.Thread(target=self._listen, args=(rank, link), name="bmcli-peer", daemon=True).start()
        threading.Thread(target=self._send_heartbeats, name="bmcli-beat", daemon=True).start()

    @contextlib.contextmanager
    def exit_on_loss(self, on_loss: WorkerLostHandler) -> Iterator[None]:
        """End this process if a worker is lost while the body runs.

        The exit code is 75 if the run can be resumed, and 1 otherwise. Below a launcher no message is printed, because
        the launcher knows how every worker ended.

        Args:
            on_loss: Records the loss in the run.
        """
        self._on_loss = on_loss
        self._is_guarded.set()
        try:
            yield
        except BmcliError as error:
            self._leave(_DONE if isinstance(error, Interrupted) else _FAULT)
            raise
        except Exception:
            # When a worker is lost, TensorFlow raises the same errors as for any other failure of an operation: whether
            # one is silent is known after the timeout.
            if self._is_loss_known.wait(PEER_TIMEOUT_S + HEARTBEAT_S):
                self._exit()
            self._leave(_FAULT)
            raise
        except BaseException:
            self._leave(_FAULT)
            raise
        self._leave(_DONE)

    def _leave(self, word: bytes) -> None:
        self._is_over.set()  # first: a connection that another worker closes from now on is no loss
        self._broadcast(word)

    def _broadcast(self, word: bytes) -> None:
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.sendall(word + b"\n")

    def _send_heartbeats(self) -> None:
        while not self._is_over.wait(HEARTBEAT_S):
            self._broadcast(_ALIVE)

    def _listen(self, rank: int, link: socket.socket) -> None:
        """Read the lines of a worker until it leaves in order, or is lost."""
        try:
            with link.makefile("rb") as lines:
                for line in lines:
                    word, _, other = line.strip().partition(b" ")
                    if word == _DONE:
                        return
                    if word == _FAULT:
                        return self._handle_loss(rank, f"worker {rank} ended with an error", FAULT_GRACE_S)
                    if word == _LOST:
                        return self._handle_loss(int(other), f"worker {int(other)} was lost", GRACE_S)
            self._handle_loss(rank, f"worker {rank} ended", GRACE_S)
        except TimeoutError:
            self._handle_loss(rank, f"worker {rank} sent no heartbeat for {PEER_TIMEOUT_S:g} s", GRACE_S)
        except (OSError, ValueError):
            self._handle_loss(rank, f"the connection to worker {rank} broke", GRACE_S)

    def _handle_loss(self, rank: int, message: str, grace_s: float) -> None:
        """Record that a worker is lost, and end this process unless its main thread does."""
        # The first loss is the cause of those that follow; the lock is never released, so that only it is handled.
        if self._is_over.is_set() or not self._loss_lock.acquire(blocking=False):
            return
        self._loss_message = message
        # Workers other than the chief are connected to the chief alone, and learn it only like this.
        self._broadcast(_LOST + b" %d" % rank)
        self._is_loss_known.set()
        self._is_guarded.wait()  # before `exit_on_loss` there is no handler, and the rendezvous has a time limit
        if not self._is_over.wait(grace_s):
            self._exit()

    def _exit(self) -> NoReturn:
        """End this process immediately."""
        # Not by an exception or `sys.exit`: TensorFlow's shutdown would wait for the lost worker. The lock is never
        # released, so that the main thread and a listener cannot both print the error.
        self._exit_lock.acquire()
        assert self._on_loss is not None, "only a guarded process is ended"
        error = self._on_loss(f"{self._loss_message}; this worker was ended too.")
        if LAUNCHED_VARIABLE not in os.environ:
            uncover_stderr()
            write_faults(error, as_json="--json" in sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(LOST_PEER_EXIT_CODE if LAUNCHED_VARIABLE in os.environ else error.exit_code)
