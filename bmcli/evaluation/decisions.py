"""What was decided on validation rows once a network was trained, and what it was decided by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmcli.evaluation import calibration
from bmcli.evaluation.calibration import Calibration
from bmcli.evaluation.threshold import ThresholdChoice
from bmcli.quoting import quoted
from bmcli.records import validate_as
from bmcli.specs import Column


@dataclass(frozen=True)
class TemperatureScaling:
    """A temperature, and what it changes on the rows that it was fitted on.

    Args:
        losses: Mean log loss before and after.
        before, after: Calibration.
    """

    temperature: float
    losses: tuple[float, float]
    before: Calibration
    after: Calibration

    @property
    def summary(self) -> str:
        """What it changes, as a sentence."""
        if self.temperature == 1:
            return "Temperature 1: no other makes the log loss lower."
        way = "less" if self.temperature > 1 else "more"
        return (
            f"Temperature {self.temperature:.3f} makes probabilities {way} extreme: log loss {self.losses[0]:.4f} "
            f"before and {self.losses[1]:.4f} after, calibration error {self.before.error:.4f} and "
            f"{self.after.error:.4f}."
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "before": self.before.to_json(), "after": self.after.to_json()}


@dataclass(frozen=True)
class Decision:
    """What was decided about one target.

    Args:
        rows: Validation rows; 0 where none were needed.
        positive: The class that a threshold is of; empty without one.
        threshold: What was chosen; None where the recipe states it, or leaves it at the most probable class.
    """

    target: str
    rows: int
    softened: TemperatureScaling | None = None
    positive: str = ""
    threshold: ThresholdChoice | None = None

    @property
    def summary(self) -> str:
        """The threshold as a sentence, empty if none was chosen."""
        if self.threshold is None:
            return ""
        told = f"{quoted(self.positive)} is predicted from a probability of {self.threshold.value:.4f} on, for"
        return f"{told} {self.threshold.goal} of {self.rows:,} validation rows"

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "softened": self.softened and self.softened.to_json(),
            "threshold": self.threshold and self.threshold.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        return validate_as(cls, values)


def measure_temperature_scaling(
    column: Column, truth: np.ndarray, unscaled: np.ndarray, scaled: np.ndarray, temperature: float
) -> TemperatureScaling:
    """What a temperature changes.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 `(n, labels)`.
        unscaled, scaled: Probabilities before and after, `(n, classes or labels)`.
    """
    truth = truth.astype(np.int64)
    if column.kind == "labels":
        each = [calibration.measure_labels(truth, given) for given in (unscaled, scaled)]
    else:
        each = [calibration.measure_classes(truth, given, column.classes) for given in (unscaled, scaled)]
    independent = column.kind == "labels"
    losses = (
        calibration.compute_log_loss(truth, unscaled, independent),
        calibration.compute_log_loss(truth, scaled, independent),
    )
    return TemperatureScaling(temperature, losses, each[0], each[1])
