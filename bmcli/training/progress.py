"""Progress of a training, and the callbacks that follow it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from bmcli.messages import format_duration
from bmcli.number_texts import write_measure


@dataclass
class TrainingProgress:
    """All state of a training that is not in variables; checkpoints hold it as JSON, by these names."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # optimizer steps of all epochs
    examples: int = 0  # examples of all epochs
    train_s: float = 0.0
    epoch_s: float = 0.0
    averaged: int = 0  # the last epoch after which hooks were called, such as averages of weights
    best: float | None = None
    selected_epoch: int | None = None
    improved_value: float | None = None  # value of the watched metric at the last improvement by `min_delta`
    waited: int = 0  # epochs since then
    overfitted: int = 0  # successive epochs in which only the training loss fell
    lowest: dict[str, float] = field(default_factory=dict)  # lowest loss of each split so far, by its name
    row: dict[str, Any] = field(default_factory=dict)  # metrics of the selected epoch
    last: dict[str, Any] = field(default_factory=dict)  # metrics of the last epoch
    stop_reason: str | None = None


@dataclass(frozen=True)
class ProgressUpdate:
    """Progress of a training after a call of the compiled steps, for a display.

    Args:
        epoch: Counts from 1.
        step, steps: Finished steps of this epoch, and all of them.
        loss: Mean over the epoch so far.
        examples_per_second: Speed of the last call, without evaluation.
        seconds_left: Estimate for all epochs; stopping early is not foreseen.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    examples_per_second: float
    seconds_left: float


class ProgressCallback(Protocol):
    """Callback that follows a training, for instance to display it."""

    def on_progress(self, update: ProgressUpdate) -> None: ...

    def on_epoch_end(self, row: Mapping[str, Any], selected: bool) -> None: ...

    def on_note(self, text: str) -> None: ...


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

    def on_epoch_end(self, row: Mapping[str, Any], selected: bool) -> None:
        self._logged_at = time.monotonic()
        self._log(format_epoch(row, selected))

    def on_note(self, text: str) -> None:
        self._log(text)


def format_update(update: ProgressUpdate) -> str:
    return (
        f"epoch {update.epoch}/{update.epochs}  step {update.step}/{update.steps}  loss {write_measure(update.loss)}  "
        f"{update.examples_per_second:,.0f} examples/s  {format_duration(update.seconds_left)} left"
    )


def format_epoch(row: Mapping[str, Any], selected: bool) -> str:
    """Format the metrics of an epoch; a star marks the best epoch so far."""
    metrics = "  ".join(
        f"{name} {write_measure(value)}" if isinstance(value, float) else f"{name} -"
        for name, value in row.items()
        if "/" in name
    )
    return (
        f"epoch {row['epoch']:>3}  {metrics}  {row['examples_per_second']:,.0f} examples/s{'  *' if selected else ''}"
    )


StopCondition = Callable[[Mapping[str, Any]], str | None]
"""Called after each epoch with its row of metrics; returns one word for the reason to end the training, or None.

When a training is resumed, it is called for the last epoch again.
"""


def never_stop(row: Mapping[str, Any]) -> None:
    """Stop condition that never ends the training."""
