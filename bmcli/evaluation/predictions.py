"""Predictions with the true targets, and the selection of examples for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bmcli.answers import Answers
from bmcli.specs import Split


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


def find_examples(answers: Answers, truth: np.ndarray, predictions: np.ndarray, max_rows: int) -> Examples:
    """Find the most wrong, least confident and most confident correct rows of an output, by `Answers.score_rows`.

    Args:
        max_rows: Maximum number of rows of each list.
    """
    errors, uncertainties, is_correct = answers.score_rows(truth, predictions.astype(np.float64))
    by_error = np.argsort(-errors, kind="stable")
    return Examples(
        wrong=_take_first(by_error[~is_correct[by_error]], max_rows),
        least_confident=()
        if uncertainties is None
        else _take_first(np.argsort(-uncertainties, kind="stable"), max_rows),
        correct=_take_first(by_error[::-1][is_correct[by_error[::-1]]], max_rows),
    )


def _take_first(rows: np.ndarray, max_rows: int) -> tuple[int, ...]:
    return tuple(int(row) for row in rows[:max_rows])
