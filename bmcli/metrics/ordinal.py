"""Metrics of a target of ordered categories: accuracy, distance and correlation of ranks, log loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bmcli.metrics import weighted_metrics
from bmcli.metrics.classification import log_losses
from bmcli.metrics.differences import subtract_metrics
from bmcli.metrics.info import CORRELATION, ERROR, SHARE
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide

METRICS = {
    "accuracy": SHARE,
    "mae": ERROR,
    "quadratic_kappa": CORRELATION,
    "spearman": CORRELATION,
    "log_loss": ERROR,
}

_UNDEFINED = {
    "quadratic_kappa": "every row has one category, and it is predicted for all.",
    "spearman": "the truth or the prediction is the same in every row.",
}


def make_weighted_metrics(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    """Make all metrics of one target of ordered categories.

    `mae` is the mean distance of the predicted rank from the true one. `quadratic_kappa` is Cohen's kappa with
    squared distances as weights (Cohen 1968): 1 for perfect agreement, 0 for agreement by chance. It is undefined
    where all rows have one category and it is predicted for all. `spearman` is the correlation of the ranks of the
    rows by truth and by expected category; undefined where one of them does not vary.

    Args:
        truth, predicted: Ranks of categories, `(n,)`, at least one row.
        probabilities: `(n, classes)`, each row adding up to 1.
    """
    classes = probabilities.shape[1]
    shares = {"accuracy": predicted == truth}
    mean_metrics = weighted_metrics.make_weighted_means(
        {**shares, "mae": np.abs(predicted - truth), "log_loss": log_losses(truth, probabilities)}
    )
    confusion_counts = weighted_metrics.make_weighted_counts(truth * classes + predicted, classes**2)
    ranks = np.arange(classes)
    squared_distances = (ranks[:, None] - ranks) ** 2
    rank_correlation = _make_rank_correlation(truth, probabilities.astype(np.float64) @ ranks)

    def compute(weights: np.ndarray) -> MetricSamples:
        counts = confusion_counts(weights).reshape(classes, classes, -1)
        by_chance = divide(counts.sum(axis=1)[:, None] * counts.sum(axis=0), weights.sum(axis=0))
        observed, expected = (np.tensordot(squared_distances, each, 2) for each in (counts, by_chance))
        return {
            **mean_metrics(weights),
            "quadratic_kappa": subtract_metrics(1.0, divide(observed, expected)),
            "spearman": rank_correlation(weights),
        }

    return WeightedMetrics(compute, shares, undefined=_UNDEFINED, info=METRICS)


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Compute Spearman's rank correlation with mean ranks for ties; None where one of the two does not vary."""
    value = float(_make_rank_correlation(first, second)(np.ones((len(first), 1)))[0])
    return None if np.isnan(value) else value


def _make_rank_correlation(first: np.ndarray, second: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    first_ranks, second_ranks = weighted_metrics.make_mean_ranks(first), weighted_metrics.make_mean_ranks(second)
    return lambda weights: weighted_metrics.compute_correlation(first_ranks(weights), second_ranks(weights), weights)
