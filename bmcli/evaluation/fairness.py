"""Fairness: selection rates and error rates of groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.slices import MIN_SLICE_ROWS, Slicing
from bmcli.metrics.info import ERROR_SHARE, SHARE, MetricInfo
from bmcli.metrics.proportions import LEVEL, wilson_bounds
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide, make_weighted_counts
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
    """Rates of one group.

    Args:
        selection_rate: Share of its rows that are predicted to be of the positive class.
        true_positive_rate: That share among its rows of the positive class; None if it has none.
        false_positive_rate: That share among its other rows; None if it has none.
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
    """Rates of the groups of a column.

    Args:
        positive: The class whose prediction counts as selection.
        groups: Those with at least 20 rows.
        left_out: Names of the smaller ones.
    """

    column: str
    target: str
    positive: str
    groups: tuple[GroupRates, ...]
    left_out: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The largest difference as a sentence."""
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


def list_metrics(column: str) -> dict[str, MetricInfo]:
    """List the metrics between the groups of a column, by their names in gates."""
    return {f"fairness/{column}/{name}": ERROR_SHARE if name.endswith("_difference") else SHARE for name in _METRICS}


def measure_fairness(
    slicing: Slicing, target: str, positive: str, is_positive: np.ndarray, selected: np.ndarray
) -> Fairness:
    """Measure the rates of each group with enough rows.

    Args:
        is_positive, selected: Whether each row is, and is predicted to be, of the positive class, bool `(rows,)`.
    """
    groups, left_out = [], []
    for code, name in enumerate(slicing.names):
        is_member = slicing.codes == code
        rows = int(is_member.sum())
        if rows >= MIN_SLICE_ROWS:
            rates = (
                _compute_rate(selected[is_member & subset])
                for subset in (np.full(len(is_positive), True), is_positive, ~is_positive)
            )
            groups.append(GroupRates(name, rows, *rates))  # type: ignore[arg-type]  # the first rate is of all rows of the group, so it is not None
        elif rows:
            left_out.append(name)
    return Fairness(slicing.name, target, positive, tuple(groups), tuple(left_out))


def make_weighted_metrics(slicing: Slicing, is_positive: np.ndarray, selected: np.ndarray) -> WeightedMetrics:
    """Make differences and ratios between the groups with enough rows, for samples of the rows.

    The difference of a rate is that between the highest and the lowest group, the ratio the lowest over the highest.
    `equalized_odds_difference` is the larger difference of true and false positive rates (Hardt, Price and Srebro
    2016).
    """
    counts = np.bincount(slicing.codes, minlength=len(slicing.names))
    large = np.flatnonzero(counts >= MIN_SLICE_ROWS)
    info = list_metrics(slicing.name)
    names = dict(zip(_METRICS, info, strict=True))
    undefined = dict.fromkeys(names.values(), "fewer than two groups have enough rows.")
    if len(large) < 2:
        return WeightedMetrics(
            lambda weights: {name: np.full(weights.shape[1], np.nan) for name in names.values()},
            undefined=undefined,
            info=info,
        )
    # One code for each combination of group, truth and prediction.
    weighted_counts = make_weighted_counts(slicing.codes * 4 + is_positive * 2 + selected, 4 * len(slicing.names))

    def compute(weights: np.ndarray) -> MetricSamples:
        true_negatives, false_positives, false_negatives, true_positives = (
            weighted_counts(weights).reshape(len(slicing.names), 4, -1)[large].transpose(1, 0, 2)
        )
        rates = {
            "selection_rate": divide(
                false_positives + true_positives, true_negatives + false_positives + false_negatives + true_positives
            ),
            "true_positive_rate": divide(true_positives, false_negatives + true_positives),
            "false_positive_rate": divide(false_positives, true_negatives + false_positives),
        }
        fairness_metrics = {}
        for rate, values in rates.items():
            low, high = _find_extremes(values)
            fairness_metrics[names[f"{rate}_difference"]] = high - low
            fairness_metrics[names[f"{rate}_ratio"]] = divide(low, high)
        odds = (fairness_metrics[names[f"{rate}_difference"]] for rate in RATES[1:])
        fairness_metrics[names["equalized_odds_difference"]] = np.maximum(*odds)
        return fairness_metrics

    return WeightedMetrics(compute, undefined=undefined, info=info)


def _find_extremes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the lowest and highest defined value of `(groups, samples)`, nan where fewer than two are defined."""
    defined = ~np.isnan(values)
    low, high = np.where(defined, values, np.inf).min(axis=0), np.where(defined, values, -np.inf).max(axis=0)
    has_two = defined.sum(axis=0) > 1
    return np.where(has_two, low, np.nan), np.where(has_two, high, np.nan)


def _compute_rate(selected: np.ndarray) -> Rate | None:
    if not len(selected):
        return None
    hits = int(selected.sum())
    return Rate(hits / len(selected), *wilson_bounds(hits, len(selected), LEVEL), len(selected))
