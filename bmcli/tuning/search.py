"""The chief of a search: it requests candidates, offers tasks, collects results and chooses the winner."""

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
from bmcli.recipe.space import is_candidate, read_written_values
from bmcli.trials import (
    RECIPE_TRIAL,
    CandidateValues,
    ConfirmedCandidate,
    SearchObjective,
    SearchResult,
    Task,
    Trial,
    TrialResult,
)
from bmcli.tuning.journal import (
    CandidateRequested,
    ConfirmationStarted,
    Journal,
    JournalEvent,
    RecipeOffered,
    SearchStarted,
    TaskEnded,
)
from bmcli.tuning.oracle import Oracle, Suggestion
from bmcli.tuning.pool import CHECK_S
from bmcli.tuning.study import Study

POLL_S = 0.02

MIN_TRIALS = 5  # trials that must have reached an epoch before their median stops others there
GRACE_SHARE = 0.2  # share of the epochs in which no trial is stopped, since good ones often start slowly
MAX_REFUSALS = 100  # candidates in a row that the recipe refuses, after which the search ends


class SearchCallback(Protocol):
    """Takes the progress of a search."""

    def on_trial_start(self, task: Task) -> None: ...

    def on_epoch_end(self, name: str, epoch: int) -> None: ...

    def on_trial_end(self, trial: Trial, search: SearchResult) -> None: ...

    def on_confirmation_start(self, runs: int) -> None: ...

    def on_note(self, text: str) -> None: ...


@dataclass(frozen=True)
class SearchWinner:
    """The best candidate of a search.

    Args:
        trial: Its trial.
        task: Its confirmation task with the best value of the first objective, whose run is published.
        recipe_task: The same of the recipe as it is written; None if that could not be trained.
    """

    trial: Trial
    task: Task
    recipe_task: Task | None


class Search:
    """One search, new or resumed from its journal.

    Args:
        loaded: The recipe with its `tune` section.
        check_workers: Replaces workers that died; called regularly.

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
        assert loaded.recipe.tune is not None, "the recipe has a search"
        self._study, self._loaded, self._check_workers = study, loaded, check_workers
        self._recipe: Recipe = loaded.recipe
        self._options: TuneOptions = loaded.recipe.tune
        self._objectives = objectives
        self._journal = Journal(study.journal, study.id)
        self._written_values = read_written_values(loaded)
        self._oracle = Oracle(
            self._options.algorithm,
            self._options.space,
            self._recipe.seed,
            self._recipe.train.epochs,
            tried=self._written_values if is_candidate(self._written_values, self._options.space) else None,
        )
        self._tasks: dict[str, Task] = {}
        self._results: dict[str, TrialResult] = {}  # in the order of their arrival
        self._confirmation_tasks: dict[str, list[Task]] = {}  # by the trial whose candidate they train again
        self._is_exhausted = self._is_waiting = False
        self._stop_reasons: list[str] = []
        self._winner: SearchWinner | None = None
        self._seconds_before = 0.0
        self._checked_at = self._started_at = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)  # only if replaying fails
            self._replay()
            stack.pop_all()

    def close(self) -> None:
        """Remove the files of the oracle."""
        self._oracle.close()

    def summarize(self) -> SearchResult:
        """Summarize the search so far."""
        trials = tuple(Trial(task, self._results.get(name)) for name, task in self._tasks.items())
        return SearchResult(
            name=self._recipe.name,
            algorithm=self._options.algorithm.kind,
            objectives=self._objectives,
            parameters=self._options.space,
            trials=trials,
            confirmed=tuple(self._list_confirmed()) if self._options.confirm else (),
            winner=self._winner.trial.task.name if self._winner else None,
            seconds=self._measure_seconds(),
            stop_reasons=tuple(self._stop_reasons),
        )

    def run(self, callback: SearchCallback) -> SearchWinner:
        """Run all trials, train the best candidates again, and choose the winner.

        Raises:
            RunFailed: No trial could be measured.
        """
        self._journal.add(SearchStarted())
        if not self._tasks:
            self._record(RecipeOffered(self._make_recipe_task()))
        announced: set[str] = set()
        for task in self._list_unfinished(self._tasks.values()):
            self._offer(task)
        while self._has_work():
            self._collect_results(self._tasks.values(), callback, announced)
            self._request_tasks()
        self._confirm(callback)
        return self._choose_winner()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        confirmation = [task for trial in self._list_to_confirm() for task in self._build_confirmation_tasks(trial)]
        return not self._has_work() and not self._list_unfinished(confirmation)

    def _has_work(self) -> bool:
        return bool(self._list_unfinished(self._tasks.values())) or not self._is_finished()

    def _is_finished(self) -> bool:
        """Whether no further trial may start; also updates the stop reasons."""
        reasons = [
            (self._is_exhausted, "Nothing is left to try in this space."),
            (self._count_trials() >= (self._options.max_trials or math.inf), ""),
            (self._count_trailing("failed") >= self._options.stop.failures, self._describe_failures()),
            (
                self._count_trailing("refused") >= MAX_REFUSALS,
                f"The recipe refused {MAX_REFUSALS} candidates in a row.",
            ),
            (self._measure_seconds() >= (self._options.stop.time or math.inf), "The time limit was reached."),
        ]
        reached_reasons = [reason for reached, reason in reasons if reached]
        self._stop_reasons = [reason for reason in reached_reasons if reason]
        return bool(reached_reasons)

    def _count_trials(self) -> int:
        """Count the trials, without refused candidates, which cost nothing."""
        return sum(name not in self._results or self._results[name].state != "refused" for name in self._tasks)

    def _count_trailing(self, state: str) -> int:
        """Count the last results in a row with a state; refused candidates interrupt no row of other states."""
        states = [result.state for name, result in self._results.items() if name in self._tasks]
        counted = [other for other in reversed(states) if state == "refused" or other != "refused"]
        return next((number for number, other in enumerate(counted) if other != state), len(counted))

    def _describe_failures(self) -> str:
        reasons = ["", *(result.reason for result in self._results.values() if result.state == "failed")]
        return f"{self._options.stop.failures} trials in a row failed, the last one: {reasons[-1]}"

    def suggest_changes(self) -> list[str]:
        """Suggest overrides of the recipe with which an ended search continues; empty if none can."""
        if self._is_exhausted or self._count_trailing("refused") >= MAX_REFUSALS:
            return []
        stop, trials = self._options.stop, self._count_trials()
        changes = {
            f"tune.trials={2 * trials}": trials >= (self._options.max_trials or math.inf),
            f"tune.stop.failures={2 * self._count_trailing('failed')}": self._count_trailing("failed") >= stop.failures,
            f"tune.stop.time={2 * math.ceil(self._measure_seconds())}s": self._measure_seconds()
            >= (stop.time or math.inf),
        }
        return [change for change, reached in changes.items() if reached]

    def _request_tasks(self) -> None:
        """Offer one task for each worker."""
        worker_count = max(self._options.workers, len(self._study.list_live_workers()))
        while (
            not self._is_waiting
            and not self._is_finished()
            and len(self._list_unfinished(self._tasks.values())) < worker_count
        ):
            self._request_task()

    def _request_task(self) -> None:
        answer = self._oracle.suggest()
        if not isinstance(answer, Suggestion):
            self._record(CandidateRequested(answer))
            return
        task = self._make_task(answer)
        self._record(CandidateRequested(task))
        refusal = self._find_refusal(task.values)
        if refusal:
            self._record(TaskEnded(TrialResult(task.name, "refused", reason=refusal)))
        else:
            self._offer(task)

    def _make_recipe_task(self) -> Task:
        """Make the task that trains the recipe as it is written, for as long as the longest trials."""
        is_hyperband = self._options.algorithm.kind == "hyperband"
        return Task(
            name=RECIPE_TRIAL,
            values=self._written_values,
            until=self._recipe.train.epochs if is_hyperband else None,
            limit_s=self._options.stop.trial_time,
        )

    def _make_task(self, candidate: Suggestion) -> Task:
        names = [name for name in self._tasks if name != RECIPE_TRIAL]
        return Task(
            name=f"{len(self._tasks):04d}",
            values=candidate.values,
            until=candidate.until,
            continues=None if candidate.continues is None else names[candidate.continues],
            bounds=self._compute_bounds(),
            limit_s=self._options.stop.trial_time,
        )

    def _find_refusal(self, values: CandidateValues) -> str:
        """Return the reason why the recipe refuses values; empty if it accepts them."""
        try:
            self._loaded.with_values(values)
        except BmcliError as error:
            return " ".join(f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in error.faults)
        return ""

    def _compute_bounds(self) -> tuple[float | None, ...]:
        """Compute the score that a new trial must reach by each epoch; None without a bound.

        It is the median of the running means of the other trials' scores up to the epoch: the median stopping rule of
        Golovin et al. 2017, section 3.2.1.
        """
        if not self._options.uses_median_pruning:
            return ()
        curves = [result.curve for name, result in self._results.items() if name in self._tasks]
        means = [list(_running_means(curve)) for curve in curves]
        bounds: list[float | None] = []
        for epoch in range(max(map(len, means), default=0)):
            reached = [mean[epoch] for mean in means if len(mean) > epoch]
            is_early = epoch < GRACE_SHARE * self._recipe.train.epochs
            bounds.append(None if is_early or len(reached) < MIN_TRIALS else statistics.median(reached))
        return tuple(bounds)

    def _offer(self, task: Task) -> None:
        # A result may have come while no chief was running; it is collected later.
        if self._study.read_result(task.name) is None:
            self._study.put_task(task)

    def _list_unfinished(self, tasks: Iterable[Task]) -> list[Task]:
        return [task for task in tasks if task.name not in self._results]

    def _collect_results(self, tasks: Collection[Task], callback: SearchCallback, announced: set[str]) -> None:
        """Collect new results; wait a moment if there are none."""
        has_results = False
        for task in self._list_unfinished(tasks):
            result = self._study.read_result(task.name)
            if result is None:
                self._report_progress(task, callback, announced)
                continue
            has_results = True
            self._record(TaskEnded(result))
            callback.on_trial_end(Trial(task, result), self.summarize())
        if has_results or not self._list_unfinished(tasks):
            return
        time.sleep(POLL_S)
        if time.monotonic() - self._checked_at > CHECK_S:
            self._checked_at = time.monotonic()
            self._check_workers()
            for name in self._study.release_dead_claims():
                callback.on_note(f"{name}: its worker was lost; another worker resumes it.")

    def _report_progress(self, task: Task, callback: SearchCallback, announced: set[str]) -> None:
        """Report the start of a task that a worker has claimed, once, and then its epochs."""
        if task.name not in announced and self._study.is_claimed(task.name):
            announced.add(task.name)
            callback.on_trial_start(task)
        elif task.name in announced and time.monotonic() - self._checked_at > CHECK_S:
            callback.on_epoch_end(task.name, len(self._study.run(task.name).read_epochs()))

    def _confirm(self, callback: SearchCallback) -> None:
        """Train the best candidates and the recipe again with the same seeds; without `confirm`, the best as it was."""
        trials = self._list_to_confirm()
        if not trials:
            reasons = [result.reason for result in self._results.values() if result.reason]
            raise RunFailed(
                "no trial could be measured, so there is no winner.",
                suggestion=f"The last one: {reasons[-1]}" if reasons else "",
            )
        for trial in trials:
            for task in self._build_confirmation_tasks(trial):
                if task not in self._confirmation_tasks.get(trial.task.name, ()):
                    self._record(ConfirmationStarted(trial.task.name, task))
        tasks = list(chain.from_iterable(self._confirmation_tasks.values()))
        waiting = self._list_unfinished(tasks)
        if waiting and self._options.confirm:
            callback.on_confirmation_start(len(waiting))
        for task in waiting:
            self._offer(task)
        announced: set[str] = set()
        while self._list_unfinished(tasks):
            self._collect_results(tasks, callback, announced)

    def _list_to_confirm(self) -> list[Trial]:
        """List the trials to train again: the best ones, and the recipe as it is written, if it could be trained."""
        best = self._rank_best()
        recipe = [trial for trial in self._list_measured() if trial.is_recipe and trial not in best]
        return [*best, *recipe]

    def _list_measured(self) -> list[Trial]:
        """List the candidates whose training was completed and measured."""
        first = self._objectives[0]
        trials = self.summarize().candidates()
        return [trial for trial in trials if trial.state == "done" and trial.measured(first) is not None]

    def _rank_best(self) -> list[Trial]:
        """Rank the candidates by score, each once, and return those to confirm; the longest trained ones come first."""
        first, trials = self._objectives[0], self._list_measured()
        furthest = max((trial.task.until or math.inf for trial in trials), default=math.inf)
        # Scores after fewer epochs, such as those of Hyperband's first rounds, do not compare with full trainings.
        ranked = sorted(
            trials,
            key=lambda trial: (
                (trial.task.until or math.inf) < furthest,
                first.score(trial.objectives[first.name]),
            ),
        )
        return ranked[: 1 if self._options.confirm is None else self._options.confirm.top]

    def _build_confirmation_tasks(self, trial: Trial) -> list[Task]:
        """Build the tasks that train a candidate again: with the seeds after that of the recipe, or once as it was."""
        name, values = f"confirm-{trial.task.name}", trial.task.values
        confirm, limit_s = self._options.confirm, self._options.stop.trial_time
        if confirm is None:
            return [Task(name, values, keeps_model=True, limit_s=limit_s)]
        first = self._recipe.seed + 1
        # A new seed of the training must not also change the splits: the values would not be comparable.
        return [
            Task(
                f"{name}-seed-{seed}",
                {**values, "seed": seed, "data.seed": self._recipe.data_seed},
                keeps_model=True,
                limit_s=limit_s,
            )
            for seed in range(first, first + confirm.seeds)
        ]

    def _list_confirmed(self) -> list[ConfirmedCandidate]:
        """List the candidates whose confirmation runs are all measured."""
        first, confirmed = self._objectives[0].name, []
        for name, tasks in self._confirmation_tasks.items():
            results = [self._results.get(task.name) for task in tasks]
            values = [result.objectives.get(first) for result in results if result is not None]
            measured = [value for value in values if value is not None and math.isfinite(value)]
            if len(measured) == len(results):
                confirmed.append(ConfirmedCandidate(name, self._results[name].objectives[first], tuple(measured)))
        return confirmed

    def _choose_winner(self) -> SearchWinner:
        """Choose the candidate with the best mean over its seeds, and its best run.

        Of equal means that of the recipe as it is written wins.
        """
        first = self._objectives[0]
        confirmed = self._list_confirmed()
        if not confirmed:
            reasons = [self._results[task.name].reason for tasks in self._confirmation_tasks.values() for task in tasks]
            raise RunFailed(
                "none of the best trials could be trained again.", suggestion=f"The last one: {reasons[-1]}"
            )
        best = min(confirmed, key=lambda each: (first.score(each.mean), each.trial != RECIPE_TRIAL)).trial
        is_recipe_confirmed = any(each.trial == RECIPE_TRIAL for each in confirmed)
        recipe_task = self._find_best_run(RECIPE_TRIAL) if is_recipe_confirmed else None
        self._winner = SearchWinner(
            Trial(self._tasks[best], self._results[best]), self._find_best_run(best), recipe_task
        )
        return self._winner

    def _find_best_run(self, trial: str) -> Task:
        """Find the confirmation task of a trial with the best first objective."""
        first = self._objectives[0]
        return min(
            self._confirmation_tasks[trial],
            key=lambda task: first.score(self._results[task.name].objectives[first.name]),
        )

    def _measure_seconds(self) -> float:
        """Measure the time of the search, summed over all processes that resumed it."""
        return self._seconds_before + time.monotonic() - self._started_at

    def _record(self, event: JournalEvent) -> None:
        """Write an event to the journal, then act on it."""
        self._journal.add(event)
        self._apply(event)

    def _apply(self, event: JournalEvent) -> None:
        match event:
            case CandidateRequested("over"):
                self._is_exhausted = True
            case CandidateRequested("wait"):
                self._is_waiting, self._is_exhausted = True, not self._list_unfinished(self._tasks.values())
            case CandidateRequested(Task() as task) | RecipeOffered(task):
                self._tasks[task.name] = task
            case ConfirmationStarted(trial, task):
                self._confirmation_tasks.setdefault(trial, []).append(task)
            case TaskEnded(result):
                self._results[result.name] = result
                self._is_waiting = False
                if result.name == RECIPE_TRIAL:
                    self._oracle.report_tried_score(self._compute_score(result))
                elif result.name in self._tasks:
                    names = [name for name in self._tasks if name != RECIPE_TRIAL]
                    self._oracle.report_score(names.index(result.name), self._compute_score(result))

    def _compute_score(self, result: TrialResult) -> float | None:
        first = self._objectives[0]
        value = result.objectives.get(first.name)
        return None if value is None or result.state not in ("done", "stopped") else first.score(value)

    def _replay(self) -> None:
        """Repeat the events of the journal, so that the oracle is in the same state as at their end."""
        events = self._journal.read_events()
        for _, event in events:
            if isinstance(event, CandidateRequested):
                self._verify_answer(event)
            if isinstance(event, RecipeOffered):
                self._require_same(replace(self._make_recipe_task(), limit_s=event.task.limit_s) == event.task)
            self._apply(event)
        self._require_whole_journal()
        self._seconds_before = _sum_active_seconds(events)

    def _require_whole_journal(self) -> None:
        """Refuse a journal that lacks an offered task; tasks are written to it before they are offered."""
        known = set(self._tasks) | {task.name for task in chain.from_iterable(self._confirmation_tasks.values())}
        if missing := sorted(self._study.list_offered_tasks() - known):
            raise BmcliError(
                f"{format_path(self._study.journal)}: damaged (task {missing[0]} is missing).",
                suggestion="Start a new search.",
            )

    def _verify_answer(self, event: CandidateRequested) -> None:
        """Refuse to resume if the oracle now suggests something else than the journal has."""
        answer, recorded = self._oracle.suggest(), event.answer
        is_same = answer == recorded
        if isinstance(answer, Suggestion) and isinstance(recorded, Task):
            # Neither of them comes from the oracle, and `tune.stop` may change when a search is resumed.
            task = replace(self._make_task(answer), bounds=recorded.bounds, limit_s=recorded.limit_s)
            is_same = task == recorded
        self._require_same(is_same)

    def _require_same(self, is_same: bool) -> None:
        """Refuse to resume a search whose trials would be other ones now."""
        if not is_same:
            raise BmcliError(
                f"{self._study.display_path} cannot be resumed, because other candidates would be chosen now. Updated "
                "packages can be the reason.",
                suggestion="Start a new search.",
            )


def _running_means(curve: Iterable[float | None]) -> Iterable[float]:
    total = 0.0
    for count, score in enumerate(curve, start=1):
        total += math.inf if score is None else score
        yield total / count


def _sum_active_seconds(events: list[tuple[float, JournalEvent]]) -> float:
    """Sum the time of each process from its start to its last event."""
    return sum(
        later - earlier for (earlier, _), (later, event) in pairwise(events) if not isinstance(event, SearchStarted)
    )


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the paths with different values at the start and now, such as `model.units: 64, now 32`."""
    differences = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += [f"{key}.{difference}" for difference in find_differences(old, new)]
        elif old != new:
            differences.append(f"{key}: {old!r}, now {new!r}")
    return differences
