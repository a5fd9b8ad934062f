"""Metrics as functions of how often each row counts.

One set of arrays gives a metric of any sample of the rows, so that thousands of resamples cost some passes over
them. Weights are `(rows, samples)` throughout: a column is one sample, and says how often each row is in it. Columns
that lie together in memory (Fortran order) are the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

MetricSamples = dict[str, np.ndarray]


@dataclass(frozen=True)
class WeightedMetrics:
    """Metrics of samples of some rows.

    Args:
        compute: Takes weights `(rows, samples)`, gives each metric by name as `(samples,)`, with nan where a sample leaves
            it undefined.
        shares: The metrics that are a share of the rows, as which rows count, bool `(rows,)`.
        gaps: The metrics that are a sum of absolute values, such as the calibration error, as functions from weights to
            these values with their signs, `(gaps, samples)`. Chance makes them larger.
        left_out: Why there is no function for a metric, by its name.
    """

    compute: Callable[[np.ndarray], MetricSamples]
    shares: Mapping[str, np.ndarray] = field(default_factory=dict)
    gaps: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def join_with_prefixes(parts: Mapping[str, WeightedMetrics]) -> WeightedMetrics:
    """Several sets of metrics of the same rows as one, each name behind the prefix of its set."""
    return join_metrics(*(_add_prefix(part, prefix) for prefix, part in parts.items()))


def join_metrics(*parts: WeightedMetrics) -> WeightedMetrics:
    """Several sets of metrics of the same rows as one."""
    return WeightedMetrics(
        lambda weights: {name: values for part in parts for name, values in part.compute(weights).items()},
        {name: rows for part in parts for name, rows in part.shares.items()},
        {name: gaps for part in parts for name, gaps in part.gaps.items()},
        {name: why for part in parts for name, why in part.left_out.items()},
    )


def _add_prefix(part: WeightedMetrics, prefix: str) -> WeightedMetrics:
    return WeightedMetrics(
        lambda weights: {prefix + name: values for name, values in part.compute(weights).items()},
        {prefix + name: rows for name, rows in part.shares.items()},
        {prefix + name: gaps for name, gaps in part.gaps.items()},
        {prefix + name: why for name, why in part.left_out.items()},
    )


def make_weighted_means(values: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], MetricSamples]:
    """Weighted means of columns `(rows,)`, by name."""
    matrix = np.stack([np.asarray(column, np.float64) for column in values.values()])

    def compute(weights: np.ndarray) -> MetricSamples:
        return dict(zip(values, divide(matrix @ weights, weights.sum(axis=0)), strict=True))

    return compute


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients, nan where the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, above / below)


def make_weighted_counts(codes: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights to `(count, samples)`: the weight of the rows of each code.

    Args:
        codes: Whole numbers from 0 to `count`, `(rows,)`.
    """
    from scipy.sparse import csr_array

    rows = np.arange(len(codes))
    matrix = csr_array((np.ones(len(codes)), (codes, rows)), shape=(count, len(codes)))
    return lambda weights: np.asarray(matrix @ weights)


def make_weighted_areas(
    positive: np.ndarray, scores: np.ndarray, rows: np.ndarray | None = None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from weights to the area under the ROC curve and the average precision, `(samples,)` each.

    Scores are sorted once. A sample then takes two running sums along the ranks, of all rows and of the positive ones,
    and what each positive row adds to the areas follows from the sums where its step begins and ends. Rows of one
    score are one step of the curves, as in scikit-learn.

    Args:
        positive: bool `(scores,)`.
        scores: `(scores,)`.
        rows: The row whose weight each score has, `(scores,)`; by default there is one score a row.
    """
    order = np.argsort(-scores, kind="stable")
    own_rows = order if rows is None else rows[order]
    ranked, ordered = np.flatnonzero(positive[order]), scores[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    step = np.searchsorted(begins, ranked, side="right") - 1
    # Running sums begin with 0, so that what comes before a place stands at it.
    begin, end = begins[step], np.append(begins[1:], len(ordered))[step]
    begin_found, end_found = np.searchsorted(ranked, begin), np.searchsorted(ranked, end)
    tied = bool((end - begin > 1).any())

    def compute(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        taken = _running_sums(weights, own_rows)
        counted = np.take(weights.T, own_rows[ranked], axis=1)
        found = _running_sums(weights, own_rows[ranked])
        positives, total = found[:, -1].astype(np.float64), taken[:, -1].astype(np.float64)
        found_to, taken_to = np.take(found, end_found, axis=1), np.take(taken, end, axis=1)
        missed = (taken_to - found_to).astype(np.float64)
        if tied:  # half of the negative rows of the same score are above
            missed = (missed + np.take(taken, begin, axis=1) - np.take(found, begin_found, axis=1)) / 2
        negatives = total - positives
        below = (counted * (negatives[:, None] - missed)).sum(axis=1)
        precision = found_to / np.maximum(taken_to, 1e-300)
        roc = divide(below, positives * negatives)
        return roc, np.where(np.isnan(roc), np.nan, divide((counted * precision).sum(axis=1), positives))

    return compute


def _running_sums(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums of the weights of the first rows, from none to all, `(samples, len(rows) + 1)`."""
    sums = np.zeros((weights.shape[1], len(rows) + 1), weights.dtype)
    np.cumsum(np.take(weights.T, rows, axis=1), axis=1, dtype=weights.dtype, out=sums[:, 1:])
    return sums


def compute_nanmean(values: list[np.ndarray]) -> np.ndarray:
    """Mean of several `(samples,)` over those that are defined in each sample; nan where none is."""
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    return divide(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))


def mean_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights to `(rows, samples)`: the mean rank of each row in a sample, less a half."""
    _, places = np.unique(values, return_inverse=True)
    count = make_weighted_counts(places, int(places.max()) + 1)

    def compute(weights: np.ndarray) -> np.ndarray:
        sizes = count(weights)
        return (np.cumsum(sizes, axis=0) - sizes / 2)[places]

    return compute


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation in each sample, nan where one of the two does not vary.

    Args:
        first, second, weights: `(rows, samples)`.
    """
    total = weights.sum(axis=0)
    first = first - divide((weights * first).sum(axis=0), total)
    second = second - divide((weights * second).sum(axis=0), total)
    variances = (weights * first**2).sum(axis=0) * (weights * second**2).sum(axis=0)
    return divide((weights * first * second).sum(axis=0), np.sqrt(variances))
