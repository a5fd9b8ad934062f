"""Predictions with the true targets, and the selection of examples for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bmcli.data import targets as target_kinds
from bmcli.objectives import find_median_index
from bmcli.specs import Column, Split

NO_QUANTILES: tuple[float, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """Rows with true and predicted targets.

    Args:
        name: Of the split or the file of the rows.
        rows: Encoded.
        truth: By target, decoded: class indices `(n,)`, 0 and 1 by label `(n, labels)`, or numbers `(n,)`.
        predictions: By target: probabilities `(n, classes)`, numbers `(n,)`, or quantiles `(n, quantiles)`.
    """

    name: str
    rows: Split
    truth: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Examples:
    """Selected examples, by their positions; each list from the most to the least extreme.

    Args:
        wrong: The most confident errors; of a number the largest errors.
        least_confident: The least confident predictions; none if predictions have no confidence.
        correct: The most confident correct predictions; of a number the smallest errors.
    """

    wrong: tuple[int, ...]
    least_confident: tuple[int, ...]
    correct: tuple[int, ...]


def find_examples(
    column: Column,
    truth: np.ndarray,
    predictions: np.ndarray,
    max_rows: int,
    quantiles: tuple[float, ...] = NO_QUANTILES,
) -> Examples:
    """Find the most wrong, least confident and most confident correct rows of a target.

    Errors are ordered by the probability of the true class, for labels by the mean log loss, for numbers by the
    absolute error. Confidence is the margin between the two most probable classes, for labels the distance of the
    nearest probability from one half, for numbers the width between the outer quantiles.

    Args:
        truth, predictions: As in `Predictions`.
        max_rows: Maximum number of rows of each list.
    """
    error, uncertainty, is_correct = _score_rows(column, truth, predictions.astype(np.float64), quantiles)
    by_error = np.argsort(-error, kind="stable")
    return Examples(
        wrong=_take_first(by_error[~is_correct[by_error]], max_rows),
        least_confident=() if uncertainty is None else _take_first(np.argsort(-uncertainty, kind="stable"), max_rows),
        correct=_take_first(by_error[::-1][is_correct[by_error[::-1]]], max_rows),
    )


def compute_confidence(column: Column, predictions: np.ndarray) -> np.ndarray | None:
    """Compute the probability of each prediction, `(n,)`; of labels the lowest one; None for a number."""
    if not column.classes:
        return None
    if column.kind == "labels":
        return np.maximum(predictions, 1 - predictions).min(axis=1)
    classes = target_kinds.kind_of(column).predict_point(predictions, column)
    return np.take_along_axis(predictions, classes[:, None], axis=1)[:, 0]


def format_target(column: Column, value: np.ndarray) -> str:
    """Format a decoded target or a point prediction."""
    if not column.classes:
        return f"{float(value):.5g}"
    if np.ndim(value):
        return ", ".join(name for name, is_present in zip(column.classes, value, strict=True) if is_present) or "none"
    return column.classes[int(value)]


def predict_points(column: Column, predictions: np.ndarray, quantiles: tuple[float, ...] = NO_QUANTILES) -> np.ndarray:
    """Compute point predictions, in the form of the truth."""
    if quantiles:
        return predictions[:, find_median_index(quantiles)]
    return target_kinds.kind_of(column).predict_point(predictions, column)


def _score_rows(
    column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Score the error and the uncertainty of each row, and whether it is correct; no uncertainty for a plain number."""
    point = predict_points(column, predictions, quantiles)
    if not column.classes:
        errors = np.abs(point - truth)
        width = predictions[:, -1] - predictions[:, 0] if len(quantiles) > 1 else None
        return errors, width, errors <= np.median(errors)
    if column.kind == "labels":
        true_probabilities = np.where(truth, predictions, 1 - predictions)
        losses = -np.log(np.clip(true_probabilities, 1e-12, 1)).mean(axis=1)
        return losses, -np.abs(predictions - 0.5).min(axis=1), (point == truth).all(axis=1)
    true_probabilities = np.take_along_axis(predictions, truth[:, None], axis=1)[:, 0]
    top_two = np.sort(predictions, axis=1)[:, -2:]
    return -true_probabilities, top_two[:, 0] - top_two[:, 1], point == truth


def _take_first(rows: np.ndarray, max_rows: int) -> tuple[int, ...]:
    return tuple(int(row) for row in rows[:max_rows])
