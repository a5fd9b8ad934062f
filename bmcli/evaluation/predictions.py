"""Predictions beside the truth, and which of them are worth a look."""

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
    """Rows with the truth and what was predicted of them.

    Args:
        name: What the rows are: a split's name, or a file's.
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
    """Rows worth a look, by their positions; each list from the most to the least.

    Args:
        wrong: The most confident errors, or the largest.
        doubtful: The least certain predictions; none if a prediction tells no certainty.
        right: The surest of the right ones, or the smallest errors.
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
    """The most wrong, most doubtful and most right rows of a target.

    A row of classes is the more wrong, the less probable its true class was, and the more doubtful, the less its two
    most probable classes differ; a row of labels goes by its mean log loss and by its label nearest to one half; a
    number by its absolute error and by the width between its outer quantiles.

    Args:
        truth, predictions: As in `Predictions`.
        max_rows: Rows of each list at most.
    """
    wrongness, doubt, right = _score_rows(column, truth, predictions.astype(np.float64), quantiles)
    by_wrongness = np.argsort(-wrongness, kind="stable")
    return Examples(
        wrong=_first(by_wrongness[~right[by_wrongness]], max_rows),
        least_confident=() if doubt is None else _first(np.argsort(-doubt, kind="stable"), max_rows),
        correct=_first(by_wrongness[::-1][right[by_wrongness[::-1]]], max_rows),
    )


def compute_confidence(column: Column, predictions: np.ndarray) -> np.ndarray | None:
    """How probable what is predicted is, `(n,)`: of labels the least sure one; None for a number."""
    if not column.classes:
        return None
    if column.kind == "labels":
        return np.maximum(predictions, 1 - predictions).min(axis=1)
    point = target_kinds.kind_of(column).predict_point(predictions, column)
    return np.take_along_axis(predictions, point[:, None], axis=1)[:, 0]


def format_target(column: Column, value: np.ndarray) -> str:
    """A decoded target, or a point prediction, for a reader."""
    if not column.classes:
        return f"{float(value):.5g}"
    if np.ndim(value):
        return ", ".join(name for name, there in zip(column.classes, value, strict=True) if there) or "none"
    return column.classes[int(value)]


def predict_points(column: Column, predictions: np.ndarray, quantiles: tuple[float, ...] = NO_QUANTILES) -> np.ndarray:
    """One answer a row, in the form of the truth."""
    if quantiles:
        return predictions[:, find_median_index(quantiles)]
    return target_kinds.kind_of(column).predict_point(predictions, column)


def _score_rows(
    column: Column, truth: np.ndarray, predictions: np.ndarray, quantiles: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """How wrong and how doubtful each row is, and whether it is right."""
    point = predict_points(column, predictions, quantiles)
    if not column.classes:
        errors = np.abs(point - truth)
        width = predictions[:, -1] - predictions[:, 0] if len(quantiles) > 1 else None
        return errors, width, errors <= np.median(errors)
    if column.kind == "labels":
        own = np.where(truth, predictions, 1 - predictions)
        losses = -np.log(np.clip(own, 1e-12, 1)).mean(axis=1)
        return losses, -np.abs(predictions - 0.5).min(axis=1), (point == truth).all(axis=1)
    own = np.take_along_axis(predictions, truth[:, None], axis=1)[:, 0]
    two = np.sort(predictions, axis=1)[:, -2:]
    return -own, two[:, 0] - two[:, 1], point == truth


def _first(rows: np.ndarray, max_rows: int) -> tuple[int, ...]:
    return tuple(int(row) for row in rows[:max_rows])
