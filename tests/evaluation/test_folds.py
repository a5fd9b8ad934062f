"""Intervals of means over folds, which stay within the values that a metric can have."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t

from bmcli.evaluation.folds import FoldResult, average_folds, summarize_folds
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.info import CORRELATION, ERROR, ERROR_SHARE, EXPLAINED_VARIANCE, SHARE, UNKNOWN, MetricInfo

ACCURACIES = (0.9, 1.0, 1.0)


def test_the_interval_is_the_corrected_one_of_nadeau_and_bengio() -> None:
    mean = average_folds(ERROR, [3.0, 4.0, 5.0], 0.5)
    half_width = t.ppf(0.975, 2) * math.sqrt(1 / 3 + 0.5)
    assert (mean.mean, mean.standard_deviation, mean.folds) == (4.0, 1.0, 3)
    assert (mean.low, mean.high) == pytest.approx((4 - half_width, 4 + half_width))


@pytest.mark.parametrize(
    ("metric", "values", "low", "high"),
    [
        (SHARE, ACCURACIES, None, 1.0),
        (SHARE, (0.0, 0.05, 0.0), 0.0, None),
        (ERROR_SHARE, (0.0, 0.9, 0.1), 0.0, 1.0),
        (CORRELATION, (-0.9, 0.9, 0.1), -1.0, 1.0),
        (EXPLAINED_VARIANCE, (-0.9, 0.9, 0.1), None, 1.0),
        (ERROR, (0.1, 9.0, 0.2), 0.0, None),
    ],
)
def test_an_interval_is_cut_at_the_bounds_of_its_metric(
    metric: MetricInfo, values: tuple[float, ...], low: float | None, high: float | None
) -> None:
    cut, uncut = average_folds(metric, values, 0.5), average_folds(UNKNOWN, values, 0.5)
    assert cut.low == (uncut.low if low is None else low)
    assert cut.high == (uncut.high if high is None else high)
    assert low is None or uncut.low < low
    assert high is None or uncut.high > high


def test_the_method_names_the_cut() -> None:
    folds = [FoldResult(number, 90, 30, {"accuracy": each}, 5, 1.0) for number, each in enumerate(ACCURACIES, 1)]
    found = summarize_folds("by chance", folds, Evaluation({}, {}, {}, 90), {"accuracy": SHARE})
    assert found.method.endswith("(Nadeau and Bengio 2003), cut at the bounds of the metric")
    assert found.means["accuracy"].high == 1.0
