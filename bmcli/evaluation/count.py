"""Metrics of a target of counts."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation import regression
from bmcli.evaluation.weighted_metrics import WeightedMetrics, join_metrics, make_weighted_means

METRIC_NAMES = ("poisson_deviance", *regression.METRIC_NAMES)
LESS_IS_BETTER = ("poisson_deviance", *regression.LESS_IS_BETTER)

_MIN_RATE = 1e-37


def make_weighted_metrics(truth: np.ndarray, rates: np.ndarray) -> WeightedMetrics:
    """Make the mean Poisson deviance of the predicted rates, and their errors as for any number.

    The deviance is `2 * (count * log(count / rate) - count + rate)`: 0 if every rate is its count.

    Args:
        truth: Whole numbers of at least 0, `(n,)`, at least one row.
        rates: `(n,)`, finite, at least 0; a rate of 0 counts as 1e-37, since the deviance has its logarithm.
    """
    from scipy.special import xlogy

    counts, expected = truth.astype(np.float64), np.maximum(rates.astype(np.float64), _MIN_RATE)
    deviance = make_weighted_means({"poisson_deviance": 2 * (xlogy(counts, counts / expected) - counts + expected)})
    return join_metrics(WeightedMetrics(deviance), regression.make_weighted_metrics(truth, rates))
