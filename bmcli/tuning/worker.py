"""A worker of a search: `python -m bmcli.tuning.worker STUDY CACHE`.

It imports TensorFlow once but does not start it, so that it has no threads and can fork. A child runs a few trials, and
is replaced after a failure. Everything that trials leave in their process is gone with the child: memory does not grow
over a search, and a crash fails one trial alone.
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
SAVE_S = 20.0  # for a child to save its state after SIGTERM; one call of many steps may take seconds
TRIALS_PER_CHILD = 8  # the first trial of a child takes 0.2 s more than the others; each leaves some memory behind
RETRY_S = 1.0  # before a released task is claimed again


def main(arguments: list[str]) -> None:
    study, cache = Study(Path(arguments[0])), Path(arguments[1])
    import_training(list_recipes(study), cache)
    TrialWorker(
        study,
        lambda task: train_trial(study, task, cache),
        lambda: compilation_cache.remove_unsealed(compilation_cache.cache_folder(cache)),
    ).work()


def list_recipes(study: Study) -> list[Recipe]:
    """List the recipe of a study with each network of the search space, except those that need other values, too.

    TensorFlow's environment variables depend on the network, and must be set before its import.
    """
    loaded = study.load_base()
    recipes = [loaded.recipe]
    space, _ = read_space(study.read_start_record()["recipe"]["tune"]["space"])
    for path, parameter in space.items():
        for value in parameter.values if split_path(path)[0] == "model" else ():
            conditions = {other: values[0] for other, values in collect_conditions(path, space).items()}
            with contextlib.suppress(BmcliError):
                recipes.append(loaded.with_values({**conditions, path: value}).recipe)
    return recipes


def train_trial(study: Study, task: Task, cache: Path) -> int:
    """Run a trial and put its result; returns the exit code of the process."""
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
    """Claims tasks and runs them in children until the search is over, a signal comes, or the parent ends.

    Args:
        run_task: Runs a task in a child, puts its result, and returns its exit code.
        clean_up: Removes files that a killed child may have left behind.
    """

    def __init__(
        self, study: Study, run_task: Callable[[Task], int], clean_up: Callable[[], object] = lambda: None
    ) -> None:
        self._study, self._run_task, self._clean_up = study, run_task, clean_up
        self._parent = os.getppid()
        self._name = ""
        self._child: ForkedProcess | None = None
        self._signals = 0
        self._leave_at = math.inf  # time at which a child that is still saving is killed
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
        """Let the child save its state; a second signal kills it."""
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
        """Claim and complete a task; false if there is none."""
        for name in self._study.list_open_tasks():
            if self._study.claim(name):
                self._complete_task(name)
                return True
        return False

    def _complete_task(self, name: str) -> None:
        """Run a claimed task until it has a result, or release it."""
        start = time.monotonic()
        try:
            task = self._study.read_task(name)
        except BmcliError as error:
            self._study.put_result(TrialResult(name, "failed", reason=str(error)))
            return
        write_message(f"{name}: {json.dumps(task.values)}")
        reason = self._supervise(task)
        if self._study.has_result(name):
            return
        self._clean_up()
        if reason is not None:
            epochs, seconds = len(self._study.run(name).read_epochs()), round(time.monotonic() - start, 3)
            self._study.put_result(TrialResult(name, "failed", epochs=epochs, seconds=seconds, reason=reason))
            return
        self._study.release(name)
        if not self._signals:
            time.sleep(RETRY_S)

    def _supervise(self, task: Task) -> str | None:
        """Run a task in a child; return why it failed, or None if the task shall be released."""
        limit_s = math.inf if task.limit_s is None else task.limit_s
        end = time.monotonic() + limit_s
        with defer_signals():
            child = self._child = self._child or ForkedProcess(lambda name: self._run_task(self._study.read_task(name)))
            child.submit(task.name)
        reason, is_mine = None, True
        while not child.wait(min(HEARTBEAT_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                reason = f"it took longer than the limit of {limit_s:g} s."
            else:
                is_mine = self._may_continue(task.name)
            if reason or not is_mine:
                child.send(signal.SIGKILL)
                break
        code = child.wait_for_code()
        if code or not child.is_alive or child.submitted_count >= TRIALS_PER_CHILD:
            self._close_child()
        if not is_mine or self._signals or code == Interrupted.exit_code:
            return None
        return reason or f"its process {describe_exit(code)}."

    def _close_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _may_continue(self, name: str) -> bool:
        """Send a heartbeat; false if the task was released to another worker, or if this worker must leave."""
        is_mine = self._study.send_heartbeat(self._name, name)
        return is_mine and os.getppid() == self._parent and time.monotonic() < self._leave_at


if __name__ == "__main__":
    main(sys.argv[1:])
