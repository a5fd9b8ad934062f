"""Metrics of a number target with predicted quantiles, in the unit of the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bmcli.evaluation import regression
from bmcli.evaluation.result import TargetMetrics
from bmcli.evaluation.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.objectives import find_median_index


def metric_names(quantiles: tuple[float, ...]) -> tuple[str, ...]:
    """List the metrics of a target with these quantiles, in the order of display."""
    interval = ("coverage", "interval_width") if len(quantiles) > 1 else ()
    return ("pinball", *map(_get_metric_name, quantiles), *interval, *regression.METRIC_NAMES)


def measure(truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> TargetMetrics:
    """Compute the pinball losses, the interval between the outer quantiles, and the errors of the median.

    `pinball` is the mean over the quantiles. `coverage` is the share of rows inside the interval; 0.8 is ideal for the
    quantiles 0.1 and 0.9. `interval_width` is its mean width. `mae`, `rmse` and `r2` are of the median, or of the
    quantile nearest to it.

    Args:
        truth: `(n,)`, at least one row.
        predictions: `(n, quantiles)`, finite, from low to high.
    """
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    median_errors = regression.measure(truth, predictions[:, find_median_index(quantiles)])
    with np.errstate(over="ignore", invalid="ignore"):
        means = _average_row_terms(truth, predictions, quantiles)
    metrics = {name: value for name, value in means.items() if np.isfinite(value)}
    undefined = {name: "its value is too large for a 64-bit number." for name in means if name not in metrics}
    return replace(
        median_errors, metrics={**metrics, **median_errors.metrics}, undefined={**undefined, **median_errors.undefined}
    )


def make_weighted_metrics(truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows."""
    truth, predictions = truth.astype(np.float64), predictions.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        columns = _compute_row_terms(truth, predictions, quantiles)
    mean_metrics, errors = (
        make_weighted_means(columns),
        regression.make_weighted_metrics(truth, predictions[:, find_median_index(quantiles)]),
    )
    shares = {"coverage": columns["coverage"]} if "coverage" in columns else {}
    return WeightedMetrics(lambda weights: {**mean_metrics(weights), **errors.compute(weights)}, shares)


def _average_row_terms(truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]) -> Mapping[str, float]:
    return {name: float(column.mean()) for name, column in _compute_row_terms(truth, predictions, quantiles).items()}


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
