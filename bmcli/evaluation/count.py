"""Metrics of a target of counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bmcli.evaluation import regression
from bmcli.evaluation.result import TargetMetrics
from bmcli.evaluation.weighted_metrics import WeightedMetrics, make_weighted_means

METRIC_NAMES = ("poisson_deviance", *regression.METRIC_NAMES)

_MIN_RATE = 1e-37


def measure(truth: np.ndarray, rates: np.ndarray) -> TargetMetrics:
    """Compute the mean Poisson deviance of the predicted rates, and their errors as for any number.

    The deviance is `2 * (count * log(count / rate) - count + rate)`: 0 if every rate is its count.

    Args:
        truth: Whole numbers of at least 0, `(n,)`, at least one row.
        rates: `(n,)`, finite, at least 0; a rate of 0 counts as 1e-37, since the deviance has its logarithm.
    """
    from sklearn.metrics import mean_poisson_deviance

    deviance = mean_poisson_deviance(truth, np.maximum(rates.astype(np.float64), _MIN_RATE))
    errors = regression.measure(truth, rates)
    return replace(errors, metrics={"poisson_deviance": float(deviance), **errors.metrics})


def make_weighted_metrics(truth: np.ndarray, rates: np.ndarray) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows."""
    from scipy.special import xlogy

    counts, expected = truth.astype(np.float64), np.maximum(rates.astype(np.float64), _MIN_RATE)
    deviance = make_weighted_means({"poisson_deviance": 2 * (xlogy(counts, counts / expected) - counts + expected)})
    errors = regression.make_weighted_metrics(truth, rates)
    return WeightedMetrics(lambda weights: {**deviance(weights), **errors.compute(weights)})
