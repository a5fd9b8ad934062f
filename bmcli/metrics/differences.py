"""Differences of metrics, without the rounding errors that would look like results."""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-12
"""Share of a scale that rounding may cause: a few units in the last place for each of many sums over rows."""


def subtract_metrics(metric: np.ndarray | float, other: np.ndarray | float) -> np.ndarray:
    """Subtract values of a metric elementwise; the difference is 0 where they are equal up to rounding."""
    return drop_rounding_errors(np.subtract(metric, other), np.maximum(np.abs(metric), np.abs(other)))


def drop_rounding_errors(values: np.ndarray | float, scale: np.ndarray | float) -> np.ndarray:
    """Replace values by 0 where they are rounding errors.

    Args:
        scale: Size of the numbers whose difference the values are.
    """
    # Not `<=`: an infinite number has an infinite difference from a finite one.
    return np.where(np.abs(values) < _ROUNDING * np.asarray(scale), 0.0, values)
