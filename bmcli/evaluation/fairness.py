"""Whether a model treats groups alike: how often each is selected, rightly and wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.proportions import LEVEL, wilson_bounds
from bmcli.evaluation.slices import MIN_SLICE_ROWS, Slicing
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide, make_weighted_counts
from bmcli.quoting import quoted
from bmcli.records import validate_as

RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
_METRICS = (*(f"{rate}_{kind}" for rate in RATES for kind in ("difference", "ratio")), "equalized_odds_difference")


@dataclass(frozen=True)
class Rate:
    """A share of some rows with Wilson's interval."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class GroupRates:
    """What one group gets.

    Args:
        selection_rate: Share of its rows that are predicted to be of the positive class.
        true_positive_rate: The same of its rows that are of it; None if none is.
        false_positive_rate: The same of those that are not; None if all are.
    """

    name: str
    rows: int
    selection_rate: Rate
    true_positive_rate: Rate | None
    false_positive_rate: Rate | None

    def to_json(self) -> dict[str, Any]:
        rates = {name: getattr(self, name) for name in RATES}
        return {**vars(self), **{name: rate and vars(rate) for name, rate in rates.items()}}


@dataclass(frozen=True)
class Fairness:
    """The groups of a column.

    Args:
        positive: The class that rows are selected for.
        groups: Those with 20 rows or more.
        left_out: Names of the smaller ones.
    """

    column: str
    target: str
    positive: str
    groups: tuple[GroupRates, ...]
    left_out: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The widest gap as a sentence."""
        if len(self.groups) < 2:
            return f"fewer than two groups of {quoted(self.column)} have {MIN_SLICE_ROWS} rows, so none can be compared"
        ordered = sorted(self.groups, key=lambda group: group.selection_rate.value)
        low, high = ordered[0], ordered[-1]
        return (
            f"{quoted(self.positive)} is predicted for {low.selection_rate.value:.1%} of {quoted(low.name)} and "
            f"{high.selection_rate.value:.1%} of {quoted(high.name)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "groups": [group.to_json() for group in self.groups], "left_out": list(self.left_out)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fairness:
        return validate_as(cls, values)


def metric_names(column: str) -> tuple[str, ...]:
    """The differences and ratios between the groups of a column, as gates name them."""
    return tuple(f"fairness/{column}/{name}" for name in _METRICS)


def measure_fairness(
    slicing: Slicing, target: str, positive: str, is_positive: np.ndarray, selected: np.ndarray
) -> Fairness:
    """The rates of every group that is large enough.

    Args:
        is_positive, selected: Whether each row is, and is predicted to be, of the positive class, bool `(rows,)`.
    """
    groups, left_out = [], []
    for code, name in enumerate(slicing.names):
        inside = slicing.codes == code
        rows = int(inside.sum())
        if rows >= MIN_SLICE_ROWS:
            rates = (
                _rate(selected[inside & where])
                for where in (np.full(len(is_positive), True), is_positive, ~is_positive)
            )
            groups.append(GroupRates(name, rows, *rates))  # type: ignore[arg-type]  # a group has rows
        elif rows:
            left_out.append(name)
    return Fairness(slicing.name, target, positive, tuple(groups), tuple(left_out))


def make_weighted_metrics(slicing: Slicing, is_positive: np.ndarray, selected: np.ndarray) -> WeightedMetrics:
    """Differences and ratios between the groups that are large enough, of samples of the rows.

    The difference of a rate is that between the highest and the lowest group, the ratio the lowest over the highest.
    `equalized_odds_difference` is the larger difference of true and false positive rates (Hardt, Price and Srebro
    2016).
    """
    counts = np.bincount(slicing.codes, minlength=len(slicing.names))
    large = np.flatnonzero(counts >= MIN_SLICE_ROWS)
    names = dict(zip(_METRICS, metric_names(slicing.name), strict=True))
    if len(large) < 2:
        return WeightedMetrics(lambda weights: {name: np.full(weights.shape[1], np.nan) for name in names.values()})
    cells = make_weighted_counts(slicing.codes * 4 + is_positive * 2 + selected, 4 * len(slicing.names))

    def of(weights: np.ndarray) -> MetricSamples:
        missed, false, lost, hit = cells(weights).reshape(len(slicing.names), 4, -1)[large].transpose(1, 0, 2)
        rates = {
            "selection_rate": divide(false + hit, missed + false + lost + hit),
            "true_positive_rate": divide(hit, lost + hit),
            "false_positive_rate": divide(false, missed + false),
        }
        found = {}
        for rate, values in rates.items():
            low, high = _find_extremes(values)
            found[names[f"{rate}_difference"]] = high - low
            found[names[f"{rate}_ratio"]] = divide(low, high)
        odds = (found[names[f"{rate}_difference"]] for rate in RATES[1:])
        found[names["equalized_odds_difference"]] = np.maximum(*odds)
        return found

    return WeightedMetrics(of)


def _find_extremes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest of `(groups, samples)` that are defined, nan where fewer than two are."""
    defined = ~np.isnan(values)
    low, high = np.where(defined, values, np.inf).min(axis=0), np.where(defined, values, -np.inf).max(axis=0)
    enough = defined.sum(axis=0) > 1
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def _rate(selected: np.ndarray) -> Rate | None:
    if not len(selected):
        return None
    hits = int(selected.sum())
    return Rate(hits / len(selected), *wilson_bounds(hits, len(selected), LEVEL), len(selected))
