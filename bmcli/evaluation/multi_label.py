"""Figures of a target of several labels: how many are told rightly, and how well rows are ranked by each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bmcli.evaluation import calibration
from bmcli.evaluation import weighted_metrics as samples
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
    """All figures of one target of labels, as scikit-learn defines them.

    `subset_accuracy` is the share of rows whose labels are all right, `hamming_loss` the share of wrong ones among
    all labels of all rows. `f1_micro` counts all labels of all rows together, `f1_macro` is the mean over labels,
    with 0 for one that is neither there nor predicted, and `f1_samples` the mean over rows, with 1 for a row that has
    no label and gets none. `pr_auc` is the average precision. Macro areas are means over the labels that some rows
    have and others have not; without any they are undefined. `log_loss` is the mean over all labels of all rows.

    Args:
        truth, predicted: 0 and 1, `(n, labels)`, at least one row.
        probabilities: Of each label to be there, `(n, labels)`.
    """
    from sklearn.metrics import f1_score

    there, guessed = truth.astype(bool), predicted.astype(bool)
    rows = tuple(_compute_label_metrics(there, guessed, probabilities, labels))
    metrics = {
        "subset_accuracy": float((there == guessed).all(axis=1).mean()),
        "hamming_loss": float((there != guessed).mean()),
        "f1_micro": _f1(there, guessed),
        "f1_macro": float(np.mean([row.f1 or 0.0 for row in rows])),
        "f1_samples": float(f1_score(there, guessed, average="samples", zero_division=1)),
    }
    ranked = [row for row in rows if row.roc_auc is not None]
    undefined = {}
    if ranked:
        metrics["roc_auc_macro"] = float(np.mean([row.roc_auc for row in ranked]))
        metrics["pr_auc_macro"] = float(np.mean([row.pr_auc for row in ranked]))
    else:
        undefined = dict.fromkeys(("roc_auc_macro", "pr_auc_macro"), "every label is in all rows or in none.")
    _, micro = compute_areas(there.ravel(), probabilities.ravel())
    if micro is None:
        undefined["pr_auc_micro"] = "every row has all labels, or none has any."
    else:
        metrics["pr_auc_micro"] = micro
    metrics["log_loss"] = _log_loss(there, probabilities)
    metrics["brier"] = float(calibration.compute_label_brier_scores(there, probabilities).mean())
    metrics["calibration_error"] = calibration.compute_calibration_error(
        probabilities.astype(np.float64).ravel(), there.ravel()
    )
    return TargetMetrics(metrics, undefined, rows)


def _compute_label_metrics(
    there: np.ndarray, guessed: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]
) -> Iterator[ClassMetrics]:
    for index, name in enumerate(labels):
        yield compute_class_metrics(name, there[:, index], guessed[:, index], probabilities[:, index])


def _f1(there: np.ndarray, guessed: np.ndarray) -> float:
    total = int(there.sum()) + int(guessed.sum())
    return 2 * int((there & guessed).sum()) / total if total else 0.0


def _log_loss(there: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `-log(probability of what is)`, in nats; as with classes, one below 1.2e-7 counts as that."""
    return float(_log_losses(there, probabilities).mean())


def _log_losses(there: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The loss of each row, the mean over its labels, `(n,)`."""
    own = np.where(there, probabilities, 1 - probabilities.astype(np.float64))
    return np.asarray(-np.log(np.clip(own, _FLOOR, 1.0)).mean(axis=1))


def make_weighted_metrics(truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> WeightedMetrics:
    """The figures of `measure`, of samples of the rows; without areas where more labels are to be ranked than 100."""
    there, guessed = truth.astype(bool), predicted.astype(bool)
    shares = {"subset_accuracy": (there == guessed).all(axis=1)}
    own = samples.make_weighted_means(
        {
            **shares,
            "hamming_loss": (there != guessed).mean(axis=1),
            "f1_samples": _compute_row_f1(there, guessed),
            "log_loss": _log_losses(there, probabilities),
            "brier": calibration.compute_label_brier_scores(there, probabilities),
        }
    )
    rankings, left_out = _weighted_rankings(there, probabilities)
    gaps = calibration.make_weighted_gaps(probabilities.astype(np.float64), there)
    hits, marks = (there & guessed).T.astype(np.float64), (there.astype(np.float64) + guessed).T

    def compute(weights: np.ndarray) -> MetricSamples:
        found, total = 2 * hits @ weights, marks @ weights
        f1 = {
            "f1_micro": np.nan_to_num(divide(found.sum(axis=0), total.sum(axis=0))),
            "f1_macro": np.nan_to_num(divide(found, total)).mean(axis=0),
        }
        calibrated = {"calibration_error": np.abs(gaps(weights)).sum(axis=0)}
        return {**own(weights), **f1, **rankings(weights), **calibrated}

    return WeightedMetrics(compute, shares, {"calibration_error": gaps}, left_out)


def _compute_row_f1(there: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """F1 over the labels of each row, 1 for a row that has none and gets none, `(n,)`."""
    marks = there.sum(axis=1) + guessed.sum(axis=1)
    return np.where(marks == 0, 1.0, 2 * (there & guessed).sum(axis=1) / np.maximum(marks, 1))


def _weighted_rankings(
    there: np.ndarray, probabilities: np.ndarray
) -> tuple[Callable[[np.ndarray], MetricSamples], dict[str, str]]:
    labels = there.shape[1]
    if labels > MAX_RANKED_CLASSES:
        why = f"it ranks {labels} labels, which takes too long to resample beyond {MAX_RANKED_CLASSES}."
        return lambda weights: {}, dict.fromkeys(("roc_auc_macro", "pr_auc_macro", "pr_auc_micro"), why)
    each = [samples.make_weighted_areas(there[:, index], probabilities[:, index]) for index in range(labels)]
    of_row = np.repeat(np.arange(len(there)), labels)
    all_together = samples.make_weighted_areas(there.ravel(), probabilities.ravel(), of_row)

    def compute(weights: np.ndarray) -> MetricSamples:
        roc, pr = zip(*(curve(weights) for curve in each), strict=True)
        return {
            "roc_auc_macro": samples.compute_nanmean(list(roc)),
            "pr_auc_macro": samples.compute_nanmean(list(pr)),
            "pr_auc_micro": all_together(weights)[1],
        }

    return compute, {}
