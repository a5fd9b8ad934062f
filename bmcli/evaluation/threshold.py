"""The probability from which on the second of two classes is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmcli.records import validate_as

_POINTS = 200


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and what the rows that chose it show.

    Args:
        value: From 0 to 1; a row with this probability or more is predicted to be of the class.
        goal: What it was chosen for, in words, with what was reached.
        met: Whether the goal was reached, which a precision may not be.
        thresholds: Some of those that were tried, ascending.
        curves: What each of them shows, by name.
    """

    value: float
    goal: str
    met: bool = True
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
    """Every way to cut the rows, from the highest probability on: counts `(cuts,)`."""

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

    def choose(self, place: int, goal: str, curves: Mapping[str, np.ndarray], met: bool = True) -> ThresholdChoice:
        """The cut at a place, with some of the others."""
        shown = np.unique(np.linspace(0, len(self.values) - 1, min(len(self.values), _POINTS)).astype(int))[::-1]
        return ThresholdChoice(
            float(self.values[place]),
            goal,
            met,
            tuple(self.values[shown].tolist()),
            {name: tuple(values[shown].astype(np.float64).tolist()) for name, values in curves.items()},
        )

    def precision_and_recall(self) -> dict[str, np.ndarray]:
        return {"precision": self.precision, "recall": self.recall}


def maximize_f1(positive: np.ndarray, scores: np.ndarray) -> ThresholdChoice:
    """The threshold with the best F1.

    Args:
        positive: bool `(n,)`.
        scores: Probabilities, `(n,)`.
    """
    cuts = _find_cuts(positive, scores)
    f1 = 2 * cuts.hits / np.maximum(cuts.hits + cuts.false + cuts.positives, 1)
    place = int(f1.argmax())
    return cuts.choose(place, f"the best F1, {f1[place]:.4f}", {"F1": f1, **cuts.precision_and_recall()})


def minimize_cost(
    positive: np.ndarray, scores: np.ndarray, false_positive: float, false_negative: float
) -> ThresholdChoice:
    """The threshold with the lowest cost of errors.

    Args:
        false_positive, false_negative: Cost of one.
    """
    cuts = _find_cuts(positive, scores)
    cost = (false_positive * cuts.false + false_negative * (cuts.positives - cuts.hits)) / len(scores)
    place = int(cost.argmin())
    return cuts.choose(place, f"the lowest cost, {cost[place]:.4g} a row", {"cost a row": cost})


def maximize_recall(positive: np.ndarray, scores: np.ndarray, precision: float) -> ThresholdChoice:
    """The threshold with the most recall among those that keep a precision, or with the most precision if none does."""
    cuts = _find_cuts(positive, scores)
    kept = (cuts.precision >= precision) & (cuts.hits > 0)
    if kept.any():
        place = int(np.where(kept, cuts.recall, -1.0).argmax())
        return cuts.choose(
            place, f"recall {cuts.recall[place]:.4f} at a precision of {precision:g}", cuts.precision_and_recall()
        )
    place = int(np.where(cuts.hits > 0, cuts.precision, -1.0).argmax())
    reached = f"a precision of {precision:g}, which none reaches; the highest is {cuts.precision[place]:.4f}"
    return cuts.choose(place, reached, cuts.precision_and_recall(), met=False)


def _find_cuts(positive: np.ndarray, scores: np.ndarray) -> _ThresholdCuts:
    """Rows of one score are on one side. A cut lies midway to the next lower score, so that no rounding moves a row."""
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order])[ends]
    lower = np.append(ranked[ends[1:]], 0.0)
    return _ThresholdCuts((ranked[ends] + lower) / 2, hits, ends + 1 - hits, int(positive.sum()))
