"""Results of cross-validation: each fold, mean and standard deviation over folds, and all out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.result import Evaluation
from bmcli.metrics.differences import drop_rounding_errors
from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.metrics.proportions import LEVEL
from bmcli.records import validate_as


@dataclass(frozen=True)
class FoldResult:
    """The training of one fold, and its result.

    Args:
        train_rows, test_rows: Number of rows.
        metrics: On the test rows.
    """

    number: int
    train_rows: int
    test_rows: int
    metrics: Mapping[str, float]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class FoldMean:
    """A metric over the folds.

    Args:
        mean, standard_deviation: Over the folds, with `folds - 1` degrees of freedom.
        low, high: 95 % interval of the mean, within the bounds of the metric.
        folds: Number of folds in which the metric is defined.
    """

    mean: float
    standard_deviation: float
    low: float
    high: float
    folds: int


@dataclass(frozen=True)
class CrossValidationResult:
    """Result of a cross-validation.

    Args:
        splitter: How rows were divided into folds, in words.
        means: By metric, for those that are defined in at least two folds.
        method: Of the intervals of the means.
        pooled: Evaluation of all out-of-fold predictions together.
    """

    splitter: str
    folds: tuple[FoldResult, ...]
    means: Mapping[str, FoldMean]
    method: str
    pooled: Evaluation

    def to_json(self) -> dict[str, Any]:
        return {
            "splitter": self.splitter,
            "folds": [{**vars(fold), "metrics": dict(fold.metrics)} for fold in self.folds],
            "means": {name: vars(mean) for name, mean in self.means.items()},
            "method": self.method,
            "pooled": self.pooled.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CrossValidationResult:
        return validate_as(cls, values)


def summarize_folds(
    splitter: str, folds: Sequence[FoldResult], pooled: Evaluation, metrics: Mapping[str, MetricInfo]
) -> CrossValidationResult:
    """Compute mean and standard deviation of each metric over folds.

    Args:
        metrics: Bounds of the metrics by name.
    """
    names = dict.fromkeys(name for fold in folds for name in fold.metrics)
    values = {name: [fold.metrics[name] for fold in folds if name in fold.metrics] for name in names}
    ratio = float(np.mean([fold.test_rows / fold.train_rows for fold in folds]))
    return CrossValidationResult(
        splitter=splitter,
        folds=tuple(folds),
        means={
            name: average_folds(metrics.get(name, UNKNOWN), fold_values, ratio)
            for name, fold_values in values.items()
            if len(fold_values) > 1
        },
        method="t interval of the folds, corrected for the rows that their trainings share (Nadeau and Bengio 2003), "
        "cut at the bounds of the metric",
        pooled=pooled,
    )


def average_folds(metric: MetricInfo, values: Sequence[float], ratio: float, level: float = LEVEL) -> FoldMean:
    """Compute mean and standard deviation of a metric over k folds.

    Folds are not independent samples, because most of their training rows are the same: the variance of the mean is
    not `1 / k` of the variance between folds, but about `1 / k + ratio` of it (Nadeau and Bengio 2003, section 3).
    A t interval is symmetric and knows no bounds, so it is cut at those of the metric.

    Args:
        ratio: Test rows for each training row.
    """
    from scipy.special import stdtrit

    mean = float(np.mean(values))
    deviation = float(drop_rounding_errors(float(np.std(values, ddof=1)), abs(mean)))
    half_width = float(stdtrit(len(values) - 1, (1 + level) / 2)) * deviation * float(np.sqrt(1 / len(values) + ratio))
    low, high = metric.cut(mean - half_width, mean + half_width)
    return FoldMean(mean, deviation, low, high, len(values))
