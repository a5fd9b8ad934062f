"""Metrics of a number target with predicted quantiles, in the unit of the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmcli.metrics import regression
from bmcli.metrics.info import ERROR, MetricInfo
from bmcli.metrics.levels import find_median_index
from bmcli.metrics.weighted_metrics import WeightedMetrics, join_metrics, make_weighted_means


def list_metrics(quantiles: Sequence[float]) -> dict[str, MetricInfo]:
    """List the metrics of a target with these quantiles, in the order of display."""
    return {**_list_own_metrics(quantiles), **regression.METRICS}


def _list_own_metrics(quantiles: Sequence[float]) -> dict[str, MetricInfo]:
    losses = dict.fromkeys(("pinball", *map(_get_metric_name, quantiles)), ERROR)
    interval = {"coverage": MetricInfo("", 0.0, 1.0), "interval_width": MetricInfo("", 0.0)}
    return {**losses, **(interval if len(quantiles) > 1 else {})}


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray, quantiles: Sequence[float]) -> WeightedMetrics:
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
    own = WeightedMetrics(make_weighted_means(columns), shares, info=_list_own_metrics(quantiles))
    return join_metrics(own, median_errors)


def _compute_row_terms(truth: np.ndarray, predictions: np.ndarray, quantiles: Sequence[float]) -> dict[str, np.ndarray]:
    """Compute the terms of each row whose means are the metrics, `(n,)` by name."""
    losses = compute_pinball_losses(truth, predictions, quantiles)
    columns = {"pinball": losses.mean(axis=1)}
    columns |= {_get_metric_name(quantile): loss for quantile, loss in zip(quantiles, losses.T, strict=True)}
    if len(quantiles) > 1:
        low, high = predictions[:, 0], predictions[:, -1]
        columns["coverage"] = (low <= truth) & (truth <= high)
        columns["interval_width"] = high - low
    return columns


def compute_pinball_losses(truth: np.ndarray, predictions: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Compute the pinball loss of each quantile in each row, `(n, quantiles)`."""
    shares, errors = np.array(quantiles), truth[:, None] - predictions.astype(np.float64)
    return np.maximum(shares * errors, (shares - 1) * errors)


def _get_metric_name(quantile: float) -> str:
    return f"pinball_{quantile:g}"
