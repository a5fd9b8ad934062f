"""Curves of how well classes are ranked: ROC, and precision against recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmcli.evaluation.classification import compute_areas
from bmcli.specs import Column

_POINTS = 200


@dataclass(frozen=True)
class RankingCurves:
    """How well one class is ranked before the rest, at every threshold.

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


def compute_ranking_curves(column: Column, truth: np.ndarray, probabilities: np.ndarray) -> tuple[RankingCurves, ...]:
    """A ranking for each class or label that some rows have and others have not; of two classes, that of the last.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 by label `(n, labels)`.
        probabilities: `(n, classes)`.
    """
    several = truth.ndim == 2
    first = len(column.classes) - 1 if len(column.classes) == 2 and not several else 0
    found = []
    for index in range(first, len(column.classes)):
        positive = truth[:, index].astype(bool) if several else truth == index
        if positive.any() and not positive.all():
            found.append(_compute_curves(column.classes[index], positive, probabilities[:, index]))
    return tuple(found)


def _compute_curves(name: str, positive: np.ndarray, scores: np.ndarray) -> RankingCurves:
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_rates, true_rates, _ = roc_curve(positive, scores)
    precisions, recalls, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    area, average_precision = compute_areas(positive, scores)
    assert area is not None, "there are positive and negative rows"
    assert average_precision is not None
    at, to = _thin_points(false_rates, true_rates), _thin_points(recalls, precisions)
    return RankingCurves(
        name, float(positive.mean()), area, average_precision,
        false_rates[at], true_rates[at], recalls[to], precisions[to],
    )  # fmt: skip


def _thin_points(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Some of the points of a curve, evenly spread along its length; the first and last are among them."""
    if len(xs) <= _POINTS:
        return np.arange(len(xs))
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
    return np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)).clip(0, len(xs) - 1))
