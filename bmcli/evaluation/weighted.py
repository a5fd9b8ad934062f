"""Metrics as functions of how often each row counts.

One set of arrays gives a metric of any sample of the rows, so that thousands of resamples cost some passes over
them. Weights are `(rows, samples)` throughout: a column is one sample, and says how often each row is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Weighted:
    """Metrics of samples of some rows.

    Args:
        of: Takes weights `(rows, samples)`, gives each metric by name as `(samples,)`, with nan where a sample leaves
            it undefined.
        shares: The metrics that are a share of the rows, as which rows count, bool `(rows,)`.
        left_out: Why there is no function for a metric, by its name.
    """

    of: Callable[[np.ndarray], Values]
    shares: Mapping[str, np.ndarray] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def together(parts: Mapping[str, Weighted]) -> Weighted:
    """Several sets of metrics of the same rows as one, each name behind the prefix of its set."""
    return Weighted(
        lambda weights: {
            prefix + name: values for prefix, part in parts.items() for name, values in part.of(weights).items()
        },
        {prefix + name: rows for prefix, part in parts.items() for name, rows in part.shares.items()},
        {prefix + name: why for prefix, part in parts.items() for name, why in part.left_out.items()},
    )


def means(values: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], Values]:
    """Weighted means of columns `(rows,)`, by name."""
    matrix = np.stack([np.asarray(column, np.float64) for column in values.values()])

    def of(weights: np.ndarray) -> Values:
        return dict(zip(values, over(matrix @ weights, weights.sum(axis=0)), strict=True))

    return of


def over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients, nan where the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, above / below)


def tally(codes: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights to `(count, samples)`: the weight of the rows of each code.

    Args:
        codes: Whole numbers from 0 to `count`, `(rows,)`.
    """
    from scipy.sparse import csr_array

    rows = np.arange(len(codes))
    matrix = csr_array((np.ones(len(codes)), (codes, rows)), shape=(count, len(codes)))
    return lambda weights: np.asarray(matrix @ weights)


def areas(positive: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from weights to the area under the ROC curve and the average precision, `(samples,)` each.

    Rows of one score count as one step of the curves, as in scikit-learn.

    Args:
        positive: bool `(rows,)`.
        scores: `(rows,)`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, ordered = positive[order], scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    tied = len(ends) < len(ordered)

    def of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sorted_weights = weights[order]
        found, taken = np.cumsum(sorted_weights * ranked[:, None], axis=0), np.cumsum(sorted_weights, axis=0)
        if tied:
            found, taken = found[ends], taken[ends]
        gained, missed = np.diff(found, axis=0, prepend=0), taken - found
        positives, negatives = found[-1], missed[-1]
        # A negative row is below the positive ones before it, and level with those of its own score.
        below = ((found - gained / 2) * np.diff(missed, axis=0, prepend=0)).sum(axis=0)
        precision = found / np.maximum(taken, 1e-300)
        roc = over(below, positives * negatives)
        return roc, np.where(np.isnan(roc), np.nan, over((gained * precision).sum(axis=0), positives))

    return of


def mean_of_defined(values: list[np.ndarray]) -> np.ndarray:
    """Mean of several `(samples,)` over those that are defined in each sample; nan where none is."""
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    return over(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))


def mean_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights to `(rows, samples)`: the mean rank of each row in a sample, less a half."""
    _, places = np.unique(values, return_inverse=True)
    count = tally(places, int(places.max()) + 1)

    def of(weights: np.ndarray) -> np.ndarray:
        sizes = count(weights)
        return (np.cumsum(sizes, axis=0) - sizes / 2)[places]

    return of


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation in each sample, nan where one of the two does not vary.

    Args:
        first, second, weights: `(rows, samples)`.
    """
    total = weights.sum(axis=0)
    first = first - over((weights * first).sum(axis=0), total)
    second = second - over((weights * second).sum(axis=0), total)
    variances = (weights * first**2).sum(axis=0) * (weights * second**2).sum(axis=0)
    return over((weights * first * second).sum(axis=0), np.sqrt(variances))
