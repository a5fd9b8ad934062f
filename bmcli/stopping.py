"""Signals that end a command, and how to go on afterwards."""

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

from bmcli.errors import BmcliError, Interrupted, RunFailed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
EXIT_CODES = (INTERRUPTED, Interrupted.exit_code)
GRACE_S = 2.0  # for the main thread to answer a signal, before another thread ends the process
_POLL_S = 0.1
_RESEND_DELAY_S = 0.05

MakeAdvice = Callable[[], str | None]
"""Asked once a signal came: a sentence on how to go on, or None if nothing was kept to go on with."""


def _record_nothing(sentence: str | None) -> None:
    """There is nothing to write down."""


@dataclass(frozen=True)
class _Guard:
    """What a signal ends, and how.

    Args:
        how: None if the main thread is waited for, however long it takes.
        leave: Writes down that it was ended, given the sentence on how to go on.
    """

    make_advice: MakeAdvice | None
    record: Callable[[str | None], None]


def _ignore_error(error: BmcliError) -> None:
    """Nobody listens yet."""


class _SignalState:
    """What came so far, and whether it ends what is going on."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.enabled = False
        self.report: Callable[[BmcliError], None] = _ignore_error
        self.guards: list[_Guard] = []  # the innermost last
        self.busy_since = 0.0  # the main thread may be busy with a signal since then
        self.exit_code: int | None = None  # what the process is about to end with
        self.lock = threading.RLock()


_state = _SignalState()


def install_handlers() -> None:
    """Notes SIGINT and SIGTERM from now on, but for those that are ignored, as under nohup; a second one acts at once.

    They end nothing before `enable_interrupts`, so that whoever is interrupted while it starts still knows what it
    was to go on with.
    """
    _state.received, _state.enabled, _state.exit_code = [], False, None
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle_signal)


def start_watchdog() -> None:
    """Has a thread end this process some seconds after a signal, where its main thread does not.

    Python's handlers wait for the function in C that the main thread is in, as TensorFlow's that compile; and a library
    may lose the exception that they raise.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_disable_wakeup)
    threading.Thread(target=_run_watchdog, args=(heard,), name="bmcli-signals", daemon=True).start()


def _disable_wakeup() -> None:
    """A fork has its parent's pipe: what comes to it must not end its parent."""
    signal.set_wakeup_fd(-1)


def enable_interrupts(report: Callable[[BmcliError], None]) -> None:
    """Lets signals raise KeyboardInterrupt, those that came before too.

    Args:
        report: Says the last words of a process that is ended by another thread than its main thread.
    """
    _state.enabled, _state.report = True, report
    if _state.received:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether a signal came; a library in C may make another exception of a KeyboardInterrupt."""
    return bool(_state.received)


def set_exit_code(code: int) -> None:
    """Tells what the process ends with: what is to be said was said, or is about to be."""
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
    """Has the last signal come once more: its KeyboardInterrupt was lost where nothing can be raised."""
    if _state.received:
        timer = threading.Timer(_RESEND_DELAY_S, os.kill, (os.getpid(), _state.received[-1]))
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def resumable(make_advice: MakeAdvice, record: Callable[[str | None], None] = _record_nothing) -> Iterator[None]:
    """Turns an interruption of the body into one that tells how to go on.

    Args:
        record: As `interruptible` takes it.

    Raises:
        Interrupted: A signal came, and there is something to go on with.
    """
    try:
        with interruptible(make_advice, record):
            yield
    except BmcliError:
        raise
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) or (isinstance(error, Exception) and was_interrupted())):
            raise
        sentence = make_advice()
        if sentence is None:
            raise KeyboardInterrupt from None
        raise Interrupted("interrupted; what was saved is kept.", suggestion=sentence) from None


@contextlib.contextmanager
def without_watchdog() -> Iterator[None]:
    """Has nothing end the process while the body runs, which answers signals itself, in its own time."""
    with interruptible(None):
        yield


@contextlib.contextmanager
def interruptible(
    make_advice: MakeAdvice | None, record: Callable[[str | None], None] = _record_nothing
) -> Iterator[None]:
    """Tells how a process is left that a signal ends while the body runs, without an exception in it.

    Args:
        make_advice: As of `resumable`, called by another thread. None to wait for the body, however long it takes.
        record: Writes down that the body was interrupted, given the sentence on how to go on; called as `make_advice` is.
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


def _run_watchdog(heard: int) -> None:
    """Ends the process some time after a signal, if the main thread does not."""
    while os.read(heard, 1)[0] not in SIGNALS:
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
    """What to tell of what a signal ended, and the exit code, after all that was going on was left in order."""
    sentence = None  # of the outermost that can be gone on with, which is what the user called
    try:
        for guard in reversed(_state.guards):
            sentence = (guard.make_advice() if guard.make_advice is not None else None) or sentence
            with contextlib.suppress(OSError):
                guard.record(sentence)
    except BmcliError as error:
        return error, error.exit_code
    except OSError as error:
        return RunFailed(f"interrupted, and the state could not be saved: {error}"), RunFailed.exit_code
    if sentence is None:
        return RunFailed("interrupted; nothing was worth keeping."), INTERRUPTED
    return Interrupted("interrupted; what was saved is kept.", suggestion=sentence), Interrupted.exit_code


def end_process(code: int) -> NoReturn:
    """Ends the process at once."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def format_resume_advice(command: str) -> str:
    """The sentence that names the command to go on with."""
    return f"Go on with `{command}`."
