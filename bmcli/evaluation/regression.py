"""Metrics of a number target, in the unit of the target."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation.differences import drop_rounding_errors, subtract_metrics
from bmcli.evaluation.result import TargetMetrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide

METRIC_NAMES = ("mae", "rmse", "r2")


def measure(truth: np.ndarray, predictions: np.ndarray) -> TargetMetrics:
    """Compute mean absolute error, root mean squared error, and the share of explained variance.

    `r2` is 1 for perfect predictions, 0 for those of the rows' own mean, and has no lower limit. It is
    undefined where the truth does not vary. A metric beyond 1.8e308 is undefined too.

    Args:
        truth, predictions: `(n,)`, at least one row, finite.
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    no_variance = explain_no_variance(truth)
    with np.errstate(over="ignore", invalid="ignore"):
        values = {
            "mae": float(mean_absolute_error(truth, predictions)),
            "rmse": float(root_mean_squared_error(truth, predictions)),
        }
        if not no_variance:
            values["r2"] = float(drop_rounding_errors(r2_score(truth, predictions), 1.0))
    metrics = {name: value for name, value in values.items() if np.isfinite(value)}
    undefined = {name: "its value is too large for a 64-bit number." for name in values if name not in metrics}
    return TargetMetrics(metrics, undefined | ({"r2": no_variance} if no_variance else {}))


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows."""
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    # Centred, or the variance as the difference of two large sums would be lost in rounding.
    with np.errstate(over="ignore", invalid="ignore"):
        centred, errors = truth - truth.mean(), truth - predictions
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

    return WeightedMetrics(compute)


def explain_no_variance(truth: np.ndarray) -> str:
    """Explain why the share of variance is undefined; empty if it is defined."""
    if len(truth) == 1:
        return "one row has no variance."
    # The mean of equal numbers can be off by a rounding error, and squares of tiny differences can vanish.
    if np.ptp(truth) == 0 or np.var(truth) == 0:
        return f"the target is {truth[0]:g} in every row."
    return ""
