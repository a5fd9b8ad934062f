"""Metrics of a target of ordered categories: accuracy, distance and correlation of ranks, log loss."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation import weighted_metrics
from bmcli.evaluation.classification import compute_metrics_by_class, confusion_matrix, log_loss, log_losses
from bmcli.evaluation.differences import subtract_metrics
from bmcli.evaluation.result import TargetMetrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide

METRIC_NAMES = ("accuracy", "mae", "quadratic_kappa", "spearman", "log_loss")


def measure(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> TargetMetrics:
    """Compute all metrics of one target of ordered categories.

    `mae` is the mean distance of the predicted rank from the true one. `quadratic_kappa` is Cohen's kappa with
    squared distances as weights (Cohen 1968): 1 for perfect agreement, 0 for agreement by chance. It is undefined
    where all rows have one category and it is predicted for all. `spearman` is the correlation of the ranks of the
    rows by truth and by expected category; undefined where one of them does not vary.

    Args:
        truth, predicted: Ranks of categories, `(n,)`, at least one row.
        probabilities: `(n, classes)`, each row adding up to 1.
    """
    matrix = confusion_matrix(truth, predicted, len(classes))
    values = {
        "accuracy": float(np.mean(predicted == truth)),
        "mae": float(np.abs(predicted - truth).mean()),
        "quadratic_kappa": _compute_quadratic_kappa(np.array(matrix)),
        "spearman": spearman(truth, probabilities.astype(np.float64) @ np.arange(len(classes))),
        "log_loss": log_loss(truth, probabilities),
    }
    reasons = {
        "quadratic_kappa": "every row has one category, and it is predicted for all.",
        "spearman": "the truth or the prediction is the same in every row.",
    }
    return TargetMetrics(
        {name: value for name, value in values.items() if value is not None},
        {name: reasons[name] for name, value in values.items() if value is None},
        compute_metrics_by_class(truth, predicted, probabilities, classes),
        matrix,
    )


def make_weighted_metrics(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows."""
    classes = probabilities.shape[1]
    shares = {"accuracy": predicted == truth}
    mean_metrics = weighted_metrics.make_weighted_means(
        {**shares, "mae": np.abs(predicted - truth), "log_loss": log_losses(truth, probabilities)}
    )
    confusion_counts = weighted_metrics.make_weighted_counts(truth * classes + predicted, classes**2)
    distances = _compute_squared_distances(classes)
    truth_ranks = weighted_metrics.make_mean_ranks(truth)
    expected_ranks = weighted_metrics.make_mean_ranks(probabilities.astype(np.float64) @ np.arange(classes))

    def compute(weights: np.ndarray) -> MetricSamples:
        counts = confusion_counts(weights).reshape(classes, classes, -1)
        by_chance = divide(counts.sum(axis=1)[:, None] * counts.sum(axis=0), weights.sum(axis=0))
        observed, expected = (np.tensordot(distances, each, 2) for each in (counts, by_chance))
        return {
            **mean_metrics(weights),
            "quadratic_kappa": subtract_metrics(1.0, divide(observed, expected)),
            "spearman": weighted_metrics.compute_correlation(truth_ranks(weights), expected_ranks(weights), weights),
        }

    return WeightedMetrics(compute, shares)


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Compute Spearman's rank correlation with mean ranks for ties; None where one of the two does not vary."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_compute_mean_ranks(first), _compute_mean_ranks(second))[0, 1])


def _compute_mean_ranks(values: np.ndarray) -> np.ndarray:
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[indices]


def _compute_quadratic_kappa(matrix: np.ndarray) -> float | None:
    """Compute 1 minus the ratio of observed squared distances to those expected by chance."""
    distances = _compute_squared_distances(len(matrix))
    by_chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    expected = float((distances * by_chance).sum())
    return None if expected == 0 else float(subtract_metrics(1.0, float((distances * matrix).sum()) / expected))


def _compute_squared_distances(classes: int) -> np.ndarray:
    ranks = np.arange(classes)
    return np.asarray((ranks[:, None] - ranks) ** 2)
