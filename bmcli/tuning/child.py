"""Forks of a process that has imported TensorFlow and executed nothing of it: each trains once and is gone."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from bmcli import training
from bmcli.console import native_noise_hidden
from bmcli.recipe.schema import Recipe
from bmcli.training import compiled
from bmcli.training.launch import end_with

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_RARELY = (50_000, 20, 20)  # Graphs are built of very many objects that stay, among which there is little to collect.
_MODULES = ("bmcli.training.loop", "bmcli.training.network", "bmcli.training.environment", "bmcli.training.predict")


def warm_up(recipes: Iterable[Recipe], cache: Path) -> None:
    """Imports what every training needs; what TensorFlow is told at its import is told for all of these recipes."""
    for recipe in recipes:
        training.announce(recipe, cache)
    with native_noise_hidden():
        for module in _MODULES:
            importlib.import_module(module)
    from bmcli.training import cluster

    cluster.leave()
    compiled.sweep_once(compiled.folder(cache))
    gc.collect()
    gc.freeze()  # Children leave the memory of what was imported shared, and never look through it.


class Child:
    """A fork of this process that does one thing and ends; it dies with this process, however that ends."""

    def __init__(self, do: Callable[[], int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # Nothing is written into the pipe: it closes when the child ends, however it ends.
        self._ends, held = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _be_a_child(parent, do)
        os.close(held)
        self._code: int | None = None

    def ended(self, timeout_s: float) -> bool:
        """Whether it has ended, after at most so long."""
        return bool(select.select([self._ends], [], [], timeout_s)[0])

    def send(self, number: int) -> None:
        if self._code is None:
            os.kill(self._pid, number)

    def code(self) -> int:
        """Its exit code, or minus the number of the signal that killed it; waits for its end."""
        if self._code is None:
            _, status = os.waitpid(self._pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def close(self) -> None:
        self.code()
        os.close(self._ends)


def _be_a_child(parent: int, do: Callable[[], int]) -> NoReturn:
    """Does something in a process that was just forked, and ends it without what the parent would do at its end."""
    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        end_with(parent)
        gc.set_threshold(*_RARELY)
        code = do()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Holds signals back until a child is known, so that it can be told."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
