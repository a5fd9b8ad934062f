"""Metrics of a number target with predicted quantiles, in the unit of the target."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation import regression
from bmcli.evaluation.weighted_metrics import WeightedMetrics, join_metrics, make_weighted_means
from bmcli.objectives import find_median_index

LESS_IS_BETTER = ("pinball", *regression.LESS_IS_BETTER)  # and the losses of each quantile, `pinball_0.1`
NEITHER_IS_BETTER = ("coverage", "interval_width")


def metric_names(quantiles: tuple[float, ...]) -> tuple[str, ...]:
    """List the metrics of a target with these quantiles, in the order of display."""
    interval = ("coverage", "interval_width") if len(quantiles) > 1 else ()
    return ("pinball", *map(_get_metric_name, quantiles), *interval, *regression.METRIC_NAMES)


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> WeightedMetrics:
    """Make the pinball losses, the interval between the outer quantiles, and the errors of the median.

    `pinball` is the mean over the quantiles. `coverage` is the share of rows inside the interval; 0.8 is ideal for the
    quantiles 0.1 and 0.9. `interval_width` is its mean width. `mae`, `rmse` and `r2` are of the median, or of the
    quantile nearest to it.

    Args:
        truth: `(n,)`, at least one row.
        predictions: `(n, quantiles)`, finite, from low to high.
    """
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        columns = _compute_row_terms(truth, predictions, quantiles)
    shares = {"coverage": columns["coverage"]} if "coverage" in columns else {}
    median_errors = regression.make_weighted_metrics(truth, predictions[:, find_median_index(quantiles)])
    return join_metrics(WeightedMetrics(make_weighted_means(columns), shares), median_errors)


def _compute_row_terms(
    truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]
) -> dict[str, np.ndarray]:
    """Compute the terms of each row whose means are the metrics, `(n,)` by name."""
    errors = truth[:, None] - predictions
    shares = np.array(quantiles)
    losses = np.maximum(shares * errors, (shares - 1) * errors)
    columns = {"pinball": losses.mean(axis=1)}
    columns |= {_get_metric_name(quantile): loss for quantile, loss in zip(quantiles, losses.T, strict=True)}
    if len(quantiles) > 1:
        low, high = predictions[:, 0], predictions[:, -1]
        columns["coverage"] = (low <= truth) & (truth <= high)
        columns["interval_width"] = high - low
    return columns


def _get_metric_name(quantile: float) -> str:
    return f"pinball_{quantile:g}"
