"""Metrics of slices of the rows, and the slices with the worst results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from bmcli.canonical import choose_spelling
from bmcli.evaluation.intervals import (
    Interval,
    Resampling,
    compute_intervals,
    compute_wilson_interval,
    resample_metrics,
)
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means
from bmcli.number_texts import write_values
from bmcli.raw_columns import (
    RawColumn,
    RowFault,
    build_vocabulary,
    is_text_column,
    lookup_indices,
    read_written_numbers,
    to_texts,
)
from bmcli.records import validate_as

MIN_SLICE_ROWS = 20
BINS = 4
MAX_SLICES = 50  # slices in the record
SIGNIFICANCE = 0.05

_MAX_VALUES = 10  # columns with at most this many distinct numbers have a slice for each
_MAX_CATEGORIES = 20
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class Slicing:
    """A partition of the rows.

    Args:
        name: Of its columns, such as `Age` or `Home x Marital`.
        codes: Index of the slice of each row, `(rows,)`.
        names: Of the slices.
    """

    name: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """Metrics of a model on one slice.

    Args:
        slicing: Name of the slicing.
        name: Of the slice.
        value: The metric that slices are compared by.
        interval: Of the value; None if it is undefined.
        difference: The value minus that of all other rows.
        p_value: Of a permutation test: probability of a difference as large for randomly chosen rows.
        adjusted_p_value: Adjusted for the number of compared slices (Holm 1979).
        metrics: Every metric that is defined on these rows.
    """

    slicing: str
    name: str
    rows: int
    value: float
    interval: Interval | None
    difference: float
    p_value: float
    adjusted_p_value: float
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "interval": self.interval and self.interval.to_json(), "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class Slices:
    """Slices of one target, the worst first.

    Args:
        metric: The metric that they are compared by.
        overall: Its value on all rows.
        compared: Number of compared slices, for which the p-values are adjusted.
        skipped: Number of slices with fewer than 20 rows, which are not compared.
        significantly_worse: Number of slices that are worse than the other rows, with an adjusted p-value below 0.05.
        slices: The first 50.
    """

    target: str
    metric: str
    overall: float
    compared: int
    skipped: int
    significantly_worse: int
    slices: tuple[Slice, ...]

    @property
    def summary(self) -> str:
        """The result of the comparison as a sentence."""
        compared = f"of {self.compared:,} compared slice{'' if self.compared == 1 else 's'}"
        if self.skipped:
            compared += f" ({self.skipped:,} with fewer than {MIN_SLICE_ROWS} rows skipped)"
        count = f"{self.significantly_worse:,}" if self.significantly_worse else "none"
        verb = "is" if self.significantly_worse < 2 else "are"
        level = f"Holm-adjusted p < {SIGNIFICANCE}"
        return f"{compared}, {count} {verb} significantly worse than the other rows ({level})"

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "slices": [each.to_json() for each in self.slices]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Slices:
        return validate_as(cls, values)


def make_slicing(name: str, column: RawColumn, bins: int = BINS) -> Slicing:
    """Slice rows by a column: by category, by number if there are few distinct ones, else by quantiles.

    All but the 20 most frequent categories share one slice, and so do missing cells.

    Raises:
        RowFault: The column holds several values a row.
    """
    try:
        values = read_written_numbers(column)
    except RowFault:
        return _slice_by_category(name, column)
    if values.ndim != 1:
        raise RowFault(0, f"expected one value a row, received an array of shape {values.shape[1:]}.")
    distinct = np.unique(values[~np.isnan(values)])
    if not len(distinct) and is_text_column(column):  # words such as none and unknown
        return _slice_by_category(name, column)
    if len(distinct) > _MAX_VALUES:
        return _slice_by_quantile(name, values, bins)
    return _add_missing_part(
        name, np.searchsorted(distinct, values), np.isnan(values), write_values(name, distinct.tolist())
    )


def cross_slicings(first: Slicing, second: Slicing) -> Slicing:
    """Cross two slicings."""
    width = len(second.names)
    present, codes = np.unique(first.codes * width + second.codes, return_inverse=True)
    names = tuple(f"{first.names[pair // width]}, {second.names[pair % width]}" for pair in present.tolist())
    return Slicing(f"{first.name} x {second.name}", codes, names)


def add_crossed_slicings(slicings: Sequence[Slicing]) -> tuple[Slicing, ...]:
    """Add every crossed pair to some slicings."""
    return (*slicings, *(cross_slicings(first, second) for first, second in combinations(slicings, 2)))


def compare_slices(
    target: str,
    metric: str,
    values: np.ndarray,
    slicings: Sequence[Slicing],
    weighted_metrics: WeightedMetrics,
    resampling: Resampling,
) -> Slices:
    """Compare every slice with the rows outside of it.

    The p-value is that of a permutation test of the mean: exact for a share of the rows, else in normal approximation.
    Where rows are grouped, its variance is multiplied by the design effect of the groups.

    Args:
        metric: A metric that is a mean over rows.
        values: The term of each row, `(rows,)`; bool for a share.
        weighted_metrics: All metrics of the target.
    """
    candidates, skipped = [], 0
    design_effect = _compute_design_effect(values, resampling.groups)
    for each in slicings:
        counts = np.bincount(each.codes, minlength=len(each.names))
        sums = np.bincount(each.codes, values.astype(np.float64), minlength=len(each.names))
        for code, (rows, total) in enumerate(zip(counts.tolist(), sums.tolist(), strict=True)):
            if rows == len(values) or not rows:
                continue
            if rows < MIN_SLICE_ROWS:
                skipped += 1
                continue
            candidates.append((each, code, rows, total, _compute_p_value(values, rows, total, design_effect)))
    adjusted = _adjust_by_holm([p for *_, p in candidates])
    sign = 1 if weighted_metrics.get_info(metric).direction == "min" else -1
    excesses = [sign * _compute_difference(values, rows, total) for _, _, rows, total, _ in candidates]

    # Worse slices first, the most significant of them on top; then better ones, the most significant last.
    def badness(index: int) -> tuple[bool, float, float]:
        p_value = candidates[index][-1]
        return excesses[index] <= 0, p_value if excesses[index] > 0 else -p_value, -excesses[index]

    order = sorted(range(len(candidates)), key=badness)[:MAX_SLICES]
    significant = sum(p < SIGNIFICANCE and difference > 0 for p, difference in zip(adjusted, excesses, strict=True))
    selected = tuple(_make_slice(values, *candidates[index], adjusted[index], resampling) for index in order)
    slices = tuple(_add_metrics(selected, candidates, order, weighted_metrics))
    return Slices(target, metric, float(values.mean()), len(candidates), skipped, significant, slices)


def _make_slice(
    values: np.ndarray, slicing: Slicing, code: int, rows: int, total: float, p_value: float, adjusted: float,
    resampling: Resampling,
) -> Slice:  # fmt: skip
    return Slice(
        slicing=slicing.name,
        name=slicing.names[code],
        rows=rows,
        value=total / rows,
        interval=_compute_interval(values, np.flatnonzero(slicing.codes == code), resampling),
        difference=_compute_difference(values, rows, total),
        p_value=p_value,
        adjusted_p_value=adjusted,
        metrics={},
    )


def _compute_interval(values: np.ndarray, indices: np.ndarray, resampling: Resampling) -> Interval | None:
    """Compute the interval of the mean over some of the rows."""
    values_of_slice = values[indices]
    if values.dtype == bool and resampling.groups is None:
        return compute_wilson_interval(int(values_of_slice.sum()), len(values_of_slice), resampling.level)
    intervals, _ = compute_intervals(
        resample_metrics(
            WeightedMetrics(make_weighted_means({"mean": values_of_slice})),
            len(values_of_slice),
            resampling.select(indices),
        )
    )
    return intervals.get("mean")


def _add_metrics(
    selected: Sequence[Slice],
    candidates: Sequence[tuple[Slicing, int, int, float, float]],
    order: Sequence[int],
    weighted_metrics: WeightedMetrics,
) -> Iterator[Slice]:
    """Yield the selected slices with every metric that is defined on them."""
    if not selected:
        return
    size = max(1, _CHUNK_CELLS // len(candidates[0][0].codes))
    for start in range(0, len(selected), size):
        indices = order[start : start + size]
        masks = np.stack([candidates[index][0].codes == candidates[index][1] for index in indices], axis=1).astype(
            np.float64
        )
        columns = weighted_metrics.compute(masks)
        for position in range(len(indices)):
            metrics = {name: float(column[position]) for name, column in columns.items()}
            defined = {name: value for name, value in metrics.items() if np.isfinite(value)}
            yield replace(selected[start + position], metrics=defined)


def _compute_difference(values: np.ndarray, rows: int, total: float) -> float:
    return float(subtract_metrics(total / rows, (float(values.sum()) - total) / (len(values) - rows)))


def _compute_p_value(values: np.ndarray, rows: int, total: float, design_effect: float) -> float:
    """Compute the two-sided p-value of a slice, from its number of rows and the sum of their values."""
    from scipy.stats import hypergeom, norm

    count = len(values)
    if values.dtype == bool and design_effect == 1:
        # Random slices are drawn without replacement, so their number of hits is hypergeometric.
        distribution = hypergeom(count, int(values.sum()), rows)
        return float(min(1.0, 2 * min(distribution.cdf(total), distribution.sf(total - 1))))
    # With the finite population correction of a draw without replacement.
    variance = float(np.var(values.astype(np.float64), ddof=1)) / rows * (1 - rows / count) * design_effect
    if variance == 0:
        return 1.0
    return float(2 * norm.sf(abs(total / rows - float(values.mean())) / np.sqrt(variance)))


def _compute_design_effect(values: np.ndarray, groups: np.ndarray | None) -> float:
    """Compute the factor by which grouped rows increase the variance of a mean (Kish 1965); 1 without groups."""
    deviations = values - values.mean()
    if groups is None or not deviations.any():
        return 1.0
    _, of_row = np.unique(groups, return_inverse=True)
    return max(1.0, float((np.bincount(of_row, deviations) ** 2).sum() / (deviations**2).sum()))


def _adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = np.minimum(1, np.array(p_values)[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(scaled) if count else scaled
    return [float(value) for value in adjusted]


def _slice_by_category(name: str, column: RawColumn) -> Slicing:
    spelling = choose_spelling(to_texts(column), normalize=True)
    classes = build_vocabulary(column, spelling)
    indices = lookup_indices(column, classes, spelling)
    counts = np.bincount(indices[indices >= 0], minlength=len(classes))
    common = np.sort(np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES])
    codes = np.full(len(classes), len(common))
    codes[common] = np.arange(len(common))
    names = [classes[index] for index in common] + (["other"] if len(common) < len(classes) else [])
    return _add_missing_part(name, codes[np.maximum(indices, 0)], indices < 0, names)


def _slice_by_quantile(name: str, values: np.ndarray, bins: int) -> Slicing:
    missing = np.isnan(values)
    edges = np.unique(np.quantile(values[~missing], np.arange(1, bins) / bins))
    labels = write_values(name, edges.tolist())
    names = [
        f"up to {labels[0]}",
        *(f"{low} to {high}" for low, high in pairwise(labels)),
        f"above {labels[-1]}",
    ]
    return _add_missing_part(name, np.searchsorted(edges, values), missing, names)


def _add_missing_part(name: str, codes: np.ndarray, missing: np.ndarray, names: Sequence[str]) -> Slicing:
    if missing.any():
        return Slicing(name, np.where(missing, len(names), codes), (*names, "missing"))
    return Slicing(name, codes, tuple(names))


def can_slice(column: RawColumn) -> bool:
    """Whether a column has one value in each row, and no more distinct texts than half the number of rows."""
    if not is_text_column(column):
        return getattr(column, "ndim", 0) == 1
    try:
        read_written_numbers(column)
    except RowFault:
        return 2 * len(build_vocabulary(column)) <= len(column)
    return True
