"""Averages of weights, which are measured and kept in the place of the weights that are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bmcli.training.hooks import StepHook

StatisticsContext = Callable[[int, Callable[[], bool]], AbstractContextManager[None]]
"""Gives the network, for a while, moving statistics of its present weights: of an epoch and whether to stop."""


class WeightAverage(StepHook):
    """Averages of weights, which are measured and kept in their place.

    Args:
        weights: The trained weights.
        estimate: Estimates moving statistics for the averages; None if those of the weights do for them.
    """

    def __init__(self, weights: Sequence[Any], estimate: StatisticsContext | None = None) -> None:
        self.weights, self._estimate = list(weights), estimate
        self.averages = _copy_weights(weights)

    @property
    def variables(self) -> list[Any]:
        """Everything that decides how averaging goes on, in a fixed order."""
        return list(self.averages)

    @property
    def copies(self) -> list[list[Any]]:
        """What there is of each weight, in lists of the weights' order."""
        return [self.averages]

    def has_average(self, epoch: int) -> bool:
        """Whether there is an average after an epoch, which counts from 1."""
        return True

    @contextmanager
    def use_evaluation_weights(self, epoch: int, should_stop: Callable[[], bool]) -> Iterator[None]:
        if not self.has_average(epoch):
            yield
            return
        self.swap()
        try:
            with (
                self._estimate(epoch, should_stop)
                if self._estimate
                else super().use_evaluation_weights(epoch, should_stop)
            ):
                yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Puts the averages into the network and its weights in their place, or back."""
        for average, weight in zip(self.averages, self.weights, strict=True):
            kept = weight.numpy()
            weight.assign(average.numpy())
            average.assign(kept)


class ExponentialMovingAverage(WeightAverage):
    """Exponential moving averages (Polyak and Juditsky 1992).

    The first steps count more, as `min(momentum, (1 + step) / (10 + step))`, so that the initial weights are forgotten
    soon.
    """

    def __init__(self, weights: Sequence[Any], momentum: float) -> None:
        super().__init__(weights)
        self.momentum = momentum

    def after_step(self, step: Any, snapshot: Any) -> None:
        done = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self.momentum, (1.0 + done) / (10.0 + done))
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign(average.value + rate * (weight.value - average.value))


class StochasticWeightAverage(WeightAverage):
    """The plain mean of the weights at the ends of epochs (Izmailov et al. 2018, algorithm 1).

    Args:
        first: The first epoch whose weights count.
    """

    def __init__(self, weights: Sequence[Any], first: int, estimate: StatisticsContext | None = None) -> None:
        super().__init__(weights, estimate)
        self.first = first

    def after_epoch(self, epoch: int) -> None:
        if not self.has_average(epoch):
            return
        # The first weights replace what was there: more epochs than were planned may begin the average anew.
        share = np.float32(1 / (epoch - self.first + 1))
        for average, weight in zip(self.averages, self.weights, strict=True):
            before, value = average.numpy(), weight.numpy()
            average.assign(value if epoch == self.first else before + share * (value - before))

    def has_average(self, epoch: int) -> bool:
        return epoch >= self.first


class _StepSnapshot(NamedTuple):
    """The time before a step.

    Args:
        steps: That the optimizer has taken.
        rate: Its learning rate for the next, float64.
    """

    weights: list[Any]
    steps: Any
    rate: Any


class ScheduleFree(WeightAverage):
    """Schedule-free learning (Defazio et al. 2024, algorithm 1): no fall of the learning rate, nor an end to know.

    The weights of the network are `y = beta * x + (1 - beta) * z`, where gradients are taken. What the optimizer adds
    to y for a gradient is added to z. What is measured and kept is x, the mean of all z, each weighted with the square
    of the learning rate that led to it, so that steps of a warm-up count little.

    Keras' weight decay is a part of what the optimizer adds: by y, at the recipe's learning rate. The paper corrects
    that rate as Adam's in the first steps; here only the weights of the mean are.

    Args:
        optimizer: Already built, without momentum, whose place `beta` takes.
        beta: How near to x the gradients are taken, between 0 and 1.
        beta_2: Adam's, which corrects its learning rate in the first steps by it; 0 for others.
    """

    def __init__(
        self,
        weights: Sequence[Any],
        optimizer: keras.Optimizer,
        beta: float,
        beta_2: float = 0.0,
        estimate: StatisticsContext | None = None,
    ) -> None:
        super().__init__(weights, estimate)
        self.optimizer, self.beta, self.beta_2 = optimizer, beta, beta_2
        self.base = _copy_weights(weights)  # z
        # Squares of small rates, summed in single precision, would soon grow no more.
        self.total = keras.Variable(0.0, trainable=False, dtype="float64", name="total")

    @property
    def variables(self) -> list[Any]:
        return [*self.averages, *self.base, self.total]

    @property
    def copies(self) -> list[list[Any]]:
        return [self.averages, self.base]

    def before_step(self) -> _StepSnapshot:
        rate = tf.cast(keras.ops.convert_to_tensor(self.optimizer.learning_rate), tf.float64)
        steps = tf.identity(self.optimizer.iterations.value)
        return _StepSnapshot([tf.identity(weight.value) for weight in self.weights], steps, tf.identity(rate))

    def after_step(self, step: Any, snapshot: Any) -> None:
        share = tf.cast(self._step_weight(step, snapshot), tf.float32)
        for x, z, y, before in zip(self.averages, self.base, self.weights, snapshot.weights, strict=True):
            last = z.value + (y.value - before)
            mean = x.value + share * (last - x.value)
            z.assign(last)
            x.assign(mean)
            y.assign(last + self.beta * (mean - last))

    def _step_weight(self, step: Any, snapshot: _StepSnapshot) -> Any:
        """The weight of the last step in the mean of all, float64; 0 where the optimizer took none.

        It takes none where gradients overflow in half precision.
        """
        corrected = tf.square(snapshot.rate) * (
            1.0 - tf.pow(tf.cast(self.beta_2, tf.float64), tf.cast(step, tf.float64))
        )
        added = tf.where(step > snapshot.steps, corrected, tf.zeros_like(corrected))
        total = self.total.value + added
        self.total.assign(total)
        return tf.math.divide_no_nan(added, total)


def _copy_weights(weights: Sequence[Any]) -> list[Any]:
    return [keras.Variable(weight.numpy(), trainable=False, name="average") for weight in weights]
