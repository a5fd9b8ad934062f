"""Figures of a number target, in the target's own unit."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation.result import TargetMetrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide

METRIC_NAMES = ("mae", "rmse", "r2")


def measure(truth: np.ndarray, predictions: np.ndarray) -> TargetMetrics:
    """Mean absolute error, root of the mean squared error, and the share of variance explained.

    `r2` is 1 for perfect predictions, 0 for those of the rows' own mean, and has no lower limit. It is
    undefined where the truth does not vary. A figure beyond 1.8e308 is undefined too.

    Args:
        truth, predictions: `(n,)`, at least one row, finite.
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    constant = explain_no_variance(truth)
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {
            "mae": float(mean_absolute_error(truth, predictions)),
            "rmse": float(root_mean_squared_error(truth, predictions)),
        }
        if not constant:
            figures["r2"] = float(r2_score(truth, predictions))
    metrics = {name: value for name, value in figures.items() if np.isfinite(value)}
    undefined = {name: "its value is too large for a 64-bit number." for name in figures if name not in metrics}
    return TargetMetrics(metrics, undefined | ({"r2": constant} if constant else {}))


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray) -> WeightedMetrics:
    """The figures of `measure`, of samples of the rows."""
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    # About its mean, or the difference of two large sums would be lost in rounding.
    with np.errstate(over="ignore", invalid="ignore"):
        centred, errors = truth - truth.mean(), truth - predictions
        columns = np.stack([np.abs(errors), errors**2, centred, centred**2])

    def compute(weights: np.ndarray) -> MetricSamples:
        with np.errstate(over="ignore", invalid="ignore"):
            absolute, squared, mean, square = divide(columns @ weights, weights.sum(axis=0))
            variance = square - mean**2
            constant = variance <= 1e-12 * square
            return {
                "mae": absolute,
                "rmse": np.sqrt(squared),
                "r2": np.where(constant, np.nan, 1 - divide(squared, variance)),
            }

    return WeightedMetrics(compute)


def explain_no_variance(truth: np.ndarray) -> str:
    """Why a share of variance is undefined, empty if it is not."""
    if len(truth) == 1:
        return "one row has no variance."
    # The mean of equal numbers can be off by a rounding error, and squares of tiny differences can vanish.
    if np.ptp(truth) == 0 or np.var(truth) == 0:
        return f"the target is {truth[0]:g} in every row."
    return ""
