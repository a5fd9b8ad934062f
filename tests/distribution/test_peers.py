"""Workers notice by themselves that another is lost, and end even while their main thread waits forever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from bmcli.distribution.launch import LAUNCHED_VARIABLE, LOST_PEER_EXIT_CODE

# A worker whose main thread is blocked; its peer is at the other end of descriptor 3.
WORKER = """
import socket, sys, time
from bmcli.errors import Interrupted, RunFailed
from bmcli.distribution import peers
peers.PEER_TIMEOUT_S, peers.GRACE_S, peers.FAULT_GRACE_S = 2.0, 0.2, 0.2
link = socket.socket(fileno=int(sys.argv[1]))
print("begun", flush=True)
with peers.Peers({1: link}).exit_on_loss(Interrupted if sys.argv[2] == "saved" else RunFailed):
    time.sleep(600)
"""


def ended(sent: bytes, closes: bool, saved: str = "saved", **variables: str) -> tuple[int, str]:
    """Exit code and messages of a worker whose peer sends something, and then leaves or is silent."""
    mine, its = socket.socketpair()
    with mine, its:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(its.fileno()), saved], pass_fds=[its.fileno()], text=True,
            env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        its.close()
        mine.sendall(sent)
        if closes:
            mine.close()
        _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize(
    ("sent", "closes", "message"),
    [
        (b"alive\n", True, "worker 1 ended"),
        (b"alive\n", False, "worker 1 sent no heartbeat for 2 s"),
        (b"alive\nlost 2\n", False, "worker 2 was lost"),
        (b"fault\n", False, "worker 1 ended with an error"),
    ],
)
def test_a_worker_ends_once_another_is_lost(sent: bytes, closes: bool, message: str) -> None:
    code, err = ended(sent, closes)
    assert code == 75
    assert f"{message}; this worker was ended too." in err


def test_without_a_checkpoint_it_is_a_failure() -> None:
    assert ended(b"", True, "nothing")[0] == 1


def test_below_a_launcher_a_worker_ends_without_a_word() -> None:
    code, err = ended(b"", True, **{LAUNCHED_VARIABLE: "1"})
    assert code == LOST_PEER_EXIT_CODE
    assert "worker 1" not in err
