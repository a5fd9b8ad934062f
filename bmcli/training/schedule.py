"""Learning-rate schedules from a recipe: over all steps, over some epochs, or over the time of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bmcli.layers.keras_objects import make_keras_object
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.train import ScheduleOptions, TrainOptions
from bmcli.training.hooks import StepHook

_TIME_UNITS = 10_000  # "steps" of a schedule over time
_MAX_POINTS = 64  # rates of a schedule that are computed to describe it
MIN_SHARE = 0.9
"""Share of its schedule that a training should get through."""

_MAX_IDLE_SHARE = 0.02  # of the steps, with a rate of 0


@keras.saving.register_keras_serializable(package="bmcli")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule with a warm-up.

    The rate rises linearly to `peak` over the share `warmup` of `steps`, then stays (`constant`), or falls to
    `floor * peak` along half a cosine (`cosine`, Loshchilov and Hutter 2017, section 3) or a line (`linear`).
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup: float, floor: float) -> None:
        self.kind, self.peak, self.steps, self.warmup, self.floor = kind, peak, steps, warmup, floor

    def __call__(self, step: Any) -> Any:
        done = self.count_done(step)
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

    def count_done(self, step: Any) -> Any:
        """Count the steps that are done, of all `steps`, float32."""
        return ops.cast(step, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "floor": self.floor,
        }


class TrainingClock(StepHook):
    """The share of `train.stop.time` that is over.

    Args:
        limit_s: Time of the training, in seconds.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.share = keras.Variable(0.0, trainable=False, dtype="float32", name="time_share")

    @property
    def variables(self) -> list[Any]:
        return [self.share]

    def before_call(self, train_s: float) -> None:
        self.share.assign(min(train_s / self._limit_s, 1.0))


@keras.saving.register_keras_serializable(package="bmcli")
class TimedSchedule(WarmupSchedule):
    """WarmupSchedule over the time of a training instead of its steps."""

    def __init__(self, kind: str, peak: float, clock: TrainingClock, warmup: float, floor: float) -> None:
        super().__init__(kind, peak, _TIME_UNITS, warmup, floor)
        self._clock = clock

    def count_done(self, step: Any) -> Any:
        return ops.cast(self._clock.share, "float32") * _TIME_UNITS


def build_learning_rate(train: TrainOptions, steps: int, clock: TrainingClock | None = None) -> Any:
    """Build a number, or a schedule of Keras.

    Args:
        steps: Number of steps that the schedule runs over.
        clock: Length of a schedule over time, instead of `steps`.
    """
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
    if clock is not None:
        return TimedSchedule(schedule.kind, peak, clock, schedule.warmup, schedule.floor)
    return WarmupSchedule(schedule.kind, peak, steps, schedule.warmup, schedule.floor)


def depends_on_length(train: TrainOptions) -> bool:
    """Whether the learning rate of a step depends on the number of all steps."""
    schedule = train.schedule
    return (
        isinstance(schedule, ScheduleOptions)
        and schedule.span == "training"
        and (schedule.kind != "constant" or schedule.warmup > 0)
    )


def spans_time(train: TrainOptions) -> bool:
    """Whether the learning rate follows the time of the training."""
    return isinstance(train.schedule, ScheduleOptions) and train.schedule.span == "time"


def count_schedule_steps(train: TrainOptions, steps: int, steps_per_epoch: int) -> int:
    """Count the steps that the schedule runs over.

    Args:
        steps: The largest number of steps of the training.
    """
    schedule = train.schedule
    spans_epochs = isinstance(schedule, ScheduleOptions) and isinstance(schedule.span, int)
    return schedule.span * steps_per_epoch if spans_epochs else steps


def sample_rates(train: TrainOptions, steps: int, steps_per_epoch: int) -> tuple[tuple[int, float], ...]:
    """Compute the learning rates of some steps, from 0 and evenly spaced to the last one.

    Those of a schedule over time are as if each step took as long.

    Args:
        steps: The largest number of steps of the training.
    """
    rate = build_learning_rate(train, count_schedule_steps(train, steps, steps_per_epoch))
    chosen = sorted({round(place * (steps - 1) / (_MAX_POINTS - 1)) for place in range(_MAX_POINTS)})
    return tuple(zip(chosen, compute_rates(rate, chosen), strict=True))


def describe_idle_steps(train: TrainOptions, steps: int, steps_per_epoch: int) -> str:
    """Describe, for a warning, many steps at the end whose learning rate is 0; empty if there are none."""
    rate = build_learning_rate(train, count_schedule_steps(train, steps, steps_per_epoch))
    zero_from = _find_zero_rates(rate, steps)
    idle = 0 if zero_from is None else steps - zero_from
    if idle <= max(1, _MAX_IDLE_SHARE * steps):
        return ""
    return (
        f"the learning rate is 0 in the last {idle:,} of {steps:,} steps, which learn nothing. Let train.schedule end "
        "later, or train for fewer epochs."
    )


def compute_rates(rate: Any, steps: Sequence[int]) -> list[float]:
    """Compute the learning rates of steps, which count from 0.

    Args:
        rate: What `build_learning_rate` built.
    """
    if isinstance(rate, float):
        return [rate] * len(steps)
    return [float(ops.convert_to_numpy(rate(step))) for step in steps]


def _find_zero_rates(rate: Any, steps: int) -> int | None:
    """Find the first step from which on the learning rate is 0 to the end; None if the last rate is not 0.

    Args:
        steps: Number of steps of the training.
    """
    if isinstance(rate, float) or steps < 2 or compute_rates(rate, [steps - 1]) != [0.0]:
        return None
    low, high = 0, steps - 1  # the rates of Keras' schedules reach 0 once, and stay there
    while low < high:
        middle = (low + high) // 2
        if compute_rates(rate, [middle]) == [0.0]:
            high = middle
        else:
            low = middle + 1
    return low
