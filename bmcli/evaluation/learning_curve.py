"""How a model's errors fall with the rows it was trained on, and what that says about what would lower them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.intervals import (
    Difference,
    Interval,
    Resampling,
    compute_differences,
    compute_intervals,
    resample_metrics,
)
from bmcli.evaluation.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.records import validate_as

UNDERFIT, OVERFIT = 0.75, 0.5
"""Errors on training rows as a share of those on others, from which on and up to which a model fits too little or
too much."""

_MAX_EARLIER_SHARE = 0.5  # of the rows at most, which all of them are compared with


@dataclass(frozen=True)
class CurvePoint:
    """One training: a metric on the rows it learned from and on those it did not.

    Args:
        share: Of the training rows.
        rows: How many these are.
    """

    share: float
    rows: int
    train: float
    train_interval: Interval | None
    validation: float
    validation_interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        between = {name: getattr(self, name) for name in ("train_interval", "validation_interval")}
        return {**vars(self), **{name: each and each.to_json() for name, each in between.items()}}


@dataclass(frozen=True)
class LearningCurve:
    """The learning curve of one target.

    Args:
        metric: A mean of rows, as the accuracy.
        points: From few rows to all.
        more: Of all rows against the largest share up to a half, on the same validation rows.
        doubling: What the validation metric gains with each doubling, by the slope of the last three points.
    """

    target: str
    metric: str
    points: tuple[CurvePoint, ...]
    more: Difference | None
    doubling: float

    @property
    def error_ratio(self) -> float:
        """The error on training rows as a share of that on validation rows; 1 where there is no error."""
        last = self.points[-1]
        train, validation = (1 - v if self.metric.endswith("accuracy") else v for v in (last.train, last.validation))
        return train / validation if validation else 1.0

    @property
    def fit(self) -> str:
        """`under`, `over`, or `between`."""
        return "under" if self.error_ratio >= UNDERFIT else "over" if self.error_ratio <= OVERFIT else "between"

    @property
    def more_data_helps(self) -> bool:
        """Whether the last rows that were added have improved the model beyond chance."""
        return self.more is not None and self.more.better == "second"

    @property
    def summary(self) -> str:
        """What would help, as sentences."""
        return f"{self.target}: {self._describe_data()} {self._describe_model()}"

    def _describe_data(self) -> str:
        if self.more is None:
            return "Training rows are too few for a share to compare with, so what more of them bring is open."
        step = f"from {self._find_earlier().rows:,} to {self.points[-1].rows:,} rows"
        change = f"{self.metric} changed by {self.more.difference:+.4f} {step}"
        if (found := self.more.interval) is not None:
            change += f" ({found.percent} interval {found.low:+.4f} to {found.high:+.4f})"
        if self.more_data_helps:
            return f"More data would help: {change}; another doubling would bring about {self.doubling:+.4f}."
        return f"More data is not shown to help: {change}."

    def _find_earlier(self) -> CurvePoint:
        return [point for point in self.points if point.share <= _MAX_EARLIER_SHARE][-1]

    def _describe_model(self) -> str:
        last = self.points[-1]
        both = f"{self.metric} {last.train:.4f} on training rows and {last.validation:.4f} on validation rows"
        if self.fit == "under":
            return f"It underfits: {both}; a larger model, or longer training, may help."
        if self.fit == "over":
            return f"It overfits: {both}; a larger model alone will not help, but more data or regularisation may."
        return f"It neither under- nor overfits clearly: {both}; a larger model may help a little."

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "points": [point.to_json() for point in self.points],
            "more": self.more and self.more.to_json(),
            "fitted": self.error_ratio,
            "fit": self.fit,
            "more_data_helps": self.more_data_helps,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LearningCurve:
        return validate_as(cls, values)


@dataclass(frozen=True)
class RowScores:
    """What each row of a training adds to the metric, `(rows,)`; bool for a share."""

    share: float
    train: np.ndarray
    validation: np.ndarray


def compute_learning_curve(
    target: str, metric: str, trainings: Sequence[RowScores], resampling: Resampling
) -> LearningCurve:
    """The learning curve of trainings on growing shares of the same rows, the last of them on all.

    Args:
        resampling: Draws validation rows.
    """
    points = tuple(_make_point(metric, each, resampling) for each in trainings)
    earlier = [each for each in trainings if each.share <= _MAX_EARLIER_SHARE]
    more = None
    if earlier:
        pair = (each.validation for each in (earlier[-1], trainings[-1]))
        more = compute_differences(
            *(resample_metrics(_make_weighted_metric(metric, each), len(each), resampling) for each in pair)
        ).get(metric)
    return LearningCurve(target, metric, points, more, _slope(points))


def _make_point(metric: str, each: RowScores, resampling: Resampling) -> CurvePoint:
    plain = Resampling(resampling.resamples, resampling.level, resampling.seed)
    between = [
        compute_intervals(resample_metrics(_make_weighted_metric(metric, values), len(values), way))[0].get(metric)
        for values, way in ((each.train, plain), (each.validation, resampling))
    ]
    return CurvePoint(
        each.share, len(each.train), float(each.train.mean()), between[0], float(each.validation.mean()), between[1]
    )


def _make_weighted_metric(metric: str, values: np.ndarray) -> WeightedMetrics:
    return WeightedMetrics(make_weighted_means({metric: values}), {metric: values} if values.dtype == bool else {})


def _slope(points: Sequence[CurvePoint]) -> float:
    """Gain of the validation metric with a doubling of the rows; a gain of an error is its fall, and below 0."""
    last = points[-3:]
    if len(last) < 2:
        return 0.0
    return float(np.polyfit(np.log2([point.rows for point in last]), [point.validation for point in last], 1)[0])
