"""Direction and bounds of metrics: whether higher or lower is better, and the values that a metric can have."""

from __future__ import annotations

import math

from bmcli.evaluation import classification, count, multi_label, ordinal, quantile, regression

_LESS_IS_BETTER = {
    name
    for module in (classification, count, multi_label, ordinal, quantile, regression)
    for name in module.LESS_IS_BETTER
}

_SHARE = (0.0, 1.0)
_POSITIVE = (0.0, math.inf)
_BOUNDS = {
    "hamming_loss": _SHARE,
    "calibration_error": _SHARE,
    "coverage": _SHARE,
    "brier": (0.0, 2.0),  # 2 is reached with three classes or more
    "quadratic_kappa": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "r2": (-math.inf, 1.0),
    **dict.fromkeys(("mae", "rmse", "log_loss", "poisson_deviance", "pinball", "interval_width"), _POSITIVE),
}
_SHARE_BEGINNINGS = ("precision_", "recall_", "f1_", "roc_auc", "pr_auc")
_SHARE_ENDS = ("accuracy", "_difference", "_ratio")


def get_direction(metric: str) -> str:
    """Get `max` or `min`, whichever is better; empty where neither is, such as for the width of an interval."""
    name = metric.rpartition("/")[2]
    if name in quantile.NEITHER_IS_BETTER:
        return ""
    # The differences are those between the groups of `fairness`.
    less = name in _LESS_IS_BETTER or name.startswith("pinball_") or name.endswith("_difference")
    return "min" if less else "max"


def get_bounds(metric: str) -> tuple[float, float]:
    """Get the least and the greatest value that a metric can have, infinite where it has no bound."""
    name = metric.rpartition("/")[2]
    if name.startswith("pinball_"):
        return _POSITIVE
    if name.startswith(_SHARE_BEGINNINGS) or name.endswith(_SHARE_ENDS):
        return _SHARE
    return _BOUNDS.get(name, (-math.inf, math.inf))


def cut_at_bounds(metric: str, low: float, high: float) -> tuple[float, float]:
    """Cut an interval of a metric at the bounds of the metric."""
    least, greatest = get_bounds(metric)
    return min(max(low, least), greatest), max(min(high, greatest), least)
