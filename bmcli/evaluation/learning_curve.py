"""Learning curves: errors against the number of training rows, and the conclusion for data and model size."""

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
from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.records import validate_as

UNDERFIT, OVERFIT = 0.75, 0.5
"""Ratio of training to validation error from which a model underfits, and up to which it overfits."""

_MAX_EARLIER_SHARE = 0.5  # the largest share of the rows up to this is compared with all rows


@dataclass(frozen=True)
class CurvePoint:
    """The training on a share of the rows: a metric on its training rows and on the validation rows.

    Args:
        share: Of all training rows.
        rows: Number of training rows.
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
        metric: A mean over rows, such as the accuracy.
        points: From few rows to all.
        gain_from_more_rows: All rows against the largest share up to a half, on the same validation rows; None if no
            share is that small.
        gain_per_doubling: Change of the validation metric with each doubling, by the slope of the last three points.
    """

    target: str
    metric: str
    points: tuple[CurvePoint, ...]
    gain_from_more_rows: Difference | None
    gain_per_doubling: float

    @property
    def error_ratio(self) -> float:
        """Error on training rows divided by the error on validation rows; 1 where there is no error."""
        last = self.points[-1]
        train, validation = (1 - v if self.metric.endswith("accuracy") else v for v in (last.train, last.validation))
        return train / validation if validation else 1.0

    @property
    def fit(self) -> str:
        """`under`, `over`, or `between`."""
        return "under" if self.error_ratio >= UNDERFIT else "over" if self.error_ratio <= OVERFIT else "between"

    @property
    def more_data_helps(self) -> bool:
        """Whether all rows give a significantly better model than the earlier share."""
        return self.gain_from_more_rows is not None and self.gain_from_more_rows.better == "second"

    @property
    def summary(self) -> str:
        """The conclusion as sentences."""
        return f"{self.target}: {self._describe_data()} {self._describe_model()}"

    def _describe_data(self) -> str:
        if self.gain_from_more_rows is None:
            return "There are too few training rows to measure the effect of more data."
        step = f"from {self._find_earlier().rows:,} to {self.points[-1].rows:,} rows"
        change = f"{self.metric} changed by {self.gain_from_more_rows.difference:+.4f} {step}"
        if (interval := self.gain_from_more_rows.interval) is not None:
            change += f" ({interval.percent} interval {interval.low:+.4f} to {interval.high:+.4f})"
        if self.more_data_helps:
            doubling = f"a further doubling would change it by about {self.gain_per_doubling:+.4f}"
            return f"More data would help: {change}; {doubling}."
        return f"No evidence that more data would help: {change}."

    def _find_earlier(self) -> CurvePoint:
        return [point for point in self.points if point.share <= _MAX_EARLIER_SHARE][-1]

    def _describe_model(self) -> str:
        last = self.points[-1]
        both = f"{self.metric} {last.train:.4f} on training rows and {last.validation:.4f} on validation rows"
        if self.fit == "under":
            return f"The model underfits: {both}; a larger model or longer training may help."
        if self.fit == "over":
            return f"The model overfits: {both}; more data or regularisation may help, a larger model alone will not."
        return f"The model neither underfits nor overfits clearly: {both}; a larger model may help slightly."

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "points": [point.to_json() for point in self.points],
            "gain_from_more_rows": self.gain_from_more_rows and self.gain_from_more_rows.to_json(),
            "error_ratio": self.error_ratio,
            "fit": self.fit,
            "more_data_helps": self.more_data_helps,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LearningCurve:
        return validate_as(cls, values)


@dataclass(frozen=True)
class RowScores:
    """Contribution of each row to the metric of one training, `(rows,)`; bool for a share of rows."""

    share: float
    train: np.ndarray
    validation: np.ndarray


def compute_learning_curve(
    target: str, metric: str, info: MetricInfo, trainings: Sequence[RowScores], resampling: Resampling
) -> LearningCurve:
    """Compute the learning curve of trainings on growing shares of the same rows, the last of them on all.

    Args:
        info: Of the metric.
        resampling: Of the validation rows.
    """
    points = tuple(_make_point(metric, each, resampling) for each in trainings)
    earlier = [each for each in trainings if each.share <= _MAX_EARLIER_SHARE]
    gain = None
    if earlier:
        pair = (each.validation for each in (earlier[-1], trainings[-1]))
        gain = compute_differences(
            *(resample_metrics(_make_weighted_metric(metric, each, info), len(each), resampling) for each in pair)
        ).get(metric)
    return LearningCurve(target, metric, points, gain, _compute_slope(points))


def _make_point(metric: str, each: RowScores, resampling: Resampling) -> CurvePoint:
    ungrouped = Resampling(resampling.resamples, resampling.level, resampling.seed)
    intervals = [
        compute_intervals(resample_metrics(_make_weighted_metric(metric, values), len(values), settings))[0].get(metric)
        for values, settings in ((each.train, ungrouped), (each.validation, resampling))
    ]
    return CurvePoint(
        each.share, len(each.train), float(each.train.mean()), intervals[0], float(each.validation.mean()), intervals[1]
    )


def _make_weighted_metric(metric: str, values: np.ndarray, info: MetricInfo = UNKNOWN) -> WeightedMetrics:
    shares = {metric: values} if values.dtype == bool else {}
    return WeightedMetrics(make_weighted_means({metric: values}), shares, info={metric: info})


def _compute_slope(points: Sequence[CurvePoint]) -> float:
    """Compute the change of the validation metric per doubling of the rows; below 0 for an error that decreases."""
    last = points[-3:]
    if len(last) < 2:
        return 0.0
    return float(np.polyfit(np.log2([point.rows for point in last]), [point.validation for point in last], 1)[0])
