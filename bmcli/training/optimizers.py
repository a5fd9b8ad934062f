"""Optimizers and learning rates by layer, from a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import keras

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.layers.keras_objects import make_keras_object
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.nodes import KeyPath
from bmcli.recipe.paths import join_steps
from bmcli.recipe.train import MOMENTUM_OPTIONS, ScheduleOptions, TrainOptions
from bmcli.training.schedule import TrainingClock, build_learning_rate


def build_optimizer(train: TrainOptions, steps: int, clock: TrainingClock | None = None) -> keras.optimizers.Optimizer:
    """Build the recipe's optimizer with its schedule.

    Args:
        steps: Number of steps that the schedule runs over.
        clock: Length of a schedule over time, instead of `steps`.
    """
    kind, options = train.optimizer.kind, dict(train.optimizer.options)
    if train.schedule_free:
        options[MOMENTUM_OPTIONS[kind]] = 0.0  # schedule-free learning interpolates by this option instead
    options["learning_rate"] = build_learning_rate(train, steps, clock)
    optimizer = make_keras_object("optimizers", KerasObject(kind, options))
    # Small gradients would become 0 in half precision; the loss is scaled up before they are computed.
    return keras.optimizers.LossScaleOptimizer(optimizer) if train.precision == "mixed_float16" else optimizer


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
