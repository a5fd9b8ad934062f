"""Metrics that are equal up to rounding have no difference, wherever metrics are subtracted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bmcli.distillations import DistillationGain, NetworkResult
from bmcli.evaluation.agreement import compute_gain
from bmcli.evaluation.comparison import Comparison
from bmcli.evaluation.folds import average_folds
from bmcli.evaluation.intervals import Resampling, compute_differences, resample_metrics
from bmcli.metrics import ordinal, regression
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.info import ERROR, SHARE
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from tests.reports.comparisons import contender

NOISY = 0.1 + 0.2  # 0.30000000000000004
ROWS = 60


def _make_learner(*values: float, metric: str = "accuracy") -> NetworkResult:
    return NetworkResult(
        "any", (), {metric: float(np.mean(values))}, tuple({metric: each} for each in values), 1, 4, None
    )


def _make_metrics(values: np.ndarray, metric: str = "accuracy") -> WeightedMetrics:
    info = {metric: ERROR if metric in ("log_loss", "mae") else SHARE}
    return WeightedMetrics(make_weighted_means({metric: values}), info=info)


def _compute_gain(
    baseline: tuple[float, ...], student: tuple[float, ...], metric: str = "accuracy"
) -> DistillationGain:
    values = np.random.default_rng(0).random(ROWS)
    weighted = ([_make_metrics(values, metric)] * len(baseline), [_make_metrics(values, metric)] * len(student))
    learners = (_make_learner(*each, metric=metric) for each in (baseline, baseline, student))
    return compute_gain(metric, *learners, ROWS, weighted)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rounding_makes_no_difference_at_any_scale(scale: float) -> None:
    assert subtract_metrics(scale * NOISY, scale * 0.3) == 0
    assert subtract_metrics(scale * 0.31, scale * 0.3) == pytest.approx(scale * 0.01)


def test_infinite_and_undefined_values_keep_their_differences() -> None:
    found = subtract_metrics(np.array([np.inf, 1.0, np.nan]), np.array([1.0, np.inf, 1.0]))
    np.testing.assert_array_equal(found, [np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_a_gain_of_zero_is_zero_without_a_sign(metric: str) -> None:
    gain = _compute_gain((0.3, 0.8), (NOISY, 0.8), metric)
    assert [f"{each:+.4g}" for each in (gain.mean, *gain.by_seed)] == ["+0", "+0", "+0"]
    assert gain.gap_closed is None
    assert gain.interval is None
    assert gain.method == "it is the same in every resample."


def test_gains_that_cancel_each_other_have_a_mean_of_zero() -> None:
    gain = _compute_gain((0.1, 0.7, 0.3), (0.3, 0.1, 0.7))
    assert gain.mean == 0
    assert all(gain.by_seed)


def test_models_that_differ_by_rounding_alone_have_no_interval() -> None:
    values = np.random.default_rng(0).random(ROWS)
    first, second = (
        resample_metrics(WeightedMetrics(compute), ROWS, Resampling(resamples=200))
        for compute in (
            make_weighted_means({"f1_macro": values}),
            lambda weights: {"f1_macro": (values / 3 @ weights) / weights.sum(axis=0) * 3},
        )
    )
    difference = compute_differences(first, second)["f1_macro"]
    assert (difference.difference, difference.interval, difference.p_value) == (0, None, 1)
    assert difference.summary().endswith("difference 0.0000; no interval, since it is the same in every resample.")


def test_contenders_that_differ_by_rounding_are_a_tie() -> None:
    small, large = (
        replace(contender(name, parameters, 0.5), metrics={"accuracy": value})
        for name, parameters, value in (("small", 10, 0.3), ("large", 20, NOISY))
    )
    comparison = Comparison("test", ROWS, "accuracy", "max", (large, small), {}, {}, "other rows.", {}, {})
    assert comparison.best is small
    assert comparison.pareto_front("parameters") == (small,)


def test_equal_folds_have_no_deviation() -> None:
    mean = average_folds(SHARE, [0.1, 0.1, 0.1], 0.5)
    assert mean.standard_deviation == 0
    assert mean.low == mean.mean == mean.high


@pytest.mark.parametrize(
    ("truth", "predicted"), [([2, 1, 1, 1, 2, 1], [2, 1, 1, 1, 0, 1]), ([0, 2, 0, 2, 1], [1, 2, 2, 1, 1])]
)
def test_predictions_no_better_than_chance_have_a_kappa_of_zero(truth: list[int], predicted: list[int]) -> None:
    probabilities = np.where(np.eye(3)[predicted] > 0, 0.6, 0.2).astype("float32")
    arguments = (np.array(truth), np.array(predicted), probabilities)
    assert ordinal.make_weighted_metrics(*arguments).measure(len(truth))[0]["quadratic_kappa"] == 0


def test_the_mean_as_prediction_explains_no_variance() -> None:
    truth = np.round(np.random.default_rng(18).normal(size=97), 1)
    predictions = np.full(97, truth[::-1].sum() / 97)  # in another order, the sum rounds differently
    assert regression.make_weighted_metrics(truth, predictions).measure(97)[0]["r2"] == 0
