"""An interval, and that of a share of some rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmcli.records import validate_as

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Where the true value of a metric lies.

    Args:
        low, high: The bounds.
        level: How often such an interval holds the true value, e.g. 0.95.
        method: How it was made, in words.
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
    """Wilson's score interval of a share (Wilson 1927); it stays within 0 and 1, and has a width when all are alike."""
    from scipy.special import ndtri

    z, share = float(ndtri((1 + level) / 2)), hits / rows
    middle, reach = share + z**2 / (2 * rows), z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    low, high = ((middle + way * reach) / (1 + z**2 / rows) for way in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == rows else high)
