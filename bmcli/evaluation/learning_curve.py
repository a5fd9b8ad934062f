"""Learning curves: errors against the number of training rows, and the conclusion for data and model size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation import power_law
from bmcli.evaluation.intervals import (
    Difference,
    Interval,
    ResampledMetrics,
    Resampling,
    compute_differences,
    compute_intervals,
    resample_metrics,
)
from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.number_texts import write_signed
from bmcli.records import validate_as

UNDERFIT, OVERFIT = 0.75, 0.5
"""Ratio of training to validation error from which a model underfits, and up to which it overfits."""

_MAX_EARLIER_SHARE = 0.5  # the largest share of the rows up to this is compared with all rows
_MORE_ROWS = 2  # a forecast is for this multiple of all rows: further away, the form of the law decides
_MAX_SCATTER = 0.5  # of the points around a power law, as a multiple of the error with all rows
_MAX_WIDTH = 0.5  # of the interval of a forecast, as a share of the error with all rows


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
class Forecast:
    """A metric on validation rows with more training rows than there are.

    Args:
        rows: Number of training rows.
        value: Between the metric with all rows and its best value; None with a `reason`.
        interval: Of the value, on these validation rows.
        reason: Why there is no value, as a clause; empty if there is one.
    """

    rows: int
    value: float | None = None
    interval: Interval | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "interval": self.interval and self.interval.to_json()}


@dataclass(frozen=True)
class LearningCurve:
    """The learning curve of one target.

    Args:
        metric: A mean over rows, such as the accuracy.
        best: Its best value, from which errors are counted; None if it has none.
        points: From few rows to all.
        gain_from_more_rows: All rows against the largest share up to a half, on the same validation rows; None if no
            share is that small.
        forecast: With twice as many rows.
    """

    target: str
    metric: str
    best: float | None
    points: tuple[CurvePoint, ...]
    gain_from_more_rows: Difference | None
    forecast: Forecast

    @property
    def error_ratio(self) -> float | None:
        """Error on training rows divided by the error on validation rows; 1 where there is no error.

        None for a metric without a best value.
        """
        if self.best is None:
            return None
        last = self.points[-1]
        train, validation = abs(last.train - self.best), abs(last.validation - self.best)
        return train / validation if validation else 1.0

    @property
    def fit(self) -> str:
        """`under`, `over` or `between`; `unknown` for a metric without a best value."""
        if self.error_ratio is None:
            return "unknown"
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
        change = f"{self.metric} changed by {write_signed(self.gain_from_more_rows.difference)} {step}"
        if (interval := self.gain_from_more_rows.interval) is not None:
            change += f" ({interval.percent} interval {write_signed(interval.low)} to {write_signed(interval.high)})"
        if self.more_data_helps:
            return f"More data would help: {change}. {self._describe_forecast()}"
        return f"No evidence that more data would help: {change}. {self._describe_forecast()}"

    def _describe_forecast(self) -> str:
        forecast = self.forecast
        if forecast.value is None or forecast.interval is None:
            return f"There is no forecast for {forecast.rows:,} rows: {forecast.reason}."
        interval = forecast.interval
        return (
            f"With {forecast.rows:,} rows it would be about {forecast.value:.4f} ({interval.percent} interval "
            f"{interval.low:.4f} to {interval.high:.4f})."
        )

    def _find_earlier(self) -> CurvePoint:
        return [point for point in self.points if point.share <= _MAX_EARLIER_SHARE][-1]

    def _describe_model(self) -> str:
        last = self.points[-1]
        both = f"{self.metric} {last.train:.4f} on training rows and {last.validation:.4f} on validation rows"
        if self.fit == "unknown":
            return f"Whether the model underfits or overfits cannot be seen from {both}."
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
            "forecast": self.forecast.to_json(),
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
    resampled = [
        resample_metrics(_make_weighted_metric(metric, each.validation, info), len(each.validation), resampling)
        for each in trainings
    ]
    points = tuple(
        _make_point(metric, each, on_validation) for each, on_validation in zip(trainings, resampled, strict=True)
    )
    earlier = [index for index, each in enumerate(trainings) if each.share <= _MAX_EARLIER_SHARE]
    gain = compute_differences(resampled[earlier[-1]], resampled[-1]).get(metric) if earlier else None
    forecast = _make_forecast(metric, info, points, resampled)
    return LearningCurve(target, metric, info.best, points, gain, forecast)


def _make_point(metric: str, each: RowScores, on_validation: ResampledMetrics) -> CurvePoint:
    resampling = on_validation.resampling
    ungrouped = Resampling(resampling.resamples, resampling.level, resampling.seed)
    on_train = resample_metrics(_make_weighted_metric(metric, each.train), len(each.train), ungrouped)
    train, validation = (compute_intervals(resampled)[0].get(metric) for resampled in (on_train, on_validation))
    return CurvePoint(
        each.share, len(each.train), float(each.train.mean()), train, float(each.validation.mean()), validation
    )


def _make_weighted_metric(metric: str, values: np.ndarray, info: MetricInfo = UNKNOWN) -> WeightedMetrics:
    shares = {metric: values} if values.dtype == bool else {}
    return WeightedMetrics(make_weighted_means({metric: values}), shares, info={metric: info})


def _make_forecast(
    metric: str, info: MetricInfo, points: Sequence[CurvePoint], resampled: Sequence[ResampledMetrics]
) -> Forecast:
    """Forecast the metric with twice as many rows, by a power law of its errors, or give the reason for none."""
    last, resampling = points[-1], resampled[-1].resampling
    rows, best = _MORE_ROWS * last.rows, info.best
    if best is None:
        return Forecast(rows, reason=f"{metric} has no best value from which errors could be counted")
    errors = np.abs(np.array([point.validation for point in points]) - best)
    if len(points) < power_law.MIN_POINTS:
        return Forecast(rows, reason=f"it needs trainings on at least {power_law.MIN_POINTS} shares of the rows")
    if not errors[-1]:
        return Forecast(rows, reason="no error is left on the validation rows")
    samples = np.stack([each.distributions[metric].samples for each in resampled], axis=1)
    reduction = power_law.estimate_reduction(
        np.array([point.rows for point in points]), errors, np.abs(samples - best), _MORE_ROWS, resampling.seed
    )
    if reduction.scatter > _MAX_SCATTER:
        return Forecast(rows, reason="the points do not follow a power law")
    tails = ((1 - resampling.level) / 2, (1 + resampling.level) / 2)
    least, most = np.quantile(reduction.draws, tails).tolist()
    least, most = min(least, reduction.value), max(most, reduction.value)
    if most - least > _MAX_WIDTH:
        share = f"from {100 * least:.0f} to {100 * most:.0f} % of the error"
        return Forecast(rows, reason=f"they could remove anything {share}, too wide a range")

    def improve(share: float) -> float:
        return last.validation + share * (best - last.validation)

    low, high = sorted((improve(least), improve(most)))
    method = f"power law of the errors, {resampling.summary('percentile')}"
    return Forecast(rows, improve(reduction.value), Interval(low, high, resampling.level, method))
