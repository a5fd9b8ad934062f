"""A signal ends a process in time, with what it has to go on with, even while its main thread runs no Python."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# A signal comes while the main thread waits for itself in C, where it cannot run a handler of Python.
STUCK = """
import ctypes, os, sys, threading, time
from bmcli import stopping

def come():
    threading.Timer(0.3, os.kill, (os.getpid(), int(sys.argv[1]))).start()

def stuck():
    come()
    mutex = ctypes.create_string_buffer(64)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def tell(error):
    print(error, error.faults[0].suggestion, flush=True)

def leave(sentence):
    print("left", sentence, flush=True)

stopping.GRACE_S = 0.2
stopping.start_watchdog()
stopping.install_handlers()
"""


def ended(body: str, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
    """Exit code and words of a process to which a signal comes."""
    command = [sys.executable, "-c", STUCK + body, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_can_be_gone_on_with_ends_with_75_and_says_how(number: int) -> None:
    code, said = ended(
        'with stopping.resumable(lambda: "Go on.", leave):\n    stopping.enable_interrupts(tell)\n    stuck()', number
    )
    assert (code, said) == (75, ["left Go on.", "interrupted; what was saved is kept. Go on."])


def test_without_anything_to_go_on_with_it_ends_with_130() -> None:
    code, said = ended(
        "with stopping.resumable(lambda: None, leave):\n    stopping.enable_interrupts(tell)\n    stuck()"
    )
    assert (code, said) == (130, ["left None", "interrupted; nothing was worth keeping. "])


def test_the_outermost_says_how_to_go_on_and_each_is_left_with_what_it_has() -> None:
    body = """
with (
    stopping.resumable(lambda: "Go on with the search.", leave),
    stopping.resumable(lambda: "Go on with the run.", leave),
    stopping.interruptible(lambda: None, leave),
):
    stopping.enable_interrupts(tell)
    stuck()
"""
    code, said = ended(body)
    assert code == 75
    assert said == [
        "left None", "left Go on with the run.", "left Go on with the search.",
        "interrupted; what was saved is kept. Go on with the search.",
    ]  # fmt: skip


def test_a_state_that_cannot_be_saved_is_a_failure() -> None:
    body = """
def save():
    raise OSError(28, "No space left on device")
with stopping.interruptible(save):
    stopping.enable_interrupts(tell)
    stuck()
"""
    code, said = ended(body)
    assert code == 1
    assert "the state could not be saved: [Errno 28] No space left on device" in said[0]


def test_what_answers_signals_itself_is_waited_for() -> None:
    body = """
import signal
with stopping.resumable(lambda: "Go on.", leave):
    stopping.enable_interrupts(tell)
    with stopping.without_watchdog():
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print("answered", flush=True), os._exit(7)))
        come()
        time.sleep(60)
"""
    assert ended(body) == (7, ["answered"])


def test_a_process_that_is_about_to_end_keeps_its_exit_code() -> None:
    code, said = ended('with stopping.resumable(lambda: "Go on.", leave):\n    stopping.set_exit_code(3)\n    stuck()')
    assert (code, said) == (3, [])


def test_a_signal_to_a_fork_does_not_end_its_parent() -> None:
    body = """
import signal
with stopping.resumable(lambda: "Go on.", leave):
    stopping.enable_interrupts(tell)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    time.sleep(1)
    os._exit(0)
"""
    assert ended(body) == (0, ["5"])


def test_what_was_half_made_when_a_signal_came_says_nothing() -> None:
    body = """
from bmcli import __main__ as boundary

class Half:
    def __del__(self):
        self.results

sys.unraisablehook = boundary._unraisable
Half()
os.kill(os.getpid(), int(sys.argv[1]))
Half()
"""
    command = [sys.executable, "-c", STUCK + body, str(int(signal.SIGTERM))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.count("AttributeError") == 1, done.stderr
