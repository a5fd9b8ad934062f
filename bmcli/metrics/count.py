"""Metrics of a target of counts."""

from __future__ import annotations

import numpy as np

from bmcli.metrics import regression
from bmcli.metrics.info import ERROR
from bmcli.metrics.weighted_metrics import WeightedMetrics, join_metrics, make_weighted_means

METRICS = {"poisson_deviance": ERROR, **regression.METRICS}

_MIN_RATE = 1e-37


def make_weighted_metrics(truth: np.ndarray, rates: np.ndarray) -> WeightedMetrics:
    """Make the mean Poisson deviance of the predicted rates, and their errors as for any number.

    The deviance is `2 * (count * log(count / rate) - count + rate)`: 0 if every rate is its count.

    Args:
        truth: Whole numbers of at least 0, `(n,)`, at least one row.
        rates: `(n,)`, finite, at least 0; a rate of 0 counts as 1e-37, since the deviance has its logarithm.
    """
    deviance = make_weighted_means({"poisson_deviance": compute_deviances(truth, rates)})
    own = WeightedMetrics(deviance, info={"poisson_deviance": METRICS["poisson_deviance"]})
    return join_metrics(own, regression.make_weighted_metrics(truth, rates))


def compute_deviances(truth: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Compute the Poisson deviance of each row, `(n,)`; arguments as in `make_weighted_metrics`."""
    from scipy.special import xlogy

    counts, expected = truth.astype(np.float64), np.maximum(rates.astype(np.float64), _MIN_RATE)
    return np.asarray(2 * (xlogy(counts, counts / expected) - counts + expected))
