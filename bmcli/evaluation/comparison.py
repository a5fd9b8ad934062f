"""Several models on the same rows: what each reaches, what it costs, and which is worth its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bmcli.evaluation.directions import get_direction
from bmcli.evaluation.intervals import Difference
from bmcli.evaluation.proportions import Interval

COSTS = {"parameters": "parameters", "latency_s": "seconds to predict one row", "size": "bytes of the saved model",
         "train_s": "seconds of training"}  # fmt: skip
"""What a model costs, by field of `Contender`."""


@dataclass(frozen=True)
class Contender:
    """A run that is compared.

    Args:
        name: Told from the others.
        epochs: The rows of `metrics.jsonl`.
        train_s: Seconds of training; None if the run does not tell.
        latency_s: Median seconds to predict one row, measured one model after the other.
        size: Bytes of the saved model.
    """

    name: str
    run: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    parameters: int
    size: int
    latency_s: float
    train_s: float | None
    epochs: Sequence[Mapping[str, Any]]

    def cost(self, of: str) -> float | None:
        """One of COSTS."""
        found: float | None = getattr(self, of)
        return found


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        on: The split.
        rows: How many, if all contenders saw the same ones; otherwise those of the first.
        metric: What decides.
        recipes: Where the recipes differ: values of each run by path.
        data: The same of the data.
        unpaired: Why rows cannot be compared one by one; empty if they can.
        against_first: Of each contender but the first, every metric's difference from the first.
        against_best: Of each contender but the best, the difference of the metric that decides from the best.
    """

    split: str
    rows: int
    metric: str
    contenders: tuple[Contender, ...]
    recipes: Mapping[str, tuple[str, ...]]
    data: Mapping[str, tuple[str, ...]]
    unpaired_reason: str
    against_first: Mapping[str, Mapping[str, Difference]]
    against_best: Mapping[str, Difference]

    @property
    def best(self) -> Contender:
        """The contender with the best metric, the cheaper one in a tie."""
        sign = -1 if get_direction(self.metric) == "max" else 1
        return min(self.contenders, key=lambda each: (sign * each.metrics[self.metric], each.parameters))

    def is_not_worse(self, each: Contender) -> bool:
        """Whether a contender is not significantly worse than the best."""
        return each is self.best or self.against_best[each.name].better != "first"

    @property
    def recommended(self) -> Contender:
        """The contender with the fewest parameters of those that are not significantly worse than the best."""
        if self.unpaired_reason:
            return self.best
        return min(filter(self.is_not_worse, self.contenders), key=lambda each: (each.parameters, each.latency_s))

    def pareto_front(self, cost: str) -> tuple[Contender, ...]:
        """The contenders that no other beats in the metric without costing more, the cheapest first."""
        sign = -1 if get_direction(self.metric) == "max" else 1
        priced = [(each.cost(cost), sign * each.metrics[self.metric], each) for each in self.contenders]
        ordered = sorted(((c, q, e) for c, q, e in priced if c is not None), key=lambda item: item[:2])
        found: list[Contender] = []
        least = float("inf")
        for _, quality, each in ordered:
            if quality < least:
                found.append(each)
                least = quality
        return tuple(found)

    @property
    def recommendation(self) -> str:
        """The recommended model, and why, in words."""
        best, enough = self.best, self.recommended
        if self.unpaired_reason:
            return f"{best.name} has the best {self.metric}, but {self.unpaired_reason} So the difference cannot be tested."
        if enough is best:
            others = [each for each in self.contenders if each is not best]
            ties = [each.name for each in others if self.is_not_worse(each)]
            names = ", ".join(ties)
            also = f" No significant difference from {names}, which {_is(ties)} not smaller." if ties else ""
            return f"Recommended: {best.name}. It has the best {self.metric}{self._next_smaller()}.{also}"
        difference = self.against_best[enough.name]
        share = enough.parameters / best.parameters
        advice = f"Recommended: {enough.name}, with {100 * share:.1f} % of the parameters of {best.name}."
        if difference.interval is None:
            return (
                f"{advice} {best.name} has the best {self.metric}; the difference has no interval: {difference.reason}"
            )
        low, high = difference.interval.low, difference.interval.high
        loss = max(0.0, -low if get_direction(self.metric) == "max" else high)
        return (
            f"{advice} {best.name} has the best {self.metric}, but the difference is not significant; {enough.name} "
            f"may be worse by up to {loss:.3g} ({difference.interval.percent} interval)."
        )

    def _next_smaller(self) -> str:
        """By how much the best of the smaller models is worse, as a part of a sentence; empty if none is smaller."""
        best = self.best
        smaller = [each for each in self.contenders if each.parameters < best.parameters]
        if not smaller:
            return ", and no model is smaller"
        sign = -1 if get_direction(self.metric) == "max" else 1
        near = min(smaller, key=lambda each: sign * each.metrics[self.metric])
        lacks, told = self.against_best[near.name], f"{100 * near.parameters / best.parameters:.1f} % of its parameters"
        between = lacks.interval
        if between is None:
            return ", and every smaller model is worse"
        ends = sorted((abs(between.low), abs(between.high)))
        return (
            f", and every smaller model is worse: {near.name}, with {told}, by {abs(lacks.difference):.3g} "
            f"({between.percent} interval {ends[0]:.3g} to {ends[1]:.3g})"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "rows": self.rows,
            "metric": self.metric,
            "runs": [
                {
                    "name": each.name, "run": each.run, "metrics": dict(each.metrics),
                    "intervals": {name: interval.to_json() for name, interval in each.intervals.items()},
                    **{cost: each.cost(cost) for cost in COSTS},
                }
                for each in self.contenders
            ],
            "recipes": {path: list(values) for path, values in self.recipes.items()},
            "data": {what: list(values) for what, values in self.data.items()},
            "unpaired_reason": self.unpaired_reason,
            "differences": {
                name: {metric: each.to_json() for metric, each in found.items()}
                for name, found in self.against_first.items()
            },
            "best": self.best.name,
            "recommended": self.recommended.name,
            "pareto_fronts": {cost: [each.name for each in self.pareto_front(cost)] for cost in COSTS},
            "recommendation": self.recommendation,
        }  # fmt: skip


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
