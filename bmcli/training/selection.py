"""Selection of the epoch that is kept, and of the epoch after which a training ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.recipe.train import StopOptions, TrainOptions
from bmcli.training.callbacks import Directions, require_direction
from bmcli.training.progress import TrainingProgress

LAST = "last"
"""In place of a metric: the last epoch is kept."""


@dataclass(frozen=True)
class Selection:
    """Comparison of epochs by a metric, and conditions that end a training.

    Args:
        metric: The full name of the metric, such as `validation/loss`, or `last` to keep the last epoch.
        watched: The full name of the metric whose improvements `patience` waits for.
        directions: Directions of all metrics that are measured while training.
        epochs, steps: Largest numbers of epochs and of optimizer steps.
    """

    metric: str
    watched: str
    directions: Directions
    stop: StopOptions
    epochs: int
    steps: int

    @classmethod
    def of(cls, train: TrainOptions, directions: Directions, steps: int) -> Selection:
        """Make the selection of a recipe.

        Args:
            directions: Directions of all metrics that are measured while training.

        Raises:
            BmcliError: A metric is not measured, or has no direction.
        """
        metric = resolve_metric(train.select.metric, directions, "train.select.metric")
        require_direction(metric, directions, "train.select.metric")
        if train.stop.metric is not None:
            resolve_metric(train.stop.metric, directions, "train.stop.metric")
        if train.stop.overfit is not None and "validation/loss" not in directions:
            raise BmcliError(
                "`overfit` needs a validation loss, but there are no validation rows.",
                path="train.stop.overfit", suggestion="Give data.split a share for validation.",
            )  # fmt: skip
        watched = resolve_metric("auto", directions, "train.select.metric") if metric == LAST else metric
        return cls(metric, watched, directions, train.stop, train.epochs, steps)

    def is_best(self, progress: TrainingProgress, row: Mapping[str, Any], settled: bool) -> bool:
        """Whether an epoch is the best so far; counts epochs without an improvement by `min_delta`.

        Args:
            row: Metrics of the epoch.
            settled: Whether pruning and similar features are done, so that epochs can be compared.
        """
        # Until then each epoch replaces the one before: an earlier one could only be better for being pruned less.
        if not settled:
            return True
        self._count_wait(progress, row[self.watched])
        return self.metric == LAST or self._compute_gain(self.metric, row[self.metric], progress.best) > 0

    def _count_wait(self, progress: TrainingProgress, value: float | None) -> None:
        # As in `keras.callbacks.EarlyStopping`, small gains add up: a value is compared with that of the last
        # improvement by `min_delta`, and not with the best one, which every gain moves.
        if self._compute_gain(self.watched, value, progress.improved_value) > self.stop.min_delta:
            progress.improved_value, progress.waited = value, 0
        else:
            progress.waited += 1

    def _compute_gain(self, metric: str, value: float | None, before: float | None) -> float:
        """Compute how much better a value is than one before; infinite without one, minus infinity if it is none."""
        if value is None:
            return -math.inf
        if before is None:
            return math.inf
        return value - before if self.directions[metric] == "max" else before - value

    def stop_reason(self, progress: TrainingProgress, row: Mapping[str, Any], settled: bool) -> str | None:
        """One word for the reason to end the training after an epoch, or None."""
        return next(iter(self.list_stop_reasons(progress, row, settled)), None)

    def list_stop_reasons(self, progress: TrainingProgress, row: Mapping[str, Any], settled: bool) -> list[str]:
        """List a word for each reason to end the training after an epoch."""
        holds = {**(self._check_metrics(progress, row) if settled else {}), **self._check_budgets(progress)}
        return [reason for reason, holding in holds.items() if holding]

    def _check_metrics(self, progress: TrainingProgress, row: Mapping[str, Any]) -> dict[str, bool]:
        stop = self.stop
        value = row.get(stop.metric) if stop.metric else None
        return {
            "patience": stop.patience is not None and progress.waited >= stop.patience,
            "overfit": stop.overfit is not None and progress.overfitted >= stop.overfit,
            "metric": value is not None
            and ((stop.above is not None and value >= stop.above) or (stop.below is not None and value <= stop.below)),
        }

    def _check_budgets(self, progress: TrainingProgress) -> dict[str, bool]:
        limit_s = self.stop.time
        return {
            "epochs": progress.epoch >= self.epochs,
            "steps": progress.step >= self.steps,
            "time": limit_s is not None and progress.train_s >= limit_s,
        }

    def is_out_of_budget(self, progress: TrainingProgress) -> bool:
        """Whether the steps or the time of the training are used up."""
        budgets = self._check_budgets(progress)
        return budgets["steps"] or budgets["time"]

    def suggest_changes(self, progress: TrainingProgress, settled: bool) -> list[str]:
        """Suggest overrides of the recipe with which an ended training continues, one for each limit."""
        stop, reasons = self.stop, self.list_stop_reasons(progress, progress.last, settled)
        changes = {
            "patience": f"train.stop.patience={2 * max(progress.waited, stop.patience or 1)}",
            "overfit": f"train.stop.overfit={2 * max(progress.overfitted, stop.overfit or 1)}",
            "metric": "train.stop={metric: null, above: null, below: null}",
            "epochs": f"train.epochs={2 * max(progress.epoch, self.epochs)}",
            "time": f"train.stop.time={2 * math.ceil(max(progress.train_s, stop.time or 0))}s",
        }
        if stop.steps is not None and progress.step >= stop.steps:
            changes["steps"] = f"train.stop.steps={2 * progress.step}"
        # The steps are also those of all epochs; a larger number of epochs raises them.
        return [changes[reason] for reason in reasons if reason in changes]


def is_overfit(row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the training loss fell from one epoch to the next while the validation loss rose."""

    def change(name: str) -> float:
        now, then = row.get(name), before.get(name)
        return 0.0 if now is None or then is None else now - then  # None: not finite, or before the first epoch

    return change("train/loss") < 0 < change("validation/loss")


def resolve_metric(metric: str, directions: Directions, path: str) -> str:
    """Resolve the name of a metric; `auto` is the validation loss, or the training loss without validation rows.

    Raises:
        BmcliError: The metric is not measured.
    """
    if metric == "auto":
        return "validation/loss" if "validation/loss" in directions else "train/loss"
    if metric != LAST and metric not in directions:
        hint = parts.did_you_mean(metric, directions)
        if metric.startswith("validation/") and "validation/loss" not in directions:
            hint = "There are no validation rows; give data.split a validation share."
        raise BmcliError(f"no metric '{metric}' is measured while training.", path=path, suggestion=hint)
    return metric
