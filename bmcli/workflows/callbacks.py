"""Protocols of callbacks that take messages and of displays that show progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bmcli.training.progress import ProgressCallback


class LogCallback(Protocol):
    """Takes a message; `level` 0 is always shown, 1 only with `--verbose`."""

    def __call__(self, text: str, level: int = 0) -> None: ...


ReportCallback = Callable[[str], object]
"""Takes a message that is always shown."""

ProgressFactory = Callable[[str], contextlib.AbstractContextManager["ProgressCallback"]]
"""Make a progress display from its title; it is entered while training."""
