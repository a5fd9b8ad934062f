"""A signal ends a process in time, with advice how to resume, even while its main thread runs no Python."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# A signal is sent while the main thread is blocked in C code, where it cannot run a signal handler of Python.
STUCK = """
import ctypes, os, sys, threading, time
from bmcli import stopping

def send_signal():
    threading.Timer(0.3, os.kill, (os.getpid(), int(sys.argv[1]))).start()

def stuck():
    send_signal()
    mutex = ctypes.create_string_buffer(64)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def report(error):
    print(error, error.faults[0].suggestion, flush=True)

def record(advice):
    print("recorded", advice, flush=True)

stopping.GRACE_S = 0.2
stopping.start_watchdog()
stopping.install_handlers()
"""


def run_until_signal(body: str, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
    """Run a process that receives a signal; returns its exit code and output lines."""
    command = [sys.executable, "-c", STUCK + body, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_resumable_process_ends_with_75_and_advice(number: int) -> None:
    code, lines = run_until_signal(
        'with stopping.resumable(lambda: "Continue.", record):\n    stopping.enable_interrupts(report)\n    stuck()',
        number,
    )
    assert (code, lines) == (75, ["recorded Continue.", "interrupted; what was saved is kept. Continue."])


def test_a_process_without_advice_ends_with_130() -> None:
    code, lines = run_until_signal(
        "with stopping.resumable(lambda: None, record):\n    stopping.enable_interrupts(report)\n    stuck()"
    )
    assert (code, lines) == (130, ["recorded None", "interrupted; nothing was saved. "])


def test_the_outermost_block_gives_the_advice_and_each_block_is_recorded() -> None:
    body = """
with (
    stopping.resumable(lambda: "Continue the search.", record),
    stopping.resumable(lambda: "Continue the run.", record),
    stopping.interruptible(lambda: None, record),
):
    stopping.enable_interrupts(report)
    stuck()
"""
    code, lines = run_until_signal(body)
    assert code == 75
    assert lines == [
        "recorded None", "recorded Continue the run.", "recorded Continue the search.",
        "interrupted; what was saved is kept. Continue the search.",
    ]  # fmt: skip


def test_a_state_that_cannot_be_saved_is_a_failure() -> None:
    body = """
def save():
    raise OSError(28, "No space left on device")
with stopping.interruptible(save):
    stopping.enable_interrupts(report)
    stuck()
"""
    code, lines = run_until_signal(body)
    assert code == 1
    assert "the state could not be saved: [Errno 28] No space left on device" in lines[0]


def test_a_block_that_handles_signals_itself_is_not_ended() -> None:
    body = """
import signal
with stopping.resumable(lambda: "Continue.", record):
    stopping.enable_interrupts(report)
    with stopping.without_watchdog():
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print("answered", flush=True), os._exit(7)))
        send_signal()
        time.sleep(60)
"""
    assert run_until_signal(body) == (7, ["answered"])


def test_a_process_that_is_about_to_end_keeps_its_exit_code() -> None:
    code, lines = run_until_signal(
        'with stopping.resumable(lambda: "Continue.", record):\n    stopping.set_exit_code(3)\n    stuck()'
    )
    assert (code, lines) == (3, [])


def test_a_signal_to_a_fork_does_not_end_its_parent() -> None:
    body = """
import signal
with stopping.resumable(lambda: "Continue.", record):
    stopping.enable_interrupts(report)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    time.sleep(1)
    os._exit(0)
"""
    assert run_until_signal(body) == (0, ["5"])


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
