"""Start the workers of a search on this machine, replace those that die, and stop them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bmcli import machine, stopping
from bmcli.disk import format_path, free_bytes
from bmcli.distribution.launch import ResourceShare, allocate_resources, describe_exit, read_last_lines, start_process
from bmcli.errors import RunFailed
from bmcli.tuning.study import Study
from bmcli.tuning.worker import SAVE_S

COMMAND = machine.make_python_command("bmcli.tuning.worker")
STOP_S = SAVE_S + 5.0  # until workers that do not stop are killed
SHORT_LIFE_S = 10.0  # a worker that ends sooner has failed to start
MAX_SHORT_LIVES = 3
CHECK_S = 1.0


@dataclass
class _WorkerSlot:
    """A share of the machine for one worker, and the process that has it now."""

    share: ResourceShare
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    short_lives: int = 0  # in a row


class WorkerPool:
    """Worker processes of a study on this machine, as a context manager.

    The workers share the cores of this process and the GPUs in CUDA_VISIBLE_DEVICES. The kernel kills them when the
    thread that started them ends, so the pool must be used in the main thread.

    Args:
        cache: Folder of prepared data and of measurements of this machine.
        environment: Environment variables of the workers; by default those of this process.

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
        for slot in self._slots:
            self._start(slot)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def restart_dead_workers(self) -> None:
        """Replace each worker that died.

        Raises:
            RunFailed: A worker repeatedly dies right after its start.
        """
        for slot in self._slots:
            code = None if slot.process is None else slot.process.poll()
            if code is None or self._study.is_over:
                continue
            slot.short_lives = slot.short_lives + 1 if time.monotonic() - slot.started_at < SHORT_LIFE_S else 0
            if slot.short_lives >= MAX_SHORT_LIVES:
                raise _crash_error(slot, code)
            self._start(slot)

    def run_until_over(self) -> None:
        """Replace workers that die until the search is over.

        Raises:
            RunFailed: A worker repeatedly dies right after its start.
        """
        while not self._study.is_over:
            self.restart_dead_workers()
            time.sleep(CHECK_S)

    @property
    def live_count(self) -> int:
        """Number of workers that are alive."""
        return sum(slot.process is not None and slot.process.poll() is None for slot in self._slots)

    def stop(self) -> None:
        """Stop all workers, after they have saved their trainings."""
        with stopping.without_watchdog():  # a second signal must not interrupt the waiting, which ends by itself
            processes = [slot.process for slot in self._slots if slot.process is not None]
            for process in processes:
                process.send_signal(signal.SIGTERM)
            end = time.monotonic() + STOP_S
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
                process.send_signal(signal.SIGKILL)
                process.wait()

    def _start(self, slot: _WorkerSlot) -> None:
        command = [*COMMAND, str(self._study.folder), str(self._cache)]
        slot.process = start_process(command, {**self._environment, **slot.share.variables}, slot.share.cores, slot.log)
        slot.started_at = time.monotonic()


def _crash_error(slot: _WorkerSlot, code: int) -> RunFailed:
    lines = "".join(f"\n    {line}" for line in read_last_lines(slot.log))
    if lines:
        details = f"The last lines of {format_path(slot.log)}:{lines}"
    else:  # a full disk also prevents a log
        details = f"Its log is empty; {free_bytes(slot.log) or 0:,} bytes are free at {format_path(slot.log)}."
    return RunFailed(
        f"a worker {describe_exit(code)} {MAX_SHORT_LIVES} times in a row right after its start. {details}"
    )
