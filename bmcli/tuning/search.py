"""The chief of a search: asks the oracle, offers tasks, gathers results, and chooses the winner."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, Protocol

from bmcli.disk import format_path
from bmcli.errors import BmcliError, RunFailed
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.schema import Recipe
from bmcli.recipe.search import TuneOptions
from bmcli.trials import CandidateValues, ConfirmedCandidate, SearchObjective, SearchResult, Task, Trial, TrialResult
from bmcli.tuning.journal import (
    CandidateRequested,
    ConfirmationStarted,
    Journal,
    JournalEvent,
    SearchStarted,
    TaskEnded,
)
from bmcli.tuning.oracle import Oracle, Suggestion
from bmcli.tuning.pool import CHECK_S
from bmcli.tuning.study import Study

POLL_S = 0.02

MIN_TRIALS = 5  # trials that must have come to an epoch before their median stops others there
GRACE_SHARE = 0.2  # share of the epochs in which no trial is stopped: the best often begin slowly
MAX_REFUSALS = 100  # candidates in a row that the recipe refuses, after which there is little hope of others


class SearchCallback(Protocol):
    """What wants to know how a search goes on."""

    def on_trial_start(self, task: Task) -> None: ...

    def epoch(self, name: str, epoch: int) -> None: ...

    def on_trial_end(self, trial: Trial, searched: SearchResult) -> None: ...

    def on_confirmation_start(self, runs: int) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class SearchWinner:
    """The candidate that a search has chosen.

    Args:
        trial: Its trial.
        task: The confirming task whose run has the best value of the first objective.
    """

    trial: Trial
    task: Task


class Search:
    """One search, from its first trial or from where its journal ends.

    Args:
        loaded: The recipe with its `tune` section.
        check_workers: Looks after the workers; called now and then.

    Raises:
        BmcliError: The journal is damaged, or does not belong to this space and algorithm.
    """

    def __init__(
        self,
        study: Study,
        loaded: LoadedRecipe,
        objectives: tuple[SearchObjective, ...],
        check_workers: Callable[[], None],
    ) -> None:
        assert loaded.recipe.tune is not None, "the recipe says what is searched"
        self._study, self._loaded, self._check_workers = study, loaded, check_workers
        self._recipe: Recipe = loaded.recipe
        self._options: TuneOptions = loaded.recipe.tune
        self._objectives = objectives
        self._journal = Journal(study.journal, study.id)
        self._oracle = Oracle(
            self._options.algorithm, self._options.space, self._recipe.seed, self._recipe.train.epochs
        )
        self._tasks: dict[str, Task] = {}
        self._results: dict[str, TrialResult] = {}  # in the order in which they came
        self._confirmation_tasks: dict[str, list[Task]] = {}  # by the trial whose candidate they train again
        self._is_exhausted = self._is_waiting = False
        self._ended_by: list[str] = []
        self._winner: SearchWinner | None = None
        self._seconds_before = 0.0
        self._checked_at = self._began_at = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._replay()
            stack.pop_all()

    def close(self) -> None:
        """Removes what the oracle keeps in files."""
        self._oracle.close()

    def searched(self) -> SearchResult:
        """The search as far as it has come."""
        trials = tuple(Trial(task, self._results.get(name)) for name, task in self._tasks.items())
        return SearchResult(
            name=self._recipe.name,
            algorithm=self._options.algorithm.kind,
            objectives=self._objectives,
            parameters=self._options.space,
            trials=trials,
            confirmed=tuple(self._list_confirmed()) if self._options.confirm else (),
            winner=self._winner.trial.task.name if self._winner else None,
            seconds=self._seconds(),
            ended_by=tuple(self._ended_by),
        )

    def run(self, callback: SearchCallback) -> SearchWinner:
        """Searches, trains the best again, and chooses.

        Raises:
            RunFailed: No trial could be measured.
        """
        self._journal.add(SearchStarted())
        shown: set[str] = set()
        for task in self._unfinished(self._tasks.values()):
            self._offer(task)
        while self._has_work():
            self._collect_results(self._tasks.values(), callback, shown)
            self._request_tasks()
        self._confirm(callback)
        return self._choose_winner()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        again = [task for trial in self._rank_best() for task in self._build_confirmation_tasks(trial)]
        return not self._has_work() and not self._unfinished(again)

    def _has_work(self) -> bool:
        return bool(self._unfinished(self._tasks.values())) or not self._is_finished()

    def _is_finished(self) -> bool:
        """Whether no further trial is to begin; says why."""
        reasons = [
            (self._is_exhausted, "Nothing is left to try in this space."),
            (self._count_trials() >= (self._options.max_trials or math.inf), ""),
            (self._count_trailing("failed") >= self._options.stop.failures, self._failures()),
            (
                self._count_trailing("refused") >= MAX_REFUSALS,
                f"The recipe refused {MAX_REFUSALS} candidates in a row.",
            ),
            (self._seconds() >= (self._options.stop.time or math.inf), "The time was over."),
        ]
        found = [reason for reached, reason in reasons if reached]
        self._ended_by = [reason for reason in found if reason]
        return bool(found)

    def _count_trials(self) -> int:
        """Trials that cost something."""
        return sum(name not in self._results or self._results[name].state != "refused" for name in self._tasks)

    def _count_trailing(self, state: str) -> int:
        """How many of the last results of the search are of this state; what was refused does not count as a trial."""
        states = [result.state for name, result in self._results.items() if name in self._tasks]
        counted = [each for each in reversed(states) if state == "refused" or each != "refused"]
        return next((number for number, each in enumerate(counted) if each != state), len(counted))

    def _failures(self) -> str:
        reasons = ["", *(result.reason for result in self._results.values() if result.state == "failed")]
        return f"{self._options.stop.failures} trials in a row failed, the last one: {reasons[-1]}"

    def _request_tasks(self) -> None:
        """Offers as many tasks as there are workers."""
        places = max(self._options.workers, len(self._study.live_workers()))
        while not self._is_waiting and not self._is_finished() and len(self._unfinished(self._tasks.values())) < places:
            self._request_task()

    def _request_task(self) -> None:
        answer = self._oracle.ask()
        if not isinstance(answer, Suggestion):
            self._record(CandidateRequested(answer))
            return
        task = self._task(answer)
        self._record(CandidateRequested(task))
        refusal = self._refusal(task.values)
        if refusal:
            self._record(TaskEnded(TrialResult(task.name, "refused", reason=refusal)))
        else:
            self._offer(task)

    def _task(self, candidate: Suggestion) -> Task:
        names = list(self._tasks)
        return Task(
            name=f"{len(names):04d}",
            values=candidate.values,
            until=candidate.until,
            continues=None if candidate.continues is None else names[candidate.continues],
            bounds=self._bounds(),
            limit_s=self._options.stop.trial_time,
        )

    def _refusal(self, values: CandidateValues) -> str:
        """Why the recipe cannot have these values together, or nothing."""
        try:
            self._loaded.with_values(values)
        except BmcliError as error:
            return " ".join(f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in error.faults)
        return ""

    def _bounds(self) -> tuple[float | None, ...]:
        """For each epoch the median of the running means of the scores of others up to it, where there are enough.

        The median stopping rule of Golovin et al. 2017, section 3.2.1.
        """
        if not self._options.uses_median_pruning:
            return ()
        curves = [result.curve for name, result in self._results.items() if name in self._tasks]
        means = [list(_running_means(curve)) for curve in curves]
        bounds: list[float | None] = []
        for epoch in range(max(map(len, means), default=0)):
            there = [mean[epoch] for mean in means if len(mean) > epoch]
            early = epoch < GRACE_SHARE * self._recipe.train.epochs
            bounds.append(None if early or len(there) < MIN_TRIALS else statistics.median(there))
        return tuple(bounds)

    def _offer(self, task: Task) -> None:
        if self._study.result(task.name) is None:
            self._study.put_task(task)

    def _unfinished(self, tasks: Iterable[Task]) -> list[Task]:
        return [task for task in tasks if task.name not in self._results]

    def _collect_results(self, tasks: Collection[Task], callback: SearchCallback, shown: set[str]) -> None:
        """Takes the results that have come, and waits a moment if there are none."""
        came = False
        for task in self._unfinished(tasks):
            result = self._study.result(task.name)
            if result is None:
                self._report_progress(task, callback, shown)
                continue
            came = True
            self._record(TaskEnded(result))
            callback.on_trial_end(Trial(task, result), self.searched())
        if came or not self._unfinished(tasks):
            return
        time.sleep(POLL_S)
        if time.monotonic() - self._checked_at > CHECK_S:
            self._checked_at = time.monotonic()
            self._check_workers()
            for name in self._study.release_dead_claims():
                callback.note(f"{name}: its worker was lost; another takes it up.")

    def _report_progress(self, task: Task, callback: SearchCallback, shown: set[str]) -> None:
        """Tells of a task that a worker has taken, once, and then of its epochs."""
        if task.name not in shown and self._study.is_claimed(task.name):
            shown.add(task.name)
            callback.on_trial_start(task)
        elif task.name in shown and time.monotonic() - self._checked_at > CHECK_S:
            callback.epoch(task.name, len(self._study.run(task.name).read_epochs()))

    def _confirm(self, callback: SearchCallback) -> None:
        """Trains the best candidates again, all with the same seeds; without `confirm` the best one as it was."""
        best = self._rank_best()
        if not best:
            reasons = [result.reason for result in self._results.values() if result.reason]
            raise RunFailed(
                "no trial could be measured, so there is no winner.",
                suggestion=f"The last one: {reasons[-1]}" if reasons else "",
            )
        for trial in best:
            for task in self._build_confirmation_tasks(trial):
                if task not in self._confirmation_tasks.get(trial.task.name, ()):
                    self._record(ConfirmationStarted(trial.task.name, task))
        tasks = list(chain.from_iterable(self._confirmation_tasks.values()))
        waiting = self._unfinished(tasks)
        if waiting and self._options.confirm:
            callback.on_confirmation_start(len(waiting))
        for task in waiting:
            self._offer(task)
        shown: set[str] = set()
        while self._unfinished(tasks):
            self._collect_results(tasks, callback, shown)

    def _rank_best(self) -> list[Trial]:
        """The candidates with the best scores, each once; those that were trained as far as any come first."""
        first = self._objectives[0]
        trials = [
            trial
            for trial in self.searched().candidates()
            if trial.state == "done" and trial.measured(first) is not None
        ]
        furthest = max((trial.task.until or math.inf for trial in trials), default=math.inf)
        ranked = sorted(
            trials,
            key=lambda trial: (
                (trial.task.until or math.inf) < furthest,
                first.score(trial.objectives[first.name]),
            ),
        )
        wanted = 1 if self._options.confirm is None else self._options.confirm.top
        return ranked[:wanted]

    def _build_confirmation_tasks(self, trial: Trial) -> list[Task]:
        """What trains a candidate again: with the seeds that follow the recipe's, or once as it was."""
        name, values = f"confirm-{trial.task.name}", trial.task.values
        confirm, limit_s = self._options.confirm, self._options.stop.trial_time
        if confirm is None:
            return [Task(name, values, keeps_model=True, limit_s=limit_s)]
        own = self._recipe.seed
        seeded = {seed: {**values, "seed": seed, "data.seed": self._recipe.data_seed} for seed in
                  range(own + 1, own + 1 + confirm.seeds)}  # fmt: skip
        return [Task(f"{name}-seed-{seed}", each, keeps_model=True, limit_s=limit_s) for seed, each in seeded.items()]

    def _list_confirmed(self) -> list[ConfirmedCandidate]:
        """The candidates whose confirming runs are all over; a run that failed leaves its candidate out."""
        first, found = self._objectives[0].name, []
        for name, tasks in self._confirmation_tasks.items():
            results = [self._results.get(task.name) for task in tasks]
            values = [result.objectives.get(first) for result in results if result is not None]
            measured = [value for value in values if value is not None and math.isfinite(value)]
            if len(measured) == len(results):
                found.append(ConfirmedCandidate(name, self._results[name].objectives[first], tuple(measured)))
        return found

    def _choose_winner(self) -> SearchWinner:
        """The candidate that is best on the mean over its seeds, and its best run."""
        first = self._objectives[0]
        confirmed = self._list_confirmed()
        if not confirmed:
            failed = [self._results[task.name].reason for tasks in self._confirmation_tasks.values() for task in tasks]
            raise RunFailed("none of the best trials could be trained again.", suggestion=failed[-1])
        best = min(confirmed, key=lambda each: first.score(each.mean)).trial
        task = min(
            self._confirmation_tasks[best],
            key=lambda task: first.score(self._results[task.name].objectives[first.name]),
        )
        self._winner = SearchWinner(Trial(self._tasks[best], self._results[best]), task)
        return self._winner

    def _seconds(self) -> float:
        """Time that the search has taken, in all processes that had it in hand one after the other."""
        return self._seconds_before + time.monotonic() - self._began_at

    def _record(self, event: JournalEvent) -> None:
        """Writes down what happened, then acts on it."""
        self._journal.add(event)
        self._apply(event)

    def _apply(self, event: JournalEvent) -> None:
        match event:
            case CandidateRequested("over"):
                self._is_exhausted = True
            case CandidateRequested("wait"):
                self._is_waiting, self._is_exhausted = True, not self._unfinished(self._tasks.values())
            case CandidateRequested(Task() as task):
                self._tasks[task.name] = task
            case ConfirmationStarted(trial, task):
                self._confirmation_tasks.setdefault(trial, []).append(task)
            case TaskEnded(result):
                self._results[result.name] = result
                self._is_waiting = False
                if result.name in self._tasks:
                    self._oracle.tell(list(self._tasks).index(result.name), self._score(result))

    def _score(self, result: TrialResult) -> float | None:
        first = self._objectives[0]
        value = result.objectives.get(first.name)
        return None if value is None or result.state not in ("done", "stopped") else first.score(value)

    def _replay(self) -> None:
        """Brings the oracle to where it was when the journal ended."""
        events = self._journal.events()
        for _, event in events:
            if isinstance(event, CandidateRequested):
                self._verify_answer(event)
            self._apply(event)
        self._require_whole_journal()
        self._seconds_before = _sum_active_seconds(events)

    def _require_whole_journal(self) -> None:
        """Refuses a journal that lacks a task, each of which is written down before it is offered."""
        known = set(self._tasks) | {task.name for task in chain.from_iterable(self._confirmation_tasks.values())}
        if lost := sorted(self._study.offered() - known):
            raise BmcliError(
                f"{format_path(self._study.journal)}: damaged (it does not tell of the task {lost[0]}).",
                suggestion="Start a new search.",
            )

    def _verify_answer(self, event: CandidateRequested) -> None:
        answer = self._oracle.ask()
        told = event.answer
        same = answer == told
        if isinstance(answer, Suggestion) and isinstance(told, Task):
            again = replace(self._task(answer), bounds=told.bounds, limit_s=told.limit_s)
            same = again == told
        if not same:
            raise BmcliError(
                f"{self._study.display_path} cannot be gone on with, because other candidates would be chosen now.",
                suggestion="Were packages updated since? Start a new search.",
            )


def _running_means(curve: Iterable[float | None]) -> Iterable[float]:
    total = 0.0
    for count, score in enumerate(curve, start=1):
        total += math.inf if score is None else score
        yield total / count


def _sum_active_seconds(events: list[tuple[float, JournalEvent]]) -> float:
    """Time from each beginning of a process to the last thing it wrote down."""
    return sum(
        later - earlier for (earlier, _), (later, event) in pairwise(events) if not isinstance(event, SearchStarted)
    )


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Paths at which what a search was begun with differs from what it is to go on with: `model.units: 64, now 32`."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [f"{key}.{difference}" for difference in find_differences(one, other)]
        elif one != other:
            found.append(f"{key}: {one!r}, now {other!r}")
    return found
