"""Forks of a process that has imported TensorFlow and executed nothing of it: each trains a few times and is gone."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from bmcli import garbage_collection, training
from bmcli.distribution.launch import die_with_parent
from bmcli.native_output import hide_native_stderr
from bmcli.recipe.schema import Recipe

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CODE = struct.Struct("i")
_MODULES = (
    "bmcli.training.trainer",
    "bmcli.networks.network",
    "bmcli.distribution.environment",
    "bmcli.training.predictor",
)


def import_training(recipes: Iterable[Recipe], cache: Path) -> None:
    """Imports what every training needs; what TensorFlow is told at its import is told for all of these recipes."""
    garbage_collection.look_rarely()
    for recipe in recipes:
        training.set_environment_variables(recipe, cache)
    with hide_native_stderr():
        for module in _MODULES:
            importlib.import_module(module)
    from bmcli.distribution import cluster

    cluster.clear_cluster_variables()
    gc.collect()
    gc.freeze()  # Children leave the memory of what was imported shared, and never look through it.


class ForkedProcess:
    """A fork of this process that does what it is given, one thing after the other; it dies with this process.

    Args:
        run_task: From what it is given, a word without a line break, to an exit code. An error ends the child.
    """

    def __init__(self, run_task: Callable[[str], int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        words, self._words = os.pipe()
        self._codes, codes = os.pipe()
        self.submitted_count = 0
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._words)
            os.close(self._codes)
            _run_child(parent, run_task, words, codes)
        os.close(words)
        os.close(codes)

    def submit(self, word: str) -> None:
        """Lets it begin with something, once it is done with what it was given before."""
        self.submitted_count += 1
        # That it is gone is told by `code`.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._words, f"{word}\n".encode())

    def wait(self, timeout_s: float) -> bool:
        """Whether it is done with what it was given, or gone, after at most so long."""
        return bool(select.select([self._codes], [], [], timeout_s)[0])

    def wait_for_code(self) -> int:
        """The exit code of what it was given, or minus the number of the signal that ended it; waits for it."""
        if self._code is None and (told := os.read(self._codes, _CODE.size)):
            (code,) = _CODE.unpack(told)
            return int(code)
        return self._reap()

    @property
    def is_alive(self) -> bool:
        """Whether it can be given more, unless it ends meanwhile."""
        return self._code is None

    def send(self, number: int) -> None:
        if self._code is None:
            os.kill(self._pid, number)

    def close(self) -> None:
        """Ends it once it is done."""
        os.close(self._words)
        self._reap()
        os.close(self._codes)

    def _reap(self) -> int:
        if self._code is None:
            _, status = os.waitpid(self._pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _run_child(parent: int, run_task: Callable[[str], int], words: int, codes: int) -> NoReturn:
    """Does what it reads from a pipe, in a new fork; ends without what the parent does at its end."""
    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        die_with_parent(parent)
        with os.fdopen(words, encoding="utf-8") as lines:
            for line in lines:
                found = run_task(line.rstrip("\n"))
                sys.stdout.flush()
                sys.stderr.flush()
                os.write(codes, _CODE.pack(found))
                gc.collect()  # While nobody waits: graphs are rings of objects.
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Holds signals back until a child is known, so that it can be told."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
