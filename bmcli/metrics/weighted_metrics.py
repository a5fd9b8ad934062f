"""Metrics as functions of the weights of rows.

The arrays of a metric are prepared once, so that thousands of resamples cost a few matrix products each. Weights are
`(rows, samples)` throughout: a column is one sample, with the number of times that each row is in it. Contiguous
columns (Fortran order) are fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bmcli.metrics.info import UNKNOWN, MetricInfo
from bmcli.quoting import quoted

MetricSamples = dict[str, np.ndarray]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class WeightedMetrics:
    """Metrics of samples of some rows.

    Args:
        compute: From weights `(rows, samples)` to each metric by name, `(samples,)`, with nan where it is undefined.
        shares: For metrics that are a share of the rows, the rows that count, bool `(rows,)`.
        gaps: For metrics that are a sum of absolute values, such as the calibration error, functions from weights to
            the signed terms, `(gaps, samples)`. Such metrics are biased upwards by chance.
        left_out: Reasons by name, for metrics that are not resampled.
        compute_left_out: Like `compute`, for the metrics that are left out; it suits a single sample.
        undefined: Reasons by name, for metrics that are undefined on all rows without a value that is too large.
        info: Direction and bounds by name, in the order of display.
    """

    compute: Callable[[np.ndarray], MetricSamples]
    shares: Mapping[str, np.ndarray] = field(default_factory=dict)
    gaps: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    compute_left_out: Callable[[np.ndarray], MetricSamples] = lambda weights: {}
    undefined: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, MetricInfo] = field(default_factory=dict)

    def get_info(self, name: str) -> MetricInfo:
        """Get direction and bounds of a metric."""
        return self.info.get(name, UNKNOWN)

    def measure(self, rows: int) -> tuple[dict[str, float], dict[str, str]]:
        """Compute the metrics of all rows, and the reasons why others are undefined."""
        weights = np.ones((rows, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            values = {**self.compute(weights), **self.compute_left_out(weights)}
        metrics = {name: float(value[0]) for name, value in values.items() if np.isfinite(value[0])}
        too_large = "its value is too large for a 64-bit number."
        return metrics, {name: self.undefined.get(name, too_large) for name in values if name not in metrics}


def name_row_weighted(metric: str) -> str:
    """Name a metric in which the weights of the rows count, such as `label/row_weighted_accuracy`."""
    target, slash, name = metric.rpartition("/")
    return f"{target}{slash}row_weighted_{name}"


def describe_row_weights(column: str) -> str:
    """Describe which metrics count each row with its weight, as a sentence."""
    return (
        f"Metrics named row_weighted_ count each row with its weight in {quoted(column)}, as the loss does; the others "
        "count each row once."
    )


def weight_rows(metrics: WeightedMetrics, row_weights: np.ndarray) -> WeightedMetrics:
    """Make the same metrics with weights of the rows, under names of their own.

    Args:
        row_weights: Of the rows of the recipe's data, at least 0, `(rows,)`.
    """
    factors = row_weights.astype(np.float64)[:, np.newaxis]

    def rename(values: Mapping[str, _Value]) -> dict[str, _Value]:
        return {name_row_weighted(name): value for name, value in values.items()}

    def weight(compute: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda weights: compute(weights * factors)

    undefined = metrics.undefined
    if not row_weights.any():
        undefined = dict.fromkeys(metrics.info, "every row has the weight 0.")
    return WeightedMetrics(
        lambda weights: rename(metrics.compute(weights * factors)),
        {},  # a weighted share has no number of rows, from which Wilson's interval follows
        rename({name: weight(gap) for name, gap in metrics.gaps.items()}),
        rename(metrics.left_out),
        lambda weights: rename(metrics.compute_left_out(weights * factors)),
        rename(undefined),
        rename(metrics.info),
    )


def join_metrics(*parts: WeightedMetrics) -> WeightedMetrics:
    """Join sets of metrics of the same rows."""
    return join_with_prefixes([("", part) for part in parts])


def join_with_prefixes(parts: Sequence[tuple[str, WeightedMetrics]]) -> WeightedMetrics:
    """Join sets of metrics of the same rows, with a prefix to the names of each set."""

    def join(get_mapping: Callable[[WeightedMetrics], Mapping[str, _Value]]) -> dict[str, _Value]:
        return {prefix + name: value for prefix, part in parts for name, value in get_mapping(part).items()}

    return WeightedMetrics(
        lambda weights: join(lambda part: part.compute(weights)),
        join(lambda part: part.shares),
        join(lambda part: part.gaps),
        join(lambda part: part.left_out),
        lambda weights: join(lambda part: part.compute_left_out(weights)),
        join(lambda part: part.undefined),
        join(lambda part: part.info),
    )


def make_weighted_means(values: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], MetricSamples]:
    """Make a function from weights to the weighted means of columns `(rows,)`, by name."""
    matrix = np.stack([np.asarray(column, np.float64) for column in values.values()])

    def compute(weights: np.ndarray) -> MetricSamples:
        return dict(zip(values, divide(matrix @ weights, weights.sum(axis=0)), strict=True))

    return compute


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with nan where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def make_weighted_counts(codes: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function from weights to the total weight of the rows of each code, `(count, samples)`.

    Args:
        codes: Integers from 0 to `count - 1`, `(rows,)`.
    """
    from scipy.sparse import csr_array

    rows = np.arange(len(codes))
    matrix = csr_array((np.ones(len(codes)), (codes, rows)), shape=(count, len(codes)))
    return lambda weights: np.asarray(matrix @ weights)


def make_weighted_areas(
    positive: np.ndarray, scores: np.ndarray, rows: np.ndarray | None = None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Make a function from weights to the area under the ROC curve and the average precision, `(samples,)` each.

    Scores are sorted once. A sample then takes two running sums along the ranks, of all rows and of the positive ones,
    and the term of each positive row follows from the sums where its step begins and ends. Rows of one score are one
    step of the curves, as in scikit-learn.

    Args:
        positive: bool `(scores,)`.
        scores: `(scores,)`.
        rows: The row of each score, which gives its weight, `(scores,)`; by default each row has one score.
    """
    order = np.argsort(-scores, kind="stable")
    own_rows = order if rows is None else rows[order]
    positive_ranks, ordered_scores = np.flatnonzero(positive[order]), scores[order]
    step_starts = np.flatnonzero(np.append(True, ordered_scores[1:] != ordered_scores[:-1]))
    step_of_positive = np.searchsorted(step_starts, positive_ranks, side="right") - 1
    # Running sums begin with 0: the sum of all elements before a position is at that position.
    begin, end = step_starts[step_of_positive], np.append(step_starts[1:], len(ordered_scores))[step_of_positive]
    begin_found, end_found = np.searchsorted(positive_ranks, begin), np.searchsorted(positive_ranks, end)
    has_ties = bool((end - begin > 1).any())

    def compute(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row_sums = _compute_running_sums(weights, own_rows)
        positive_weights = np.take(weights.T, own_rows[positive_ranks], axis=1)
        positive_sums = _compute_running_sums(weights, own_rows[positive_ranks])
        positives, total = positive_sums[:, -1].astype(np.float64), row_sums[:, -1].astype(np.float64)
        positive_to, rows_to = np.take(positive_sums, end_found, axis=1), np.take(row_sums, end, axis=1)
        negatives_above = (rows_to - positive_to).astype(np.float64)
        if has_ties:  # half of the negative rows of the same score count as ranked above
            negatives_above = (
                negatives_above + np.take(row_sums, begin, axis=1) - np.take(positive_sums, begin_found, axis=1)
            ) / 2
        negatives = total - positives
        ranked_pairs = (positive_weights * (negatives[:, None] - negatives_above)).sum(axis=1)
        # A sample may have no row up to a rank; its positive row has weight 0 there, so the quotient does not matter.
        precision = positive_to / np.maximum(rows_to, 1e-300)
        roc = divide(ranked_pairs, positives * negatives)
        return roc, np.where(np.isnan(roc), np.nan, divide((positive_weights * precision).sum(axis=1), positives))

    return compute


def _compute_running_sums(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute sums of the weights of the first rows, from none to all, `(samples, len(rows) + 1)`."""
    sums = np.zeros((weights.shape[1], len(rows) + 1), weights.dtype)
    # The dtype is explicit, since cumsum would widen int32 to the slower int64.
    np.cumsum(np.take(weights.T, rows, axis=1), axis=1, dtype=weights.dtype, out=sums[:, 1:])
    return sums


def compute_nanmean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Average arrays of one shape, element by element, over those that are defined; nan where none is."""
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    return divide(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))


def make_mean_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function from weights to the mean rank of each row in a sample minus a half, `(rows, samples)`."""
    _, indices = np.unique(values, return_inverse=True)
    count = make_weighted_counts(indices, int(indices.max()) + 1)

    def compute(weights: np.ndarray) -> np.ndarray:
        sizes = count(weights)
        return (np.cumsum(sizes, axis=0) - sizes / 2)[indices]

    return compute


def compute_correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation in each sample, nan where one of the two does not vary.

    Args:
        first, second, weights: `(rows, samples)`.
    """
    total = weights.sum(axis=0)
    first = first - divide((weights * first).sum(axis=0), total)
    second = second - divide((weights * second).sum(axis=0), total)
    variances = (weights * first**2).sum(axis=0) * (weights * second**2).sum(axis=0)
    # Rounding can leave a perfect correlation beyond 1.
    return np.clip(divide((weights * first * second).sum(axis=0), np.sqrt(variances)), -1, 1)
