"""Direction of metrics: whether higher or lower is better."""

from __future__ import annotations

from bmcli.evaluation import classification, count, multi_label, ordinal, quantile, regression

_LESS_IS_BETTER = {
    name
    for module in (classification, count, multi_label, ordinal, quantile, regression)
    for name in module.LESS_IS_BETTER
}


def get_direction(metric: str) -> str:
    """Get `max` or `min`, whichever is better; empty where neither is, such as for the width of an interval."""
    name = metric.rpartition("/")[2]
    if name in quantile.NEITHER_IS_BETTER:
        return ""
    # The differences are those between the groups of `fairness`.
    less = name in _LESS_IS_BETTER or name.startswith("pinball_") or name.endswith("_difference")
    return "min" if less else "max"
