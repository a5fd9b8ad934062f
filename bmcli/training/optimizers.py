"""Optimizers and learning-rate schedules from a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras
from keras import ops

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.layers.keras_objects import make_keras_object
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.nodes import KeyPath
from bmcli.recipe.paths import join_steps
from bmcli.recipe.train import MOMENTUM_OPTIONS, ScheduleOptions, TrainOptions


@keras.saving.register_keras_serializable(package="bmcli")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule with a warm-up.

    The rate rises linearly to `peak` over the share `warmup` of `steps`, then stays (`constant`), or falls to
    `floor * peak` along half a cosine (`cosine`, Loshchilov and Hutter 2017, section 3) or a line (`linear`).
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup: float, floor: float) -> None:
        self.kind, self.peak, self.steps, self.warmup, self.floor = kind, peak, steps, warmup, floor

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step, "float32")
        warmup_steps = self.warmup * self.steps
        # The first step already learns: a rate of exactly 0 would waste it.
        rise = ops.minimum((done + 1.0) / max(warmup_steps, 1.0), 1.0)
        share = ops.clip((done - warmup_steps) / max(self.steps - warmup_steps, 1.0), 0.0, 1.0)
        falls = {
            "constant": lambda: ops.ones_like(share),
            "cosine": lambda: 0.5 * (1.0 + ops.cos(math.pi * share)),
            "linear": lambda: 1.0 - share,
        }
        return self.peak * rise * (self.floor + (1.0 - self.floor) * falls[self.kind]())

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "floor": self.floor,
        }


def build_optimizer(train: TrainOptions, steps: int) -> keras.optimizers.Optimizer:
    """Build the recipe's optimizer with its schedule.

    Args:
        steps: The largest number of steps of the run.
    """
    kind, options = train.optimizer.kind, dict(train.optimizer.options)
    if train.schedule_free:
        options[MOMENTUM_OPTIONS[kind]] = 0.0  # schedule-free learning interpolates by this option instead
    options["learning_rate"] = _build_learning_rate(train, steps)
    optimizer = make_keras_object("optimizers", KerasObject(kind, options))
    # Small gradients would become 0 in half precision; the loss is scaled up before they are computed.
    return keras.optimizers.LossScaleOptimizer(optimizer) if train.precision == "mixed_float16" else optimizer


def _build_learning_rate(train: TrainOptions, steps: int) -> Any:
    from bmcli.recipe import catalogue

    default = catalogue.get_entry("optimizers", train.optimizer.kind)["options"]["learning_rate"]
    peak = train.optimizer.options["learning_rate"]
    # With `auto` the batch size is measured before the learning rate, and any rate will do for that.
    peak = default if peak == "auto" else peak
    schedule = train.schedule
    if isinstance(schedule, KerasObject):
        options = catalogue.get_entry("schedules", schedule.kind)["options"]
        # PiecewiseConstantDecay lists all its rates as `values`; the other schedules of Keras begin with one.
        first = {} if "values" in options else {"initial_learning_rate": peak}
        return make_keras_object("schedules", schedule, **first)
    if schedule.kind == "constant" and schedule.warmup == 0:
        return peak  # the optimizer then has a plain variable, which callbacks can change
    return WarmupSchedule(schedule.kind, peak, steps, schedule.warmup, schedule.floor)


def replace_learning_rate(train: TrainOptions, rate: float, schedule: ScheduleOptions | None = None) -> TrainOptions:
    """Copy training options with another learning rate, and perhaps another schedule."""
    optimizer = KerasObject(train.optimizer.kind, {**train.optimizer.options, "learning_rate": rate})
    return train.model_copy(update={"optimizer": optimizer, "schedule": schedule or train.schedule})


def resolve_layer_rates(factors: Mapping[str, float], weights: Sequence[str]) -> dict[int, float]:
    """Resolve factors of the learning rate by index of the weight; factors of 1 are left out.

    Args:
        factors: By pattern of weight names, where * stands for any text; the last pattern that matches applies.
        weights: The names of all trainable weights.

    Raises:
        BmcliError: A pattern matches no weight.
    """
    matched = match_patterns(factors, weights, ("train", "layer_rates"))
    return {index: factor for index, factor in matched.items() if factor != 1}


def match_patterns(values: Mapping[str, float], weights: Sequence[str], loc: KeyPath) -> dict[int, float]:
    """Resolve values by index of the weights whose names match a pattern; the last pattern that matches applies.

    Args:
        loc: Path of the patterns in the recipe.

    Raises:
        BmcliError: A pattern matches no weight.
    """
    faults = [
        Fault(
            f"no weight is called '{pattern}'.",
            path=join_steps((*loc, pattern)),
            suggestion=parts.did_you_mean(pattern, weights),
        )
        for pattern in values
        if not any(fnmatchcase(name, pattern) for name in weights)
    ]
    if faults:
        raise BmcliError(*faults)
    matches = {
        index: [value for pattern, value in values.items() if fnmatchcase(name, pattern)]
        for index, name in enumerate(weights)
    }
    return {index: matched[-1] for index, matched in matches.items() if matched}
