"""A worker of a search: `python -m bmcli.tuning.worker STUDY CACHE`.

It imports what trials need once and executes nothing of TensorFlow, so that it has no threads and holds no state, and
forks a child for every few trials, or after one that did not end well. Whatever trials do to their process is gone with
the child: memory stays flat, and a crash is the result of one trial.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bmcli.distribution.launch import describe_exit
from bmcli.errors import BmcliError, Interrupted
from bmcli.messages import write_message
from bmcli.recipe.paths import split_path
from bmcli.recipe.schema import Recipe
from bmcli.recipe.search import collect_conditions, read_space
from bmcli.training import compilation_cache
from bmcli.trials import Task, TrialResult
from bmcli.tuning.study import HEARTBEAT_S, Study
from bmcli.tuning.trial import run_trial
from bmcli.tuning.trial_process import SIGNALS, ForkedProcess, defer_signals, import_training

POLL_S = 0.02
SAVE_S = 20.0  # for a child to save its state after SIGTERM: a call of steps may take a while
TRIALS_PER_CHILD = 8  # of a child: the first costs 0.2 s more than the others, and what they leave in memory adds up
RETRY_S = 1.0  # before a task that was given back is looked at again


def main(arguments: list[str]) -> None:
    study, cache = Study(Path(arguments[0])), Path(arguments[1])
    import_training(list_recipes(study), cache)
    TrialWorker(
        study,
        lambda task: train_trial(study, task, cache),
        lambda: compilation_cache.remove_unsealed(compilation_cache.cache_folder(cache)),
    ).work()


def list_recipes(study: Study) -> list[Recipe]:
    """The study's recipe with each network that the search can choose, those left out that need more to be changed."""
    loaded = study.loaded()
    found = [loaded.recipe]
    space, _ = read_space(study.read_start_record()["recipe"]["tune"]["space"])
    for path, parameter in space.items():
        for value in parameter.values if split_path(path)[0] == "model" else ():
            when = {other: values[0] for other, values in collect_conditions(path, space).items()}
            with contextlib.suppress(BmcliError):
                found.append(loaded.with_values({**when, path: value}).recipe)
    return found


def train_trial(study: Study, task: Task, cache: Path) -> int:
    """Trains a trial and hands in its result, in a process of its own; its exit code."""
    try:
        result = run_trial(study, task, cache)
    except Interrupted as error:
        write_message(f"{task.name}: {error}")
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines()
        result = TrialResult(
            task.name, "failed", reason=f"{type(error).__name__}: {lines[0] if lines else 'no reason'}"
        )
    study.put_result(result)
    return 0


class TrialWorker:
    """Claims tasks and has children do them, until the search is over, a signal comes, or its parent is gone.

    Args:
        run_task: Does a task in a child and hands in its result; its exit code.
        clean_up: Removes what a child may have left that did not end by itself.
    """

    def __init__(
        self, study: Study, run_task: Callable[[Task], int], clean_up: Callable[[], object] = lambda: None
    ) -> None:
        self._study, self._run_task, self._clean_up = study, run_task, clean_up
        self._parent = os.getppid()
        self._name = ""
        self._child: ForkedProcess | None = None
        self._signals = 0
        self._leave_at = math.inf
        self._heartbeat_at = -math.inf

    def work(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._name = self._study.announce_worker()
        try:
            while self._should_continue():
                self._send_heartbeat()
                if not self._run_next_task():
                    time.sleep(POLL_S)
        finally:
            self._close_child()
            self._study.leave(self._name)

    def _on_signal(self, number: int, frame: Any) -> None:
        """Has the child save its state; a second signal ends it at once."""
        self._signals += 1
        self._leave_at = min(self._leave_at, time.monotonic() + SAVE_S)
        if self._child is not None:
            self._child.send(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _send_heartbeat(self) -> None:
        if time.monotonic() - self._heartbeat_at >= HEARTBEAT_S:
            self._study.send_heartbeat(self._name)
            self._heartbeat_at = time.monotonic()

    def _should_continue(self) -> bool:
        return not self._signals and os.getppid() == self._parent and not self._study.is_over

    def _run_next_task(self) -> bool:
        """Does a task, if there is one that nobody has claimed."""
        for name in self._study.open_tasks():
            if self._study.claim(name):
                self._complete_task(name)
                return True
        return False

    def _complete_task(self, name: str) -> None:
        """Sees a claimed task to its result, or gives it back."""
        start = time.monotonic()
        try:
            task = self._study.task(name)
        except BmcliError as error:
            self._study.put_result(TrialResult(name, "failed", reason=str(error)))
            return
        write_message(f"{name}: {json.dumps(task.values)}")
        reason = self._supervise(task)
        if self._study.has_result(name):
            return
        self._clean_up()
        if reason is not None:
            epochs, seconds = len(self._study.run(name).rows()), round(time.monotonic() - start, 3)
            self._study.put_result(TrialResult(name, "failed", epochs=epochs, seconds=seconds, reason=reason))
            return
        self._study.release(name)
        if not self._signals:
            time.sleep(RETRY_S)

    def _supervise(self, task: Task) -> str | None:
        """Has a child do a task; why that failed, or None if the task is to be taken up again."""
        limit_s = math.inf if task.limit_s is None else task.limit_s
        end = time.monotonic() + limit_s
        with defer_signals():
            child = self._child = self._child or ForkedProcess(lambda name: self._run_task(self._study.task(name)))
            child.submit(task.name)
        reason, mine = None, True
        while not child.wait(min(HEARTBEAT_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                reason = f"it took longer than the limit of {limit_s:g} s."
            else:
                mine = self._may_continue(task.name)
            if reason or not mine:
                child.send(signal.SIGKILL)
                break
        code = child.wait_for_code()
        if code or not child.is_alive or child.submitted_count >= TRIALS_PER_CHILD:
            self._close_child()
        if not mine or self._signals or code == Interrupted.exit_code:
            return None
        return reason or f"its process {describe_exit(code)}."

    def _close_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _may_continue(self, name: str) -> bool:
        """Shows that this worker is alive; whether its task is still its own, and there is somebody to do it for."""
        mine = self._study.send_heartbeat(self._name, name)
        return mine and os.getppid() == self._parent and time.monotonic() < self._leave_at


if __name__ == "__main__":
    main(sys.argv[1:])
