"""Values of a hyperparameter search: tasks, results and objectives, for search, workers, report and terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from bmcli.records import validate_as

if TYPE_CHECKING:
    from bmcli.recipe.search import SearchParameter

CandidateValues = Mapping[str, Any]
"""A candidate: values by their dotted paths in the recipe, such as `{"model.dropout": 0.2}`."""

Json = dict[str, Any]
TrialState = Literal["done", "stopped", "diverged", "failed", "refused"]
"""End of a trial: `done` with its training, `stopped` by pruning, `diverged` to a number that is not finite, `failed`
by an error while running, `refused` by the recipe."""
TRIAL_STATES: tuple[TrialState, ...] = get_args(TrialState)


RECIPE_TRIAL = "0000"
"""Name of the first trial of every search, which trains the recipe as it is written."""


@dataclass(frozen=True)
class Task:
    """One training for a worker.

    Args:
        name: Name of the trial, such as `0007`, or of a run that confirms one, such as `confirm-2-seed-5`.
        values: Overrides of the study's recipe, including seeds.
        until: Total number of epochs, including those of `continues`; None for `train.epochs`.
        continues: Trial whose state is resumed: weights, optimizer, and position in the order of examples.
        bounds: For each epoch the score that the best score so far must not exceed, or None; lower scores are better.
        keeps_model: Write the selected weights as a model, which can be measured and used.
        limit_s: Maximum time in seconds, or None.
    """

    name: str
    values: CandidateValues
    until: int | None = None
    continues: str | None = None
    bounds: tuple[float | None, ...] = ()
    keeps_model: bool = False
    limit_s: float | None = None

    def to_json(self) -> Json:
        return asdict(self)

    @staticmethod
    def from_json(value: Json) -> Task:
        """Validate the value of `to_json`; raises `DamagedFile`."""
        return validate_as(Task, value)


@dataclass(frozen=True)
class TrialResult:
    """Result of a task.

    Args:
        name: Name of the task.
        objectives: Measured value of each objective, by name; empty if nothing could be measured.
        curve: Score of the first objective after each epoch, None where it was not finite; lower scores are better.
        metrics: All metrics of the selected epoch, such as `validation/accuracy`.
        epochs: Total number of trained epochs.
        seconds: Duration in the worker, without the time before the task was resumed.
        reason: Why it stopped, diverged, failed or was refused, as a sentence.
    """

    name: str
    state: TrialState
    objectives: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[float | None, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""

    def to_json(self) -> Json:
        return asdict(self)

    @staticmethod
    def from_json(value: Json) -> TrialResult:
        """Validate the value of `to_json`; raises `DamagedFile`."""
        return validate_as(TrialResult, value)


@dataclass(frozen=True)
class SearchObjective:
    """Objective of a search.

    Args:
        name: A metric of validation rows, such as `validation/accuracy`; or `parameters`, `size` (bytes of the
            weights) or `latency` (seconds to predict one example).
    """

    name: str
    direction: Literal["min", "max"]

    def score(self, value: float) -> float:
        """Convert a value to a score; lower scores are better."""
        return value if self.direction == "min" else -value


@dataclass(frozen=True)
class Trial:
    """A task of the search with its result, which is None while it runs."""

    task: Task
    result: TrialResult | None

    @property
    def is_recipe(self) -> bool:
        """Whether it trains the recipe as it is written."""
        return self.task.name == RECIPE_TRIAL

    @property
    def state(self) -> TrialState | Literal["running"]:
        return "running" if self.result is None else self.result.state

    @property
    def objectives(self) -> Mapping[str, float]:
        return {} if self.result is None else self.result.objectives

    def measured(self, objective: SearchObjective) -> float | None:
        """The value of an objective; None if it is missing or not finite."""
        value = self.objectives.get(objective.name)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class ConfirmedCandidate:
    """A candidate that was trained again with other seeds.

    Args:
        trial: Name of its trial.
        searched: Value of the first objective in the search.
        values: Values of the first objective in the new runs, one for each seed.
    """

    trial: str
    searched: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None with one seed."""
        if len(self.values) < 2:
            return None
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def shrinkage(self, objective: SearchObjective) -> float:
        """Difference of the mean to the value in the search; positive if the mean is worse."""
        return objective.score(self.mean) - objective.score(self.searched)


@dataclass(frozen=True)
class SearchResult:
    """Results of a search, at its end or so far.

    Args:
        name: Name of the recipe.
        algorithm: `kind` of the algorithm.
        objectives: The first one selects the best trial; the others form a Pareto front with it.
        parameters: Search space by path.
        trials: Trials in the order of the algorithm; running ones have no result.
        confirmed: Candidates that were trained again with other seeds; empty without `confirm`.
        winner: Name of the trial with the best values.
        run: Path of the winner's run.
        test: Metrics of the winner's run on the split of `evaluate.split`, by default the test split.
        seconds: Time since the start.
        stop_reasons: The limits that ended the search, each as a sentence.
        verdict: What the winner gains over the recipe as it is written, in sentences; empty before the end.
    """

    name: str
    algorithm: str
    objectives: tuple[SearchObjective, ...]
    parameters: Mapping[str, SearchParameter]
    trials: tuple[Trial, ...]
    confirmed: tuple[ConfirmedCandidate, ...] = ()
    winner: str | None = None
    run: str | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stop_reasons: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()

    @property
    def first(self) -> SearchObjective:
        return self.objectives[0]

    def has_trial(self, name: str) -> bool:
        return any(trial.task.name == name for trial in self.trials)

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.trials if trial.task.name == name)

    def best(self) -> Trial | None:
        """The completed trial with the best first objective."""
        done = [trial for trial in self.trials if trial.state == "done" and trial.measured(self.first) is not None]
        return min(done, key=lambda trial: self.first.score(trial.objectives[self.first.name]), default=None)

    def candidates(self) -> list[Trial]:
        """List the finished trials, each candidate once: of trials that continue each other, the last measured one."""
        finished = [trial for trial in self.trials if trial.result is not None]
        measured = {trial.task.name for trial in finished if trial.measured(self.first) is not None}
        continued = {trial.task.continues for trial in finished if trial.task.name in measured}
        unmeasured = {trial.task.name for trial in finished if trial.task.continues in measured} - measured
        return [trial for trial in finished if trial.task.name not in continued | unmeasured]

    def front(self, objectives: Sequence[SearchObjective]) -> list[Trial]:
        """Compute the Pareto front: trials that no other trial equals or beats in every objective.

        It is sorted by the last objective, best first.
        """
        measured = [
            (tuple(o.score(trial.objectives[o.name]) for o in reversed(objectives)), trial)
            for trial in self.candidates()
            if trial.state == "done" and all(trial.measured(o) is not None for o in objectives)
        ]
        measured.sort(key=lambda pair: pair[0])
        front: list[tuple[tuple[float, ...], Trial]] = []
        for scores, trial in measured:  # sorted, so that a dominating trial comes before those it dominates
            if not any(all(a <= b for a, b in zip(other, scores, strict=True)) for other, _ in front):
                front.append((scores, trial))
        return [trial for _, trial in front]

    def short_names(self) -> dict[str, str]:
        """The shortest unique suffix of each parameter's path: `learning_rate`, `optimizer.kind`."""
        words = {path: path.split(".") for path in self.parameters}
        return {path: ".".join(own[-_count_distinct_words(own, words.values()) :]) for path, own in words.items()}

    def count(self) -> Counter[TrialState]:
        """Count the finished trials by state."""
        return Counter(trial.result.state for trial in self.trials if trial.result is not None)


def _count_distinct_words(words: list[str], paths: Iterable[list[str]]) -> int:
    """Length of the shortest suffix that no other path has; `kind` or a number alone is not enough."""
    others = [other for other in paths if other != words]
    fewest = 2 if words[-1] == "kind" or words[-1].isdecimal() else 1
    return next(
        (n for n in range(fewest, len(words)) if all(other[-n:] != words[-n:] for other in others)),
        len(words),
    )
