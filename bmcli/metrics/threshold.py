"""Decision thresholds: the probability from which the positive one of two classes is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmcli.number_texts import write_number
from bmcli.records import validate_as

_POINTS = 200


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold, and the metrics of other thresholds on the same rows.

    Args:
        value: From 0 to 1; a row with at least this probability is predicted to be of the class.
        goal: The goal of the choice and the value it reached, in words.
        goal_reached: False if no threshold reaches the required precision.
        thresholds: Some of the candidates, ascending.
        curves: Metrics of each of them, by name.
    """

    value: float
    goal: str
    goal_reached: bool = True
    thresholds: tuple[float, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        curves = {name: list(values) for name, values in self.curves.items()}
        return {**vars(self), "thresholds": list(self.thresholds), "curves": curves}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ThresholdChoice:
        return validate_as(cls, values)


@dataclass(frozen=True)
class _ThresholdCuts:
    """All candidate thresholds, from the highest: thresholds and counts, `(cuts,)` each."""

    values: np.ndarray
    hits: np.ndarray
    false: np.ndarray
    positives: int

    @property
    def precision(self) -> np.ndarray:
        return np.asarray(self.hits / np.maximum(self.hits + self.false, 1))

    @property
    def recall(self) -> np.ndarray:
        return np.asarray(self.hits / max(self.positives, 1))

    def choose(
        self, index: int, goal: str, curves: Mapping[str, np.ndarray], goal_reached: bool = True
    ) -> ThresholdChoice:
        """Make the choice of one candidate, with the curves of some others."""
        # Cuts descend in probability; the record has thresholds in ascending order.
        selected = np.unique(np.linspace(0, len(self.values) - 1, min(len(self.values), _POINTS)).astype(int))[::-1]
        return ThresholdChoice(
            float(self.values[index]),
            goal,
            goal_reached,
            tuple(self.values[selected].tolist()),
            {name: tuple(values[selected].astype(np.float64).tolist()) for name, values in curves.items()},
        )

    def precision_and_recall(self) -> dict[str, np.ndarray]:
        return {"precision": self.precision, "recall": self.recall}


def maximize_f1(positive: np.ndarray, scores: np.ndarray) -> ThresholdChoice:
    """Choose the threshold with the best F1.

    Args:
        positive: bool `(n,)`.
        scores: Probabilities, `(n,)`.
    """
    cuts = _find_cuts(positive, scores)
    f1 = 2 * cuts.hits / np.maximum(cuts.hits + cuts.false + cuts.positives, 1)
    index = int(f1.argmax())
    return cuts.choose(index, f"the best F1, {f1[index]:.4f}", {"F1": f1, **cuts.precision_and_recall()})


def minimize_cost(
    positive: np.ndarray, scores: np.ndarray, false_positive: float, false_negative: float
) -> ThresholdChoice:
    """Choose the threshold with the lowest cost of errors.

    Args:
        false_positive, false_negative: Cost of one such error.
    """
    cuts = _find_cuts(positive, scores)
    cost = (false_positive * cuts.false + false_negative * (cuts.positives - cuts.hits)) / len(scores)
    index = int(cost.argmin())
    return cuts.choose(index, f"the lowest cost, {write_number(cost[index])} per row", {"cost per row": cost})


def maximize_recall(positive: np.ndarray, scores: np.ndarray, precision: float) -> ThresholdChoice:
    """Choose the threshold with the highest recall at a precision, or with the highest precision if none reaches it."""
    cuts = _find_cuts(positive, scores)
    is_precise = (cuts.precision >= precision) & (cuts.hits > 0)
    if is_precise.any():
        index = int(np.where(is_precise, cuts.recall, -1.0).argmax())
        return cuts.choose(
            index, f"recall {cuts.recall[index]:.4f} at a precision of {precision:g}", cuts.precision_and_recall()
        )
    index = int(np.where(cuts.hits > 0, cuts.precision, -1.0).argmax())
    goal = f"a precision of {precision:g}, which none reaches; the highest is {cuts.precision[index]:.4f}"
    return cuts.choose(index, goal, cuts.precision_and_recall(), goal_reached=False)


def _find_cuts(positive: np.ndarray, scores: np.ndarray) -> _ThresholdCuts:
    """Find all cuts between distinct scores; a cut lies midway between two, so that rounding does not move a row."""
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order])[ends]
    lower = np.append(ranked[ends[1:]], 0.0)
    return _ThresholdCuts((ranked[ends] + lower) / 2, hits, ends + 1 - hits, int(positive.sum()))
