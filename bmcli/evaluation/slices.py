"""Metrics of parts of the rows, and the parts that a model does worst on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from bmcli.evaluation.directions import get_direction
from bmcli.evaluation.intervals import (
    Interval,
    Resampling,
    compute_intervals,
    compute_wilson_interval,
    resample_metrics,
)
from bmcli.evaluation.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.raw_columns import RawColumn, RowFault, build_vocabulary, is_text_column, lookup_indices, to_numbers
from bmcli.records import validate_as

MIN_SLICE_ROWS = 20  # rows of a slice
BINS = 4
MAX_SLICES = 50  # slices that are reported
SIGNIFICANCE = 0.05

_MOST_VALUES = 10  # numbers that are slices each by themselves
_MOST_CATEGORIES = 20
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Slicing:
    """A way to divide rows.

    Args:
        name: As `Age` or `Home x Marital`.
        codes: The part of each row, `(rows,)`.
        names: Of the parts.
    """

    name: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """Some rows, and how a model does on them.

    Args:
        of: The name of the slicing.
        name: Of the part.
        value: The metric that slices are compared by.
        interval: Of the value; None if the rows give none.
        difference: The value less that of all other rows.
        p_value: How often rows picked by chance would differ as much from the others.
        adjusted: The same for the most different of all slices that were looked at (Holm 1979).
        metrics: Every metric that these rows give.
    """

    of: str
    name: str
    rows: int
    value: float
    interval: Interval | None
    difference: float
    p_value: float
    adjusted: float
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "interval": self.interval and self.interval.to_json(), "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class Slices:
    """The slices of one target, those on which the model does worst first.

    Args:
        metric: What they are compared by.
        overall: The same of all rows.
        looked_at: How many slices were compared; the p-values are adjusted for so many.
        too_small: How many were left out for having fewer than 20 rows.
        worse: How many are worse than the other rows beyond what the best of so many looks would show by chance.
        slices: The first 50.
    """

    target: str
    metric: str
    overall: float
    looked_at: int
    too_small: int
    worse: int
    slices: tuple[Slice, ...]

    @property
    def summary(self) -> str:
        """What the comparison comes to, as a sentence."""
        looks = f"of {self.looked_at:,} slice{'' if self.looked_at == 1 else 's'} looked at"
        small = f", {self.too_small:,} with fewer than {MIN_SLICE_ROWS} rows left out" if self.too_small else ""
        if not self.worse:
            return f"{looks}{small}, none is worse than the other rows beyond chance (p adjusted by Holm)"
        verb = "is" if self.worse == 1 else "are"
        return (
            f"{looks}{small}, {self.worse:,} {verb} worse than the other rows (p adjusted by Holm below {SIGNIFICANCE})"
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "slices": [each.to_json() for each in self.slices]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Slices:
        return validate_as(cls, values)


def make_slicing(name: str, column: RawColumn, bins: int = BINS) -> Slicing:
    """Rows divided by a column: by category, by number if there are few, else by quantiles.

    The rarest categories beyond 20 are one slice, and so are missing cells.

    Raises:
        RowFault: The column holds several values a row.
    """
    try:
        values = to_numbers(column)
    except RowFault:
        return _by_category(name, column)
    if values.ndim != 1:
        raise RowFault(0, f"expected one value a row, received an array of shape {values.shape[1:]}.")
    told = np.unique(values[~np.isnan(values)])
    if len(told) > _MOST_VALUES:
        return _by_quantile(name, values, bins)
    return _add_missing_part(name, np.searchsorted(told, values), np.isnan(values), [f"{value:g}" for value in told])


def cross_slicings(first: Slicing, second: Slicing) -> Slicing:
    """Rows divided by two slicings at once."""
    width = len(second.names)
    present, codes = np.unique(first.codes * width + second.codes, return_inverse=True)
    names = tuple(f"{first.names[pair // width]}, {second.names[pair % width]}" for pair in present.tolist())
    return Slicing(f"{first.name} x {second.name}", codes, names)


def add_crossed_slicings(slicings: Sequence[Slicing]) -> tuple[Slicing, ...]:
    """Slicings, and every pair of them crossed."""
    return (*slicings, *(cross_slicings(first, second) for first, second in combinations(slicings, 2)))


def compare_slices(
    target: str,
    metric: str,
    values: np.ndarray,
    slicings: Sequence[Slicing],
    figures: WeightedMetrics,
    resampling: Resampling,
) -> Slices:
    """Every slice against the rows outside of it.

    The p-value is that of a permutation test of the mean: exact for a share of the rows, else in normal approximation.
    Where rows belong together, its variance is larger by the design effect of the groups.

    Args:
        metric: A metric that is a mean of rows.
        values: What each row adds to that mean, `(rows,)`; bool for a share.
        figures: All metrics of the target.
    """
    found, too_small = [], 0
    effect = _design_effect(values, resampling.groups)
    for each in slicings:
        counts = np.bincount(each.codes, minlength=len(each.names))
        sums = np.bincount(each.codes, values.astype(np.float64), minlength=len(each.names))
        for code, (rows, total) in enumerate(zip(counts.tolist(), sums.tolist(), strict=True)):
            if rows == len(values) or not rows:
                continue
            if rows < MIN_SLICE_ROWS:
                too_small += 1
                continue
            found.append((each, code, rows, total, _p_value(values, rows, total, effect)))
    adjusted = _adjust_by_holm([p for *_, p in found])
    sign = 1 if get_direction(metric) == "min" else -1
    worse = [sign * _difference(values, rows, total) for _, _, rows, total, _ in found]

    def badness(place: int) -> tuple[bool, float, float]:
        p_value = found[place][-1]
        return worse[place] <= 0, p_value if worse[place] > 0 else -p_value, -worse[place]

    order = sorted(range(len(found)), key=badness)[:MAX_SLICES]
    surely = sum(p < SIGNIFICANCE and difference > 0 for p, difference in zip(adjusted, worse, strict=True))
    told = tuple(_slice(values, *found[place], adjusted[place], resampling) for place in order)
    slices = tuple(_add_metrics(told, found, order, figures))
    return Slices(target, metric, float(values.mean()), len(found), too_small, surely, slices)


def _slice(
    values: np.ndarray, of: Slicing, code: int, rows: int, total: float, p_value: float, adjusted: float,
    resampling: Resampling,
) -> Slice:  # fmt: skip
    return Slice(
        of=of.name,
        name=of.names[code],
        rows=rows,
        value=total / rows,
        interval=_interval(values, np.flatnonzero(of.codes == code), resampling),
        difference=_difference(values, rows, total),
        p_value=p_value,
        adjusted=adjusted,
        metrics={},
    )


def _interval(values: np.ndarray, inside: np.ndarray, resampling: Resampling) -> Interval | None:
    """That of the mean of some of the rows."""
    own = values[inside]
    if values.dtype == bool and resampling.groups is None:
        return compute_wilson_interval(int(own.sum()), len(own), resampling.level)
    between, _ = compute_intervals(
        resample_metrics(WeightedMetrics(make_weighted_means({"mean": own})), len(own), resampling.of(inside))
    )
    return between.get("mean")


def _add_metrics(
    selected: Sequence[Slice],
    found: Sequence[tuple[Slicing, int, int, float, float]],
    order: Sequence[int],
    figures: WeightedMetrics,
) -> Iterator[Slice]:
    """The same slices with every metric that is defined on them."""
    if not selected:
        return
    size = max(1, _AT_ONCE // len(found[0][0].codes))
    for start in range(0, len(selected), size):
        places = order[start : start + size]
        masks = np.stack([found[place][0].codes == found[place][1] for place in places], axis=1).astype(np.float64)
        columns = figures.of(masks)
        for position in range(len(places)):
            metrics = {name: float(column[position]) for name, column in columns.items()}
            defined = {name: value for name, value in metrics.items() if np.isfinite(value)}
            yield replace(selected[start + position], metrics=defined)


def _difference(values: np.ndarray, rows: int, total: float) -> float:
    return total / rows - (float(values.sum()) - total) / (len(values) - rows)


def _p_value(values: np.ndarray, rows: int, total: float, effect: float) -> float:
    """Two-sided, of a slice with so many rows and such a sum."""
    from scipy.stats import hypergeom, norm

    count = len(values)
    if values.dtype == bool and effect == 1:
        law = hypergeom(count, int(values.sum()), rows)
        return float(min(1.0, 2 * min(law.cdf(total), law.sf(total - 1))))
    variance = float(np.var(values.astype(np.float64), ddof=1)) / rows * (1 - rows / count) * effect
    if variance == 0:
        return 1.0
    return float(2 * norm.sf(abs(total / rows - float(values.mean())) / np.sqrt(variance)))


def _design_effect(values: np.ndarray, groups: np.ndarray | None) -> float:
    """By how much rows that belong together make the variance of a mean larger (Kish 1965); 1 without groups."""
    away = values - values.mean()
    if groups is None or not away.any():
        return 1.0
    _, of_row = np.unique(groups, return_inverse=True)
    return max(1.0, float((np.bincount(of_row, away) ** 2).sum() / (away**2).sum()))


def _adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    raised = np.minimum(1, np.array(p_values)[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(raised) if count else raised
    return [float(value) for value in adjusted]


def _by_category(name: str, column: RawColumn) -> Slicing:
    classes = build_vocabulary(column)
    found = lookup_indices(column, classes)
    counts = np.bincount(found[found >= 0], minlength=len(classes))
    common = np.sort(np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES])
    codes = np.full(len(classes), len(common))
    codes[common] = np.arange(len(common))
    names = [classes[place] for place in common] + (["other"] if len(common) < len(classes) else [])
    return _add_missing_part(name, codes[np.maximum(found, 0)], found < 0, names)


def _by_quantile(name: str, values: np.ndarray, bins: int) -> Slicing:
    missing = np.isnan(values)
    edges = np.unique(np.quantile(values[~missing], np.arange(1, bins) / bins))
    ends = [f"{edge:.6g}" for edge in edges]
    names = [
        f"up to {ends[0]}",
        *(f"{low} to {high}" for low, high in pairwise(ends)),
        f"above {ends[-1]}",
    ]
    return _add_missing_part(name, np.searchsorted(edges, values), missing, names)


def _add_missing_part(name: str, codes: np.ndarray, missing: np.ndarray, names: Sequence[str]) -> Slicing:
    if missing.any():
        return Slicing(name, np.where(missing, len(names), codes), (*names, "missing"))
    return Slicing(name, codes, tuple(names))


def can_slice(column: RawColumn) -> bool:
    """Whether a column has one value a row, of which several rows share some."""
    if not is_text_column(column):
        return getattr(column, "ndim", 0) == 1
    try:
        to_numbers(column)
    except RowFault:
        return 2 * len(build_vocabulary(column)) <= len(column)
    return True
