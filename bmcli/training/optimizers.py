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
    """A learning rate over the shares of a run.

    It rises linearly to `peak` over the first `warmup` share of `steps`, then stays (`constant`), falls along half a
    cosine (`cosine`, Loshchilov and Hutter 2017, section 3) or along a line (`linear`) to `floor * peak`.
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
    """The optimizer with its schedule, for a run of `steps` steps at most; without momentum if it is schedule-free."""
    described = train.optimizer
    # Schedule-free learning has a use of its own for it.
    plain = {MOMENTUM_OPTIONS[described.kind]: 0.0} if train.schedule_free else {}
    optimizer = make_keras_object(
        "optimizers",
        KerasObject(
            described.kind, {**described.options, **plain, "learning_rate": _build_learning_rate(train, steps)}
        ),
    )
    return keras.optimizers.LossScaleOptimizer(optimizer) if train.precision == "mixed_float16" else optimizer


def _build_learning_rate(train: TrainOptions, steps: int) -> Any:
    from bmcli.recipe import catalogue

    default = catalogue.get_entry("optimizers", train.optimizer.kind)["options"]["learning_rate"]
    peak = train.optimizer.options["learning_rate"]
    peak = default if peak == "auto" else peak  # which a measurement of something else may as well have
    schedule = train.schedule
    if isinstance(schedule, KerasObject):
        known = catalogue.get_entry("schedules", schedule.kind)["options"]
        first = {} if "values" in known else {"initial_learning_rate": peak}
        return make_keras_object("schedules", schedule, **first)
    if schedule.kind == "constant" and schedule.warmup == 0:
        return peak  # a plain variable, which callbacks may change
    return WarmupSchedule(schedule.kind, peak, steps, schedule.warmup, schedule.floor)


def replace_learning_rate(train: TrainOptions, rate: float, schedule: ScheduleOptions | None = None) -> TrainOptions:
    """The same options with another learning rate, and perhaps another schedule."""
    optimizer = KerasObject(train.optimizer.kind, {**train.optimizer.options, "learning_rate": rate})
    return train.model_copy(update={"optimizer": optimizer, "schedule": schedule or train.schedule})


def resolve_layer_rates(factors: Mapping[str, float], weights: Sequence[str]) -> dict[int, float]:
    """Factors of the learning rate by the places of weights, without those that change nothing.

    Args:
        factors: By patterns of names, where * stands for any text; the last that fits decides.
        weights: The names of all trainable weights.

    Raises:
        BmcliError: A pattern fits no weight.
    """
    found = match_patterns(factors, weights, ("train", "layer_rates"))
    return {place: factor for place, factor in found.items() if factor != 1}


def match_patterns(values: Mapping[str, float], weights: Sequence[str], loc: KeyPath) -> dict[int, float]:
    """Values by the places of the weights whose names fit a pattern; the last pattern that fits decides.

    Args:
        loc: Where the recipe has the patterns.

    Raises:
        BmcliError: A pattern fits no weight.
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
    fitting = {
        place: [value for pattern, value in values.items() if fnmatchcase(name, pattern)]
        for place, name in enumerate(weights)
    }
    return {place: found[-1] for place, found in fitting.items() if found}
