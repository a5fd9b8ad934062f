"""Levels of quantiles."""

from __future__ import annotations

from collections.abc import Sequence


def find_median_index(quantiles: Sequence[float]) -> int:
    """Index of the quantile that is nearest to the median."""
    return min(range(len(quantiles)), key=lambda at: abs(quantiles[at] - 0.5))
