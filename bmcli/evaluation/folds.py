"""What cross-validation found: each fold, mean and spread over them, and all rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation.proportions import LEVEL
from bmcli.evaluation.result import Evaluation
from bmcli.records import validate_as


@dataclass(frozen=True)
class FoldResult:
    """One training and what it was tested on.

    Args:
        trained, tested: Rows.
        metrics: On the tested rows.
    """

    number: int
    trained: int
    tested: int
    metrics: Mapping[str, float]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class FoldMean:
    """A metric over the folds.

    Args:
        mean, spread: Of the folds, the spread as standard deviation with one degree of freedom less.
        low, high: 95 % interval of the mean.
        folds: In which the metric is defined.
    """

    mean: float
    spread: float
    low: float
    high: float
    folds: int


@dataclass(frozen=True)
class CrossValidationResult:
    """A cross-validation.

    Args:
        dealt: How rows came to their folds, in words.
        means: By metric, of those that two folds or more define.
        method: Of the intervals of the means.
        together: Of all rows that were tested, each by the network that had not seen it.
    """

    dealt: str
    folds: tuple[FoldResult, ...]
    means: Mapping[str, FoldMean]
    method: str
    together: Evaluation

    def to_json(self) -> dict[str, Any]:
        return {
            "dealt": self.dealt,
            "folds": [{**vars(fold), "metrics": dict(fold.metrics)} for fold in self.folds],
            "means": {name: vars(mean) for name, mean in self.means.items()},
            "method": self.method,
            "together": self.together.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CrossValidationResult:
        return validate_as(cls, values)


def summarize_folds(dealt: str, folds: Sequence[FoldResult], together: Evaluation) -> CrossValidationResult:
    """Mean and spread of every metric over folds."""
    named = dict.fromkeys(name for fold in folds for name in fold.metrics)
    values = {name: [fold.metrics[name] for fold in folds if name in fold.metrics] for name in named}
    ratio = float(np.mean([fold.tested / fold.trained for fold in folds]))
    return CrossValidationResult(
        dealt=dealt,
        folds=tuple(folds),
        means={name: average_folds(found, ratio) for name, found in values.items() if len(found) > 1},
        method="t interval of the folds, corrected for the rows that their trainings share (Nadeau and Bengio 2003)",
        together=together,
    )


def average_folds(values: Sequence[float], ratio: float, level: float = LEVEL) -> FoldMean:
    """Mean and spread of a metric over folds.

    Folds are no independent samples, because most of their training rows are the same: the variance of the mean is not
    `1 / k` of that of the folds, but about `1 / k` and the ratio of tested to training rows together (Nadeau and
    Bengio 2003, section 3).

    Args:
        ratio: Tested rows for each training row.
    """
    from scipy.special import stdtrit

    middle, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2)) * spread * float(np.sqrt(1 / len(values) + ratio))
    return FoldMean(middle, spread, middle - reach, middle + reach, len(values))
