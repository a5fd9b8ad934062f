"""Decisions made on validation rows after the training: temperature and threshold, with their evidence."""

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
    """A temperature, and its effect on the rows that it was fitted on.

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
        """The effect as a sentence."""
        if self.temperature == 1:
            return "Temperature 1: no other makes the log loss lower."
        direction = "less" if self.temperature > 1 else "more"
        return (
            f"Temperature {self.temperature:.3f} makes probabilities {direction} extreme: "
            f"log loss {self.losses[0]:.4f} before and {self.losses[1]:.4f} after, "
            f"calibration error {self.before.error:.4f} before and {self.after.error:.4f} after."
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "before": self.before.to_json(), "after": self.after.to_json()}


@dataclass(frozen=True)
class Decision:
    """Temperature and threshold of one target.

    Args:
        rows: Validation rows; 0 where none were needed.
        positive: The class of the threshold; empty without one.
        threshold: The chosen one; None where the recipe sets it, or the most probable class is predicted.
    """

    target: str
    rows: int
    temperature_scaling: TemperatureScaling | None = None
    positive: str = ""
    threshold: ThresholdChoice | None = None

    @property
    def summary(self) -> str:
        """The threshold as a sentence, empty if none was chosen."""
        if self.threshold is None:
            return ""
        text = f"{quoted(self.positive)} is predicted if its probability is at least {self.threshold.value:.4f}"
        return f"{text} ({self.threshold.goal}, on {self.rows:,} validation rows)"

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "temperature_scaling": self.temperature_scaling and self.temperature_scaling.to_json(),
            "threshold": self.threshold and self.threshold.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        return validate_as(cls, values)


def measure_temperature_scaling(
    column: Column, truth: np.ndarray, unscaled: np.ndarray, scaled: np.ndarray, temperature: float
) -> TemperatureScaling:
    """Measure the effect of a temperature.

    Args:
        truth: Class indices `(n,)`, or 0 and 1 `(n, labels)`.
        unscaled, scaled: Probabilities before and after, `(n, classes or labels)`.
    """
    truth = truth.astype(np.int64)
    if column.kind == "labels":
        before_and_after = [calibration.measure_labels(truth, probabilities) for probabilities in (unscaled, scaled)]
    else:
        before_and_after = [
            calibration.measure_classes(truth, probabilities, column.classes) for probabilities in (unscaled, scaled)
        ]
    independent = column.kind == "labels"
    losses = (
        calibration.compute_log_loss(truth, unscaled, independent),
        calibration.compute_log_loss(truth, scaled, independent),
    )
    return TemperatureScaling(temperature, losses, before_and_after[0], before_and_after[1])
