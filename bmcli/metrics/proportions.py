"""Confidence intervals, and Wilson's interval of a proportion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmcli.records import validate_as

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a metric.

    Args:
        low, high: The bounds.
        level: Confidence level, such as 0.95.
        method: Name of the method, for people.
    """

    low: float
    high: float
    level: float
    method: str

    @property
    def percent(self) -> str:
        """The level as `95 %`."""
        return f"{100 * self.level:g} %"

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Interval:
        return validate_as(cls, values)


def wilson_bounds(hits: int, rows: int, level: float = LEVEL) -> tuple[float, float]:
    """Compute Wilson's score interval (Wilson 1927); it stays within 0 and 1, and has a width for shares of 0 and 1."""
    from scipy.special import ndtri

    z, share = float(ndtri((1 + level) / 2)), hits / rows
    centre, half_width = share + z**2 / (2 * rows), z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    low, high = ((centre + sign * half_width) / (1 + z**2 / rows) for sign in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == rows else high)
