"""Decisions made on validation rows after the training: temperature and threshold, with their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmcli.metrics.calibration import Calibration
from bmcli.metrics.threshold import ThresholdChoice
from bmcli.quoting import quoted
from bmcli.records import validate_as
from bmcli.specs import OutputSpec


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


@dataclass(frozen=True)
class CalibratedOutput:
    """An output with what was decided after training.

    Args:
        output: With the decided values in its state.
        messages: What was decided, as sentences.
    """

    output: OutputSpec
    decision: Decision
    messages: tuple[str, ...] = ()
