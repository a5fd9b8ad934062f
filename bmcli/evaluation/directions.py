"""Direction of metrics: whether higher or lower is better."""

from __future__ import annotations

_LESS_IS_BETTER = {
    "mae",
    "rmse",
    "log_loss",
    "hamming_loss",
    "poisson_deviance",
    "pinball",
    "brier",
    "calibration_error",
}
_NEITHER = {"coverage", "interval_width"}


def get_direction(metric: str) -> str:
    """Get `max` or `min`, whichever is better; empty where neither is, such as for the width of an interval."""
    name = metric.rpartition("/")[2]
    if name in _NEITHER:
        return ""
    less = name in _LESS_IS_BETTER or name.startswith("pinball_") or name.endswith("_difference")
    return "min" if less else "max"
