"""Workers of a search on this machine: started, kept at work, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bmcli import stopping
from bmcli.disk import format_path, free_bytes
from bmcli.distribution.launch import ResourceShare, allocate_resources, describe_exit, read_last_lines, start_process
from bmcli.errors import RunFailed
from bmcli.tuning.study import Study
from bmcli.tuning.worker import SAVE_S

COMMAND = [sys.executable, "-m", "bmcli.tuning.worker"]
STOP_S = SAVE_S + 5.0
SHORT_LIFE_S = 10.0  # A worker that lived no longer has hardly come to work.
MAX_SHORT_LIVES = 3
CHECK_S = 1.0


@dataclass
class _WorkerSlot:
    """A place for a worker: its share of the machine, and who has it now."""

    share: ResourceShare
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    short_lives: int = 0  # in a row


class WorkerPool:
    """Worker processes of a study on this machine, in a `with` statement.

    The cores that this process may use are divided among them, and so are the GPUs that CUDA_VISIBLE_DEVICES lists.
    The kernel ends them when this process ends, however it does, so it must be made in the main thread.

    Args:
        cache: Prepared data and measurements of this machine.

    Raises:
        BmcliError: There are fewer GPUs than workers.
    """

    def __init__(self, study: Study, workers: int, cache: Path, environment: Mapping[str, str] | None = None) -> None:
        self._study, self._cache = study, cache
        self._environment = dict(os.environ if environment is None else environment)
        self._slots = [
            _WorkerSlot(allocate_resources(self._environment, workers, number), study.logs / f"worker-{number}.log")
            for number in range(workers)
        ]

    def __enter__(self) -> WorkerPool:
        for place in self._slots:
            self._start(place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def restart_dead_workers(self) -> None:
        """Puts a new worker in the place of each that died.

        Raises:
            RunFailed: Workers die again and again before they come to work.
        """
        for place in self._slots:
            code = None if place.process is None else place.process.poll()
            if code is None or self._study.is_over:
                continue
            place.short_lives = place.short_lives + 1 if time.monotonic() - place.started_at < SHORT_LIFE_S else 0
            if place.short_lives >= MAX_SHORT_LIVES:
                raise _crash_error(place, code)
            self._start(place)

    def run_until_over(self) -> None:
        """Keeps the workers at work until the search is over.

        Raises:
            RunFailed: As `tend` does.
        """
        while not self._study.is_over:
            self.restart_dead_workers()
            time.sleep(CHECK_S)

    @property
    def live_count(self) -> int:
        """How many of them are at work."""
        return sum(place.process is not None and place.process.poll() is None for place in self._slots)

    def stop(self) -> None:
        """Ends them all, after they have saved the state of what they train."""
        with stopping.without_watchdog():
            self._stop()

    def _stop(self) -> None:
        for place in self._slots:
            _send_signal(place, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for place in self._slots:
            if place.process is None:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                place.process.wait(max(0.0, end - time.monotonic()))
            _send_signal(place, signal.SIGKILL)
            place.process.wait()

    def _start(self, slot: _WorkerSlot) -> None:
        command = [*COMMAND, str(self._study.folder), str(self._cache)]
        slot.process = start_process(command, {**self._environment, **slot.share.variables}, slot.share.cores, slot.log)
        slot.started_at = time.monotonic()


def _send_signal(slot: _WorkerSlot, number: int) -> None:
    if slot.process is not None:
        slot.process.send_signal(number)


def _crash_error(slot: _WorkerSlot, code: int) -> RunFailed:
    lines = "".join(f"\n    {line}" for line in read_last_lines(slot.log))
    left = f" It left no words; {free_bytes(slot.log) or 0:,} bytes are free at {format_path(slot.log)}."
    told = f" Its last lines, from {format_path(slot.log)}:{lines}" if lines else left
    return RunFailed(f"a worker {describe_exit(code)} {MAX_SHORT_LIVES} times in a row, before it came to work.{told}")
