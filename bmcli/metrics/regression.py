"""Metrics of a number target, in the unit of the target."""

from __future__ import annotations

import numpy as np

from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.info import ERROR, EXPLAINED_VARIANCE
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide
from bmcli.number_texts import write_number

METRICS = {"mae": ERROR, "rmse": ERROR, "r2": EXPLAINED_VARIANCE}


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray) -> WeightedMetrics:
    """Make mean absolute error, root mean squared error, and the share of explained variance.

    `r2` is 1 for perfect predictions, 0 for those of the rows' own mean, and has no lower limit. It is
    undefined where the truth does not vary. A metric beyond 1.8e308 is undefined too.

    Args:
        truth, predictions: `(n,)`, at least one row, finite.
    """
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    # Centred, or the variance as the difference of two large sums would be lost in rounding. First about a row, which
    # leaves exactly 0 where all rows are equal: their mean can be off by a rounding error.
    with np.errstate(over="ignore", invalid="ignore"):
        centred, errors = truth - truth[0], truth - predictions
        centred -= centred.mean()
        columns = np.stack([np.abs(errors), errors**2, centred, centred**2])

    def compute(weights: np.ndarray) -> MetricSamples:
        with np.errstate(over="ignore", invalid="ignore"):
            absolute, squared, mean, square = divide(columns @ weights, weights.sum(axis=0))
            variance = square - mean**2
            # A sample of equal rows has a variance of about 1e-16 of the squares after rounding, not 0.
            constant = variance <= 1e-12 * square
            return {
                "mae": absolute,
                "rmse": np.sqrt(squared),
                "r2": np.where(constant, np.nan, subtract_metrics(1.0, divide(squared, variance))),
            }

    return WeightedMetrics(compute, undefined=_explain_no_variance(truth), info=METRICS)


def _explain_no_variance(truth: np.ndarray) -> dict[str, str]:
    if len(truth) == 1:
        return {"r2": "one row has no variance."}
    with np.errstate(over="ignore", invalid="ignore"):
        # Squares of tiny differences can vanish.
        return (
            {"r2": f"the target is {write_number(truth[0])} in every row."}
            if np.ptp(truth) == 0 or np.var(truth) == 0
            else {}
        )
