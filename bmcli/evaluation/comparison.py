"""Comparison of several models on the same rows: metrics, cost, and a recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bmcli.evaluation.intervals import Difference
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.info import Direction
from bmcli.metrics.proportions import Interval
from bmcli.number_texts import write_number

COSTS = {"parameters": "parameters", "latency_s": "seconds to predict one row", "size": "bytes of the saved model",
         "train_s": "seconds of training"}  # fmt: skip
"""Costs of a model, by field of `Contender`."""


@dataclass(frozen=True)
class Contender:
    """One of the compared runs.

    Args:
        name: Unique among the contenders.
        epochs: Records of `metrics.jsonl`.
        train_s: Seconds of training; None if the run has no record of it.
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

    def cost(self, name: str) -> float | None:
        """Get one of COSTS."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    Args:
        split: The split that all contenders were evaluated on.
        rows: Number of rows of the split; those of the first contender if they differ.
        metric: The deciding metric.
        direction: Whether more or less of it is better.
        recipes: Where the recipes differ: values of each run by path.
        data: Where the data differ: values of each run by property.
        unpaired_reason: Why the predictions cannot be compared row by row; empty if they can.
        against_first: For each contender but the first, the difference of each metric from the first.
        against_best: For each contender but the best, the difference of the deciding metric from the best.
        same_predictions: For each contender that predicts the same as an earlier one, the name of the first such one.
        positive: The positive class of each target that has one, the same for all contenders.
    """

    split: str
    rows: int
    metric: str
    direction: Direction
    contenders: tuple[Contender, ...]
    recipes: Mapping[str, tuple[str, ...]]
    data: Mapping[str, tuple[str, ...]]
    unpaired_reason: str
    against_first: Mapping[str, Mapping[str, Difference]]
    against_best: Mapping[str, Difference]
    same_predictions: Mapping[str, str] = field(default_factory=dict)
    positive: Mapping[str, str] = field(default_factory=dict)

    @property
    def _sign(self) -> int:
        """Sign with which less of the metric is better."""
        return -1 if self.direction == "max" else 1

    @property
    def distinct(self) -> tuple[Contender, ...]:
        """The contenders without those that predict the same as an earlier one."""
        return tuple(each for each in self.contenders if each.name not in self.same_predictions)

    @property
    def best(self) -> Contender:
        """The contender with the best metric, the cheaper one in a tie."""
        best = min(self._sign * each.metrics[self.metric] for each in self.distinct)
        tied = [each for each in self.distinct if not subtract_metrics(self._sign * each.metrics[self.metric], best)]
        return min(tied, key=lambda each: each.parameters)

    def is_not_worse(self, each: Contender) -> bool:
        """Whether a contender is not significantly worse than the best."""
        return each is self.best or self.against_best[each.name].better != "first"

    @property
    def recommended(self) -> Contender | None:
        """The contender with the fewest parameters of those that are not significantly worse than the best.

        Of several as small, the one with the best metric. None where differences cannot be tested, or there is none.
        """
        if self.unpaired_reason or len(self.distinct) == 1:
            return None
        return min(
            filter(self.is_not_worse, self.distinct),
            key=lambda each: (each.parameters, self._sign * each.metrics[self.metric]),
        )

    def pareto_front(self, cost: str) -> tuple[Contender, ...]:
        """Find the contenders to which no cheaper one is equal or better, the cheapest first."""
        priced = [(each.cost(cost), self._sign * each.metrics[self.metric], each) for each in self.contenders]
        ordered = sorted(((c, q, e) for c, q, e in priced if c is not None), key=lambda item: item[:2])
        front: list[Contender] = []
        best_quality = float("inf")
        for _, quality, each in ordered:
            if subtract_metrics(quality, best_quality) < 0:
                front.append(each)
                best_quality = quality
        return tuple(front)

    @property
    def recommendation(self) -> str:
        """The recommended model with the reason, as sentences."""
        if self.unpaired_reason:
            reason = f"The difference cannot be tested: {self.unpaired_reason}"
            return f"{self.best.name} has the best {self.metric}. {reason}"
        if self.recommended is None:
            names = [each.name for each in self.contenders]
            return f"No recommendation: {', '.join(names[:-1])} and {names[-1]} make the same predictions."
        same = [f"{name} makes the same predictions as {first}." for name, first in self.same_predictions.items()]
        return " ".join([self._recommend(self.best, self.recommended), *same])

    def _recommend(self, best: Contender, chosen: Contender) -> str:
        if chosen is best:
            others = [each for each in self.distinct if each is not best]
            tied = [each.name for each in others if self.is_not_worse(each)]
            names = ", ".join(tied)
            also = f" No significant difference from {names}, which {_get_verb(tied)} not smaller." if tied else ""
            return f"Recommended: {best.name}. It has the best {self.metric}{self._next_smaller()}.{also}"
        difference = self.against_best[chosen.name]
        share = chosen.parameters / best.parameters
        recommendation = f"Recommended: {chosen.name}, with {100 * share:.1f} % of the parameters of {best.name}."
        if difference.interval is None:
            return (
                f"{recommendation} {best.name} has the best {self.metric}; the difference has no interval: "
                f"{difference.reason}"
            )
        low, high = difference.interval.low, difference.interval.high
        loss = max(0.0, -low if self.direction == "max" else high)
        return (
            f"{recommendation} {best.name} has the best {self.metric}, but the difference is not significant; "
            f"{chosen.name} may be worse by up to {write_number(loss)} ({difference.interval.percent} interval)."
        )

    def _next_smaller(self) -> str:
        """The difference to the best of the smaller models, as part of a sentence."""
        best = self.best
        smaller = [each for each in self.distinct if each.parameters < best.parameters]
        if not smaller:
            return ", and no model is smaller"
        closest = min(smaller, key=lambda each: self._sign * each.metrics[self.metric])
        difference = self.against_best[closest.name]
        size = f"{100 * closest.parameters / best.parameters:.1f} % of its parameters"
        interval = difference.interval
        if interval is None:
            return ", and every smaller model is worse"
        bounds = sorted((abs(interval.low), abs(interval.high)))
        gap = write_number(abs(difference.difference))
        return (
            f", and every smaller model is worse: {closest.name}, with {size}, by {gap} "
            f"({interval.percent} interval {write_number(bounds[0])} to {write_number(bounds[1])})"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "rows": self.rows,
            "metric": self.metric,
            "direction": self.direction,
            **({"positive": dict(self.positive)} if self.positive else {}),
            "runs": [
                {
                    "name": each.name, "run": each.run, "metrics": dict(each.metrics),
                    "intervals": {name: interval.to_json() for name, interval in each.intervals.items()},
                    **{cost: each.cost(cost) for cost in COSTS},
                }
                for each in self.contenders
            ],
            "recipes": {path: list(values) for path, values in self.recipes.items()},
            "data": {name: list(values) for name, values in self.data.items()},
            "unpaired_reason": self.unpaired_reason,
            "differences": {
                name: {metric: each.to_json() for metric, each in differences.items()}
                for name, differences in self.against_first.items()
            },
            "best": self.best.name,
            "recommended": self.recommended and self.recommended.name,
            "same_predictions": dict(self.same_predictions),
            "pareto_fronts": {cost: [each.name for each in self.pareto_front(cost)] for cost in COSTS},
            "recommendation": self.recommendation,
        }  # fmt: skip


def _get_verb(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
