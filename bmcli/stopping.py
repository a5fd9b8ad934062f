"""Signals that end a command, and how to go on afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from bmcli.errors import BmcliError, Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.05


class _Signals:
    """What came so far, and whether it ends what is going on."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.answered = False


_state = _Signals()


def listen() -> None:
    """Notes SIGINT and SIGTERM from now on, but for those that are ignored, as under nohup; a second one acts at once.

    They end nothing before `answer`, so that whoever is interrupted while it starts still knows what it was to go on
    with.
    """
    _state.received, _state.answered = [], False
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)


def answer() -> None:
    """Lets signals raise KeyboardInterrupt, those that came before too."""
    _state.answered = True
    if _state.received:
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal came; a library in C may make another exception of a KeyboardInterrupt."""
    return bool(_state.received)


def _note(number: int, frame: object) -> None:
    _state.received.append(number)
    if _state.answered:
        raise KeyboardInterrupt
    if len(_state.received) > 1:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def again() -> None:
    """Has the last signal come once more: its KeyboardInterrupt was lost where nothing can be raised."""
    if _state.received:
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), _state.received[-1]))
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def resumable(how: Callable[[], str | None]) -> Iterator[None]:
    """Turns an interruption of the body into one that tells how to go on.

    Args:
        how: Asked once a signal came: a sentence on how to go on, or None if nothing was kept to go on with.

    Raises:
        Interrupted: A signal came, and there is something to go on with.
    """
    try:
        yield
    except BmcliError:
        raise
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) or (isinstance(error, Exception) and requested())):
            raise
        sentence = how()
        if sentence is None:
            raise KeyboardInterrupt from None
        raise Interrupted("interrupted; what was saved is kept.", suggestion=sentence) from None


def going_on(command: str) -> str:
    """The sentence that names the command to go on with."""
    return f"Go on with `{command}`."
