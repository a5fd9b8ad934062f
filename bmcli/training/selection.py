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


@dataclass(frozen=True)
class Selection:
    """Comparison of epochs by a metric, and conditions that end a training.

    Args:
        metric: The full name of the metric, such as `validation/loss`, or `last` to keep the last epoch.
        directions: Directions of all metrics that are measured while training.
        epochs, steps: Largest numbers of epochs and of optimizer steps.
    """

    metric: str
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
        return cls(metric, directions, train.stop, train.epochs, steps)

    def is_best(self, progress: TrainingProgress, row: Mapping[str, Any], settled: bool) -> bool:
        """Whether an epoch is the best so far; counts epochs without an improvement by `min_delta`.

        Args:
            row: Metrics of the epoch.
            settled: Whether pruning and similar features are done, so that epochs can be compared.
        """
        # Until then each epoch replaces the one before: an earlier one could only be better for being pruned less.
        if self.metric == "last" or not settled:
            return True
        value, best = row[self.metric], progress.best
        if value is None:
            progress.waited += 1
            return False
        gain = math.inf if best is None else (value - best if self.directions[self.metric] == "max" else best - value)
        progress.waited = 0 if gain > self.stop.min_delta else progress.waited + 1
        return gain > 0

    def stop_reason(self, progress: TrainingProgress, row: Mapping[str, Any], settled: bool) -> str | None:
        """One word for the reason to end the training after an epoch, or None."""
        return (self._metric_stop_reason(progress, row) if settled else None) or self._budget_stop_reason(progress)

    def _metric_stop_reason(self, progress: TrainingProgress, row: Mapping[str, Any]) -> str | None:
        stop = self.stop
        if stop.patience is not None and progress.waited >= stop.patience:
            return "patience"
        if stop.overfit is not None and progress.overfitted >= stop.overfit:
            return "overfit"
        value = row.get(stop.metric) if stop.metric else None
        if value is not None and (
            (stop.above is not None and value >= stop.above) or (stop.below is not None and value <= stop.below)
        ):
            return "metric"
        return None

    def _budget_stop_reason(self, progress: TrainingProgress) -> str | None:
        if progress.epoch >= self.epochs:
            return "epochs"
        if progress.step >= self.steps:
            return "steps"
        return "time" if self.is_out_of_budget(progress) else None

    def is_out_of_budget(self, progress: TrainingProgress) -> bool:
        """Whether the steps or the time of the training are used up."""
        limit_s = self.stop.time
        return progress.step >= self.steps or (limit_s is not None and progress.train_s >= limit_s)


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
    if metric != "last" and metric not in directions:
        hint = parts.did_you_mean(metric, directions)
        if metric.startswith("validation/") and "validation/loss" not in directions:
            hint = "There are no validation rows; give data.split a validation share."
        raise BmcliError(f"no metric '{metric}' is measured while training.", path=path, suggestion=hint)
    return metric
