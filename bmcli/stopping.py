"""Signals that interrupt a command, and the advice how to resume it.

Python runs signal handlers in the main thread, between two bytecodes. A call into TensorFlow can last for minutes, for
example while it compiles, so a second thread, the watchdog, ends the process if the main thread does not react in time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from bmcli.advice import Command
from bmcli.errors import BmcliError, Interrupted, RunFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
EXIT_CODES = (INTERRUPTED, Interrupted.exit_code)
GRACE_S = 2.0  # time for the main thread to react to a signal, before the watchdog ends the process
_POLL_S = 0.1
_RESEND_DELAY_S = 0.05

MakeAdvice = Callable[[], str | None]
"""Called after a signal; returns advice how to resume, as a sentence, or None if nothing was saved."""


def _record_nothing(sentence: str | None) -> None:
    """Record no interruption."""


@dataclass(frozen=True)
class _Guard:
    """A block of code that a signal interrupts.

    Args:
        make_advice: Makes the advice how to resume; None if the watchdog must not end the process.
        record: Records the interruption, with the advice.
    """

    make_advice: MakeAdvice | None
    record: Callable[[str | None], None]


def _ignore_error(error: BmcliError) -> None:
    """Ignore an error before `enable_interrupts` sets where it is reported."""


class _SignalState:
    """The signals received so far, and the blocks that they interrupt."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.enabled = False
        self.report: Callable[[BmcliError], None] = _ignore_error
        self.guards: list[_Guard] = []  # the innermost last
        self.busy_since = 0.0  # from then on the grace period of the main thread counts
        self.exit_code: int | None = None  # of a process that is about to exit
        self.lock = threading.RLock()


_state = _SignalState()


def install_handlers() -> None:
    """Record SIGINT and SIGTERM from now on, except signals that are ignored, such as under nohup.

    Before `enable_interrupts` the first signal is only recorded, so that a command interrupted during its start can
    still give advice; the second signal ends the process.
    """
    _state.received, _state.enabled, _state.exit_code = [], False, None
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle_signal)


def start_watchdog() -> None:
    """Start a thread that ends this process some seconds after a signal if the main thread does not.

    The main thread may be inside a long call of C code, or a library may catch the exception of the signal handler.
    """
    # Python's C-level handler writes the number of each signal to this pipe at once, whatever the main thread does.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_disable_wakeup)
    threading.Thread(target=_run_watchdog, args=(reader,), name="bmcli-signals", daemon=True).start()


def _disable_wakeup() -> None:
    """Stop a forked process from writing its signals to the pipe of its parent, which would end the parent."""
    signal.set_wakeup_fd(-1)


def enable_interrupts(report: Callable[[BmcliError], None]) -> None:
    """Let signals raise KeyboardInterrupt, including those received before.

    Args:
        report: Shows the error of a process that the watchdog ends.
    """
    _state.enabled, _state.report = True, report
    if _state.received:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether a signal was received; libraries may convert a KeyboardInterrupt into another exception."""
    return bool(_state.received)


def set_exit_code(code: int) -> None:
    """Set the exit code of a process whose error was reported, or is about to be: the watchdog reports none."""
    with _state.lock:
        _state.exit_code, _state.busy_since = code, time.monotonic()


def _handle_signal(number: int, frame: object) -> None:
    _state.received.append(number)
    if _state.enabled:
        raise KeyboardInterrupt
    if len(_state.received) > 1:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def resend_signal() -> None:
    """Send the last signal again after a moment, because its KeyboardInterrupt was lost, for example in `__del__`."""
    if _state.received:
        timer = threading.Timer(_RESEND_DELAY_S, os.kill, (os.getpid(), _state.received[-1]))
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def resumable(make_advice: MakeAdvice, record: Callable[[str | None], None] = _record_nothing) -> Iterator[None]:
    """Convert an interruption of the body into an error with advice how to resume.

    Args:
        make_advice, record: See `interruptible`.

    Raises:
        Interrupted: A signal was received, and the body can be resumed.
    """
    try:
        with interruptible(make_advice, record):
            yield
    except BmcliError:
        raise
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) or (isinstance(error, Exception) and was_interrupted())):
            raise
        advice = make_advice()
        if advice is None:
            raise KeyboardInterrupt from None
        raise Interrupted("interrupted; what was saved is kept.", suggestion=advice) from None


@contextlib.contextmanager
def without_watchdog() -> Iterator[None]:
    """Disable the watchdog while the body runs, which handles signals itself."""
    with interruptible(None):
        yield


@contextlib.contextmanager
def interruptible(
    make_advice: MakeAdvice | None, record: Callable[[str | None], None] = _record_nothing
) -> Iterator[None]:
    """Set what the watchdog does if it ends the process while the body runs; no exception is raised then.

    Args:
        make_advice: Makes the advice how to resume, in the thread of the watchdog. None disables the watchdog.
        record: Records the interruption, with the advice; called in the same thread.
    """
    guard = _Guard(make_advice, record)
    with _state.lock:
        _state.guards.append(guard)
    try:
        yield
    finally:
        with _state.lock:
            _state.guards.remove(guard)
            _state.busy_since = time.monotonic()


def _run_watchdog(reader: int) -> None:
    """End the process some time after a signal, if the main thread does not."""
    while os.read(reader, 1)[0] not in SIGNALS:
        pass
    _state.busy_since = max(_state.busy_since, time.monotonic())
    while True:
        time.sleep(_POLL_S)
        with _state.lock:
            if time.monotonic() - _state.busy_since >= GRACE_S:
                _end_if_overdue()


def _end_if_overdue() -> None:
    if _state.exit_code is not None:
        end_process(_state.exit_code)
    if not _state.enabled or not _state.guards or _state.guards[-1].make_advice is None:
        return
    error, code = _describe_interruption()
    _state.report(error)
    end_process(code)


def _describe_interruption() -> tuple[BmcliError, int]:
    """Record the interruption of all blocks, from the inside; returns the error to report, and the exit code."""
    advice = None  # at the end that of the outermost block with advice: the command that the user called
    try:
        for guard in reversed(_state.guards):
            advice = (guard.make_advice() if guard.make_advice is not None else None) or advice
            with contextlib.suppress(OSError):
                guard.record(advice)
    except BmcliError as error:
        return error, error.exit_code
    except OSError as error:
        return RunFailed(f"interrupted, and the state could not be saved: {error}"), RunFailed.exit_code
    if advice is None:
        return RunFailed("interrupted; nothing was saved."), INTERRUPTED
    return Interrupted("interrupted; what was saved is kept.", suggestion=advice), Interrupted.exit_code


def end_process(code: int) -> NoReturn:
    """End the process at once, without finalisers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def format_resume_advice(command: Command) -> str:
    """Format the advice how to resume, with its command."""
    return f"Continue with {command}."
