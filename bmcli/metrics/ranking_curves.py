"""ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bmcli.metrics.classification import compute_areas

_POINTS = 200


@dataclass(frozen=True)
class RankingCurves:
    """ROC and precision-recall curve of one class against the rest.

    Args:
        share: Of the rows that are of the class.
        false_rates, true_rates: Of the ROC curve, from 0 to 1.
        recalls, precisions: From recall 1 to 0.
    """

    name: str
    share: float
    roc_auc: float
    average_precision: float
    false_rates: np.ndarray
    true_rates: np.ndarray
    recalls: np.ndarray
    precisions: np.ndarray


def compute_ranking_curves(
    classes: Sequence[str], truth: np.ndarray, probabilities: np.ndarray, positive: int | None
) -> tuple[RankingCurves, ...]:
    """Compute curves for each class or label that some rows have and others not, or for the positive class alone.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 by label `(n, labels)`.
        probabilities: `(n, classes)`.
        positive: Index of the positive one of two classes; None without one.
    """
    curves = []
    for index in range(len(classes)) if positive is None else (positive,):
        has_class = truth[:, index].astype(bool) if truth.ndim == 2 else truth == index
        if has_class.any() and not has_class.all():
            curves.append(_compute_curves(classes[index], has_class, probabilities[:, index]))
    return tuple(curves)


def _compute_curves(name: str, positive: np.ndarray, scores: np.ndarray) -> RankingCurves:
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_rates, true_rates, _ = roc_curve(positive, scores)
    precisions, recalls, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    area, average_precision = compute_areas(positive, scores)
    assert area is not None, "there are positive and negative rows"
    assert average_precision is not None
    roc_points, pr_points = _thin_points(false_rates, true_rates), _thin_points(recalls, precisions)
    return RankingCurves(
        name, float(positive.mean()), area, average_precision,
        false_rates[roc_points], true_rates[roc_points], recalls[pr_points], precisions[pr_points],
    )  # fmt: skip


def _thin_points(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Select points of a curve, evenly spread along its length, with the first and the last."""
    if len(xs) <= _POINTS:
        return np.arange(len(xs))
    lengths = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
    return np.unique(np.searchsorted(lengths, np.linspace(0, lengths[-1], _POINTS)).clip(0, len(xs) - 1))
