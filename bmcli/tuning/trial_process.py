"""Forks of a process that has imported TensorFlow but not started it: each runs a few trainings and ends."""

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
    """Import the modules of every training, with the environment variables of TensorFlow for all recipes.

    A fork is safe as long as TensorFlow has executed nothing: it has no threads and holds no device yet.
    """
    garbage_collection.reduce_collections()
    for recipe in recipes:
        training.set_environment_variables(recipe, cache)
    with hide_native_stderr():
        for module in _MODULES:
            importlib.import_module(module)
    from bmcli.distribution import cluster

    # Children train alone, also if this process belongs to a cluster.
    cluster.clear_cluster_variables()
    gc.collect()
    gc.freeze()  # children then neither scan the imported objects nor copy their shared memory


class ForkedProcess:
    """A fork of this process that runs submitted tasks one after the other; it dies with this process.

    Args:
        run_task: Runs a task, given its name without line breaks, and returns its exit code. An error ends the child.
    """

    def __init__(self, run_task: Callable[[str], int]) -> None:
        # The child would write what is left in the buffers a second time.
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        names, self._names = os.pipe()
        self._codes, codes = os.pipe()
        self.submitted_count = 0
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            # Copies of the parent's ends would keep the pipes open after the parent has closed its own.
            os.close(self._names)
            os.close(self._codes)
            _run_child(parent, run_task, names, codes)
        os.close(names)
        os.close(codes)

    def submit(self, name: str) -> None:
        """Submit a task, which starts after those submitted before."""
        self.submitted_count += 1
        with contextlib.suppress(BrokenPipeError):  # `wait_for_code` returns the exit code of a dead child
            os.write(self._names, f"{name}\n".encode())

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of a task or of the child; false if neither came within the timeout."""
        return bool(select.select([self._codes], [], [], timeout_s)[0])

    def wait_for_code(self) -> int:
        """Wait for the exit code of a task; minus the number of a signal if one killed the child."""
        if self._code is None and (packed := os.read(self._codes, _CODE.size)):
            (code,) = _CODE.unpack(packed)
            return int(code)
        return self._reap()

    @property
    def is_alive(self) -> bool:
        """Whether the child was alive when it was last waited for."""
        return self._code is None

    def send(self, number: int) -> None:
        """Send a signal to the child, unless it is dead."""
        if self._code is None:
            os.kill(self._pid, number)

    def close(self) -> None:
        """End the child after its tasks, and wait for it."""
        os.close(self._names)
        self._reap()
        os.close(self._codes)

    def _reap(self) -> int:
        if self._code is None:
            _, status = os.waitpid(self._pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _run_child(parent: int, run_task: Callable[[str], int], names: int, codes: int) -> NoReturn:
    """Run the tasks whose names come from a pipe, in a new fork; end without the exit handlers of the parent."""
    code = 1
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        die_with_parent(parent)
        with os.fdopen(names, encoding="utf-8") as lines:
            for line in lines:
                task_code = run_task(line.rstrip("\n"))
                sys.stdout.flush()
                sys.stderr.flush()
                os.write(codes, _CODE.pack(task_code))
                gc.collect()  # after the code, when nothing waits for it: graphs are cycles of objects
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals in the body, in which a child is started: the handler must already know it to end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
