"""Direction and bounds of metrics: whether higher or lower is better, and the values that a metric can have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["min", "max", ""]


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric before it is computed.

    Args:
        direction: `max` or `min`, whichever is better; empty where neither is, such as for the width of an interval.
        low, high: The least and the greatest value that it can have, infinite where it has no bound.
    """

    direction: Direction
    low: float = -math.inf
    high: float = math.inf

    @property
    def best(self) -> float | None:
        """The best value that it can have; None if it has no direction, or no bound on that side."""
        bound = {"max": self.high, "min": self.low, "": math.inf}[self.direction]
        return bound if math.isfinite(bound) else None

    def cut(self, low: float, high: float) -> tuple[float, float]:
        """Cut an interval at the bounds of the metric."""
        return min(max(low, self.low), self.high), max(min(high, self.high), self.low)


UNKNOWN = MetricInfo("")
"""Of a number without direction and bounds."""
SHARE = MetricInfo("max", 0.0, 1.0)
"""Of a share of right answers, and of scores from 0 to 1."""
ERROR_SHARE = MetricInfo("min", 0.0, 1.0)
"""Of a share of wrong answers, and of differences of shares."""
ERROR = MetricInfo("min", 0.0)
"""Of errors and losses of at least 0."""
CORRELATION = MetricInfo("max", -1.0, 1.0)
"""Of correlations and of kappa."""
EXPLAINED_VARIANCE = MetricInfo("max", high=1.0)
"""Of the share of explained variance, which has no lower limit."""
