"""Metrics of a multi-label target: accuracy, F1, ranking, log loss and calibration."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from bmcli.metrics import calibration, weighted_metrics
from bmcli.metrics.classification import make_mean_areas, make_weighted_rankings
from bmcli.metrics.info import ERROR, ERROR_SHARE, SHARE
from bmcli.metrics.weighted_metrics import MetricSamples, WeightedMetrics, divide

_FLOOR = float(np.finfo(np.float32).eps)

METRICS = {
    "subset_accuracy": SHARE,
    "hamming_loss": ERROR_SHARE,
    "f1_micro": SHARE,
    "f1_macro": SHARE,
    "f1_samples": SHARE,
    "roc_auc_macro": SHARE,
    "pr_auc_macro": SHARE,
    "pr_auc_micro": SHARE,
    "log_loss": ERROR,
    "brier": ERROR_SHARE,
    "calibration_error": ERROR_SHARE,
}

_RANKING_METRICS = ("roc_auc_macro", "pr_auc_macro", "pr_auc_micro")
_UNDEFINED = {
    **dict.fromkeys(("roc_auc_macro", "pr_auc_macro"), "every label is in all rows or in none."),
    "pr_auc_micro": "every row has all labels, or none has any.",
}


def _compute_row_losses(is_label: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the mean negative log-likelihood of the labels of each row, in nats, `(n,)`.

    As with classes, a probability is at least 1.2e-7.
    """
    true_probabilities = np.where(is_label, probabilities, 1 - probabilities.astype(np.float64))
    return np.asarray(-np.log(np.clip(true_probabilities, _FLOOR, 1.0)).mean(axis=1))


def make_weighted_metrics(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    """Make all metrics of one multi-label target, as scikit-learn defines them.

    `subset_accuracy` is the share of rows whose labels are all right, `hamming_loss` the share of wrong ones among
    all labels of all rows. `f1_micro` counts all labels of all rows together, `f1_macro` is the mean over labels,
    with 0 for one that neither occurs nor is predicted, and `f1_samples` the mean over rows, with 1 for a row that has
    no label and is predicted to have none. `pr_auc` is the average precision. Macro areas are means over the labels
    with positive and negative rows; without any they are undefined. Areas beyond 100 labels are not resampled.
    `log_loss` is the mean over all labels of all rows.

    Args:
        truth, predicted: 0 and 1, `(n, labels)`, at least one row.
        probabilities: Of each label, `(n, labels)`.
    """
    is_label, is_predicted = truth.astype(bool), predicted.astype(bool)
    shares = {"subset_accuracy": (is_label == is_predicted).all(axis=1)}
    mean_metrics = weighted_metrics.make_weighted_means(
        {
            **shares,
            "hamming_loss": (is_label != is_predicted).mean(axis=1),
            "f1_samples": _compute_row_f1(is_label, is_predicted),
            "log_loss": _compute_row_losses(is_label, probabilities),
            "brier": calibration.compute_label_brier_scores(is_label, probabilities),
        }
    )
    rankings = _make_weighted_rankings(is_label, probabilities)
    gaps = calibration.make_weighted_gaps(probabilities.astype(np.float64), is_label)
    hits, label_sums = (is_label & is_predicted).T.astype(np.float64), (is_label.astype(np.float64) + is_predicted).T

    def compute(weights: np.ndarray) -> MetricSamples:
        f1_terms, label_counts = 2 * hits @ weights, label_sums @ weights
        f1 = {
            "f1_micro": np.nan_to_num(divide(f1_terms.sum(axis=0), label_counts.sum(axis=0))),
            "f1_macro": np.nan_to_num(divide(f1_terms, label_counts)).mean(axis=0),
        }
        calibration_error = {"calibration_error": np.abs(gaps(weights)).sum(axis=0)}
        return {**mean_metrics(weights), **f1, **rankings.compute(weights), **calibration_error}

    return WeightedMetrics(
        compute, shares, {"calibration_error": gaps}, rankings.left_out, rankings.compute_left_out, _UNDEFINED, METRICS
    )


def _compute_row_f1(is_label: np.ndarray, is_predicted: np.ndarray) -> np.ndarray:
    """Compute F1 over the labels of each row, 1 for a row without true and predicted labels, `(n,)`."""
    label_sums = is_label.sum(axis=1) + is_predicted.sum(axis=1)
    return np.where(label_sums == 0, 1.0, 2 * (is_label & is_predicted).sum(axis=1) / np.maximum(label_sums, 1))


def _make_weighted_rankings(is_label: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    labels = is_label.shape[1]
    macro_areas = make_mean_areas(is_label, probabilities, range(labels))

    @cache
    def make_micro_areas() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        own_rows = np.repeat(np.arange(len(is_label)), labels)
        return weighted_metrics.make_weighted_areas(is_label.ravel(), probabilities.ravel(), own_rows)

    return make_weighted_rankings(
        _RANKING_METRICS, labels, "labels", lambda weights: (*macro_areas(weights), make_micro_areas()(weights)[1])
    )
