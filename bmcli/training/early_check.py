"""Check of the first epochs of a training: whether the network has learned anything from its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bmcli.data.checks import Finding
from bmcli.number_texts import write_number
from bmcli.recipe.fields import Kind
from bmcli.recipe.train import ScheduleOptions, TrainOptions
from bmcli.training.progress import TrainingProgress

# A network that learns is below these shares of the loss of constant outputs long before. That of other rows than the
# training rows varies more.
_SHARES = {"train/loss": 0.99, "validation/loss": 0.97}
_MIN_EPOCHS, _MIN_STEPS = 3, 200  # within which a network that learns at all begins to


@dataclass(frozen=True)
class EarlyCheck:
    """Check of the losses of the first epochs against those of the best outputs that are the same for all rows.

    Args:
        epoch: The epoch after which it is due.
        compute_baselines: Computes the losses of constant outputs, of the splits that have rows, by the names that
            metrics have; None if they are not known. Called once, when the check is due.
        suggestion: What to try for a network that does not learn.
    """

    epoch: int
    compute_baselines: Callable[[], Mapping[str, float] | None]
    suggestion: str

    def find(self, progress: TrainingProgress) -> Finding | None:
        """Find that no epoch so far was better than constant outputs; None if one was, or the check is not due."""
        if progress.epoch != self.epoch:
            return None
        baselines = self.compute_baselines()
        if baselines is None or any(_is_below(progress.lowest, name, value) for name, value in baselines.items()):
            return None
        lowest, constant = progress.lowest["train/loss"], baselines["train/loss"]
        return Finding(
            "learning",
            f"in {self.epoch} epochs the training loss has not fallen below {write_number(lowest)}: without the "
            f"inputs, by the shares of the classes or the mean of the target alone, it is {write_number(constant)}. "
            "The network learns nothing.",
            self.suggestion,
            {"epochs": self.epoch, "loss": lowest, "constant_loss": constant},
        )


def _is_below(lowest: Mapping[str, float], name: str, constant: float) -> bool:
    margin = (1 - _SHARES[name]) * abs(constant)
    return lowest.get(name, math.inf) < constant - margin


def choose_epoch(train: TrainOptions, steps: int, steps_per_epoch: int) -> int:
    """Choose the epoch after which a network that learns has begun to.

    Args:
        steps: Of the whole training.
    """
    schedule = train.schedule
    warmup_steps = schedule.warmup * steps if isinstance(schedule, ScheduleOptions) else 0
    return max(_MIN_EPOCHS, math.ceil((_MIN_STEPS + warmup_steps) / steps_per_epoch))


def make_suggestion(train: TrainOptions, model: Kind) -> str:
    """Name what is most often wrong with a network that does not learn, as far as the recipe can change it."""
    rate: Any = train.optimizer.options["learning_rate"]
    advice = [f"a learning_rate of {rate / 10:.1g} or {rate * 3:.1g} instead of {rate:.3g}"]
    if model.model_dump().get("normalization", "") is None:
        advice.append("model.normalization: batch")
    advice.append("fewer or smaller layers")
    listed = f"{', '.join(advice[:-1])}, or {advice[-1]}"
    return f"Try {listed}; if none helps, the target may not follow from the inputs."
