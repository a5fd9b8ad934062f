"""How far a training is, and what wants to know it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from bmcli.messages import format_duration


@dataclass
class TrainingProgress:
    """All that changes while training, beside the variables."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the next one
    step: int = 0  # optimizer steps in all
    examples: int = 0  # examples in all
    train_s: float = 0.0
    epoch_s: float = 0.0
    averaged: int = 0  # the last epoch that hooks followed, such as averages of weights
    best: float | None = None
    selected_epoch: int | None = None
    waited: int = 0  # epochs since the last improvement
    overfitted: int = 0  # epochs in a row that learned the training rows alone
    row: dict[str, Any] = field(default_factory=dict)  # the selected epoch's
    last: dict[str, Any] = field(default_factory=dict)  # the last epoch's
    ended_by: str | None = None


@dataclass(frozen=True)
class ProgressUpdate:
    """Where a training is, for a progress display.

    Args:
        epoch: Counts from 1.
        step, steps: Done and to do in this epoch.
        loss: Mean over the epoch so far.
        examples_per_second: Of training alone, over the last call.
        seconds_left: For all epochs, if none stops early.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    examples_per_second: float
    seconds_left: float


class ProgressCallback(Protocol):
    """Follows a training, for instance to display it."""

    def on_progress(self, update: ProgressUpdate) -> None: ...

    def epoch(self, row: Mapping[str, Any], selected: bool) -> None: ...

    def note(self, text: str) -> None: ...


class LineProgress:
    """Writes a line for each epoch, and one for the state of a long epoch from time to time.

    Args:
        log: Writes a line.
    """

    INTERVAL_S = 30.0

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._logged_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def on_progress(self, update: ProgressUpdate) -> None:
        if time.monotonic() - self._logged_at > self.INTERVAL_S:
            self._logged_at = time.monotonic()
            self._log(format_update(update))

    def epoch(self, row: Mapping[str, Any], selected: bool) -> None:
        self._logged_at = time.monotonic()
        self._log(format_epoch(row, selected))

    def note(self, text: str) -> None:
        self._log(text)


def format_update(update: ProgressUpdate) -> str:
    return (
        f"epoch {update.epoch}/{update.epochs}  step {update.step}/{update.steps}  loss {update.loss:.4f}  "
        f"{update.examples_per_second:,.0f} examples/s  {format_duration(update.seconds_left)} left"
    )


def format_epoch(row: Mapping[str, Any], selected: bool) -> str:
    """Format the metrics of an epoch; a star marks the best epoch so far."""
    metrics = "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} -" for name, value in row.items() if "/" in name
    )
    return (
        f"epoch {row['epoch']:>3}  {metrics}  {row['examples_per_second']:,.0f} examples/s{'  *' if selected else ''}"
    )


StopCondition = Callable[[Mapping[str, Any]], str | None]
"""Called after each epoch with its row of metrics: one word on why the training should end here, or None.

It is called for the last epoch again where a training is resumed.
"""


def never_stop(row: Mapping[str, Any]) -> None:
    """A stop condition that lets the training go on."""
