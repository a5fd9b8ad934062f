"""A search for better values of a recipe: what its parts hand to each other, to the report and to the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bmcli.records import validate_as

if TYPE_CHECKING:
    from bmcli.recipe.search import SearchParameter

CandidateValues = Mapping[str, Any]
"""A candidate: values by their dotted paths in the recipe, as `{"model.dropout": 0.2}`."""

Json = dict[str, Any]
TrialState = Literal["done", "stopped", "failed", "refused"]
"""How a trial ended: trained as far as it should; stopped as hopeless; failed while running; refused by the recipe."""


@dataclass(frozen=True)
class Task:
    """One training that a worker is to do.

    Args:
        name: Of the trial, as `0007`; of a run that confirms one, as `confirm-2-seed-5`.
        values: What is laid over the study's recipe, seeds included.
        until: Epochs to be trained in all, those of `continues` included; None for all that the recipe asks for.
        continues: The trial whose state is taken up: its weights, its optimizer, its place in the order of examples.
        bounds: For each epoch, from the first, the score that the best so far must not exceed, or None. Scores are
            better the lower they are.
        keeps_model: Write the selected weights as a model, so that they can be measured and used.
        limit_s: Most time that it may take, in seconds, or None.
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
        """What `to_json` gave; raises Damaged."""
        return validate_as(Task, value)


@dataclass(frozen=True)
class TrialResult:
    """What became of a task.

    Args:
        name: The task's.
        objectives: The measured value of each objective, by name; empty if nothing could be measured.
        curve: The first objective as a score, better the lower it is, after each epoch from the first; None where it
            was not finite.
        metrics: All metrics of the selected epoch, as `validation/accuracy`.
        epochs: Trained in all.
        seconds: From the worker's taking it to its end, those before it was taken up again left out.
        reason: Why it stopped, failed or was refused, in a sentence.
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
        """What `to_json` gave; raises Damaged."""
        return validate_as(TrialResult, value)


@dataclass(frozen=True)
class SearchObjective:
    """What is searched for.

    Args:
        name: A metric of validation rows, as `validation/accuracy`; or `parameters`, `size` (bytes of the weights)
            or `latency` (seconds to predict one example).
    """

    name: str
    direction: Literal["min", "max"]

    def score(self, value: float) -> float:
        """The value turned so that lower is better."""
        return value if self.direction == "min" else -value


@dataclass(frozen=True)
class Trial:
    """A task of the search with its result, which is None while it runs."""

    task: Task
    result: TrialResult | None

    @property
    def state(self) -> TrialState | Literal["running"]:
        return "running" if self.result is None else self.result.state

    @property
    def objectives(self) -> Mapping[str, float]:
        return {} if self.result is None else self.result.objectives

    def measured(self, objective: SearchObjective) -> float | None:
        """The value of an objective, None if it is not there or not finite."""
        value = self.objectives.get(objective.name)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class ConfirmedCandidate:
    """A candidate that was trained again with other seeds.

    Args:
        trial: Name of the trial that it comes from.
        searched: What the search measured of the first objective.
        values: What the new runs measured of it, one for each seed.
    """

    trial: str
    searched: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None if there is but one."""
        if len(self.values) < 2:
            return None
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def shrinkage(self, objective: SearchObjective) -> float:
        """How much worse the mean is than what the search had measured; below 0 if it is better."""
        return objective.score(self.mean) - objective.score(self.searched)


@dataclass(frozen=True)
class SearchResult:
    """A search as far as it has come, or at its end.

    Args:
        name: Of the recipe.
        algorithm: Its `kind`.
        objectives: The first decides; others are weighed against it.
        parameters: What is searched, by path.
        trials: In the order in which they were asked for; those that run have no result.
        confirmed: Candidates that were trained again with other seeds; empty if the recipe does not ask for it.
        winner: Name of the trial whose values are the best.
        run: Where the winner's run is, as a user would write it.
        test: What the evaluation found of the winner's run, by metric: of the test split, if the recipe says no other.
        seconds: From the start to now, by the clock.
        ended_by: Each limit that was reached, in a sentence.
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
    ended_by: tuple[str, ...] = ()

    @property
    def first(self) -> SearchObjective:
        return self.objectives[0]

    def has_trial(self, name: str) -> bool:
        return any(trial.task.name == name for trial in self.trials)

    def trial(self, name: str) -> Trial:
        return next(trial for trial in self.trials if trial.task.name == name)

    def best(self) -> Trial | None:
        """The trial with the best first objective of those that were trained as far as they should be."""
        done = [trial for trial in self.trials if trial.state == "done" and trial.measured(self.first) is not None]
        return min(done, key=lambda trial: self.first.score(trial.objectives[self.first.name]), default=None)

    def candidates(self) -> list[Trial]:
        """The finished trials, each candidate once: of trials that continue each other the last that was measured."""
        finished = [trial for trial in self.trials if trial.result is not None]
        measured = {trial.task.name for trial in finished if trial.measured(self.first) is not None}
        continued = {trial.task.continues for trial in finished if trial.task.name in measured}
        in_vain = {trial.task.name for trial in finished if trial.task.continues in measured} - measured
        return [trial for trial in finished if trial.task.name not in continued | in_vain]

    def front(self, objectives: Sequence[SearchObjective]) -> list[Trial]:
        """The Pareto front: trials that no other beats or equals in every objective, those best in the last first."""
        measured = [
            (tuple(o.score(trial.objectives[o.name]) for o in reversed(objectives)), trial)
            for trial in self.candidates()
            if trial.state == "done" and all(trial.measured(o) is not None for o in objectives)
        ]
        measured.sort(key=lambda pair: pair[0])
        front: list[tuple[tuple[float, ...], Trial]] = []
        for scores, trial in measured:  # what beats it stands before it
            if not any(all(a <= b for a, b in zip(other, scores, strict=True)) for other, _ in front):
                front.append((scores, trial))
        return [trial for _, trial in front]

    def short_names(self) -> dict[str, str]:
        """For each parameter as few of its last words as tell it from the others: `learning_rate`, `optimizer.kind`."""
        words = {path: path.split(".") for path in self.parameters}
        return {path: ".".join(own[-_count_distinct_words(own, words.values()) :]) for path, own in words.items()}

    def count(self) -> Counter[TrialState]:
        """How many trials ended how."""
        return Counter(trial.result.state for trial in self.trials if trial.result is not None)


def _count_distinct_words(own: list[str], every: Iterable[list[str]]) -> int:
    """How many of a path's last words no other path has; never a lone `kind` or number, which says nothing."""
    others = [other for other in every if other != own]
    fewest = 2 if own[-1] == "kind" or own[-1].isdecimal() else 1
    return next(
        (n for n in range(fewest, len(own)) if all(other[-n:] != own[-n:] for other in others)),
        len(own),
    )
