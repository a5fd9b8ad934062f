"""Metrics of a multi-label target: accuracy, F1, ranking, log loss and calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bmcli.evaluation import calibration, weighted_metrics
from bmcli.evaluation.classification import MAX_RANKED_CLASSES, compute_areas, compute_class_metrics
from bmcli.evaluation.result import ClassMetrics, TargetMetrics
from bmcli.evaluation.weighted_metrics import MetricSamples, WeightedMetrics, divide

_FLOOR = float(np.finfo(np.float32).eps)

METRIC_NAMES = (
    "subset_accuracy",
    "hamming_loss",
    "f1_micro",
    "f1_macro",
    "f1_samples",
    "roc_auc_macro",
    "pr_auc_macro",
    "pr_auc_micro",
    "log_loss",
    "brier",
    "calibration_error",
)


def measure(
    truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]
) -> TargetMetrics:
    """Compute all metrics of one multi-label target, as scikit-learn defines them.

    `subset_accuracy` is the share of rows whose labels are all right, `hamming_loss` the share of wrong ones among
    all labels of all rows. `f1_micro` counts all labels of all rows together, `f1_macro` is the mean over labels,
    with 0 for one that neither occurs nor is predicted, and `f1_samples` the mean over rows, with 1 for a row that has
    no label and is predicted to have none. `pr_auc` is the average precision. Macro areas are means over the labels
    with positive and negative rows; without any they are undefined. `log_loss` is the mean over all labels of all rows.

    Args:
        truth, predicted: 0 and 1, `(n, labels)`, at least one row.
        probabilities: Of each label, `(n, labels)`.
    """
    from sklearn.metrics import f1_score

    is_label, is_predicted = truth.astype(bool), predicted.astype(bool)
    rows = tuple(_compute_label_metrics(is_label, is_predicted, probabilities, labels))
    metrics = {
        "subset_accuracy": float((is_label == is_predicted).all(axis=1).mean()),
        "hamming_loss": float((is_label != is_predicted).mean()),
        "f1_micro": _compute_f1(is_label, is_predicted),
        "f1_macro": float(np.mean([row.f1 or 0.0 for row in rows])),
        "f1_samples": float(f1_score(is_label, is_predicted, average="samples", zero_division=1)),
    }
    ranked = [row for row in rows if row.roc_auc is not None]
    undefined = {}
    if ranked:
        metrics["roc_auc_macro"] = float(np.mean([row.roc_auc for row in ranked]))
        metrics["pr_auc_macro"] = float(np.mean([row.pr_auc for row in ranked]))
    else:
        undefined = dict.fromkeys(("roc_auc_macro", "pr_auc_macro"), "every label is in all rows or in none.")
    _, micro = compute_areas(is_label.ravel(), probabilities.ravel())
    if micro is None:
        undefined["pr_auc_micro"] = "every row has all labels, or none has any."
    else:
        metrics["pr_auc_micro"] = micro
    metrics["log_loss"] = _compute_log_loss(is_label, probabilities)
    metrics["brier"] = float(calibration.compute_label_brier_scores(is_label, probabilities).mean())
    metrics["calibration_error"] = calibration.compute_calibration_error(
        probabilities.astype(np.float64).ravel(), is_label.ravel()
    )
    return TargetMetrics(metrics, undefined, rows)


def _compute_label_metrics(
    is_label: np.ndarray, is_predicted: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]
) -> Iterator[ClassMetrics]:
    for index, name in enumerate(labels):
        yield compute_class_metrics(name, is_label[:, index], is_predicted[:, index], probabilities[:, index])


def _compute_f1(is_label: np.ndarray, is_predicted: np.ndarray) -> float:
    total = int(is_label.sum()) + int(is_predicted.sum())
    return 2 * int((is_label & is_predicted).sum()) / total if total else 0.0


def _compute_log_loss(is_label: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the mean negative log-likelihood, in nats; as with classes, a probability is at least 1.2e-7."""
    return float(_compute_row_losses(is_label, probabilities).mean())


def _compute_row_losses(is_label: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the loss of each row, the mean over its labels, `(n,)`."""
    true_probabilities = np.where(is_label, probabilities, 1 - probabilities.astype(np.float64))
    return np.asarray(-np.log(np.clip(true_probabilities, _FLOOR, 1.0)).mean(axis=1))


def make_weighted_metrics(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    """Make the metrics of `measure` for samples of the rows, without ranking areas beyond 100 labels."""
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
    rankings, left_out = _make_weighted_rankings(is_label, probabilities)
    gaps = calibration.make_weighted_gaps(probabilities.astype(np.float64), is_label)
    hits, label_sums = (is_label & is_predicted).T.astype(np.float64), (is_label.astype(np.float64) + is_predicted).T

    def compute(weights: np.ndarray) -> MetricSamples:
        f1_terms, label_counts = 2 * hits @ weights, label_sums @ weights
        f1 = {
            "f1_micro": np.nan_to_num(divide(f1_terms.sum(axis=0), label_counts.sum(axis=0))),
            "f1_macro": np.nan_to_num(divide(f1_terms, label_counts)).mean(axis=0),
        }
        calibration_error = {"calibration_error": np.abs(gaps(weights)).sum(axis=0)}
        return {**mean_metrics(weights), **f1, **rankings(weights), **calibration_error}

    return WeightedMetrics(compute, shares, {"calibration_error": gaps}, left_out)


def _compute_row_f1(is_label: np.ndarray, is_predicted: np.ndarray) -> np.ndarray:
    """Compute F1 over the labels of each row, 1 for a row without true and predicted labels, `(n,)`."""
    label_sums = is_label.sum(axis=1) + is_predicted.sum(axis=1)
    return np.where(label_sums == 0, 1.0, 2 * (is_label & is_predicted).sum(axis=1) / np.maximum(label_sums, 1))


def _make_weighted_rankings(
    is_label: np.ndarray, probabilities: np.ndarray
) -> tuple[Callable[[np.ndarray], MetricSamples], dict[str, str]]:
    labels = is_label.shape[1]
    if labels > MAX_RANKED_CLASSES:
        reason = f"it ranks {labels} labels, which takes too long to resample beyond {MAX_RANKED_CLASSES}."
        return lambda weights: {}, dict.fromkeys(("roc_auc_macro", "pr_auc_macro", "pr_auc_micro"), reason)
    area_functions = [
        weighted_metrics.make_weighted_areas(is_label[:, index], probabilities[:, index]) for index in range(labels)
    ]
    of_row = np.repeat(np.arange(len(is_label)), labels)
    micro_areas = weighted_metrics.make_weighted_areas(is_label.ravel(), probabilities.ravel(), of_row)

    def compute(weights: np.ndarray) -> MetricSamples:
        roc, pr = zip(*(areas(weights) for areas in area_functions), strict=True)
        return {
            "roc_auc_macro": weighted_metrics.compute_nanmean(list(roc)),
            "pr_auc_macro": weighted_metrics.compute_nanmean(list(pr)),
            "pr_auc_micro": micro_areas(weights)[1],
        }

    return compute, {}
