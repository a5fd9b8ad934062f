"""Averages of the trained weights, which are evaluated and kept instead of the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bmcli.training.hooks import StepHook

StatisticsContext = Callable[[int, Callable[[], bool]], AbstractContextManager[None]]
"""Makes a context in which batch normalization has statistics of the network's present weights.

Its arguments are the epoch, which counts from 1, and a function that returns whether to stop estimating.
"""


class WeightAverage(StepHook):
    """Averages of the weights, which are evaluated and kept instead of them.

    Args:
        weights: The trained weights.
        estimate: Estimates moving statistics for the averages; None if those of the weights are close enough.
    """

    def __init__(self, weights: Sequence[Any], estimate: StatisticsContext | None = None) -> None:
        self.weights, self._estimate = list(weights), estimate
        self.averages = _copy_weights(weights)

    @property
    def variables(self) -> list[Any]:
        """The state of the averages, in a fixed order."""
        return list(self.averages)

    @property
    def copies(self) -> list[list[Any]]:
        """Lists of variables of the weights' shapes, each in the order of the weights."""
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
        """Exchange the weights of the network and their averages."""
        # The variables of the network keep their identity: compiled steps, the optimizer and checkpoints refer to them.
        for average, weight in zip(self.averages, self.weights, strict=True):
            value = weight.numpy()
            weight.assign(average.numpy())
            average.assign(value)


class ExponentialMovingAverage(WeightAverage):
    """Exponential moving averages (Polyak and Juditsky 1992).

    The momentum of step n is `min(momentum, (1 + n) / (10 + n))`, so that the initial weights soon have no influence.
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
        first: The first epoch whose weights are averaged.
    """

    def __init__(self, weights: Sequence[Any], first: int, estimate: StatisticsContext | None = None) -> None:
        super().__init__(weights, estimate)
        self.first = first
        self.count = keras.Variable(0, trainable=False, dtype="int32", name="averaged_epochs")

    @property
    def variables(self) -> list[Any]:
        return [*self.averages, self.count]

    def after_epoch(self, epoch: int) -> None:
        if not self.has_average(epoch):
            return
        # A training that is resumed for more epochs may be before its first averaged epoch again, when the checkpoint
        # already holds an average: that one is then replaced. Otherwise the mean continues from where it began.
        count = 0 if epoch == self.first else int(self.count.numpy())
        share = np.float32(1 / (count + 1))
        for average, weight in zip(self.averages, self.weights, strict=True):
            before, value = average.numpy(), weight.numpy()
            average.assign(before + share * (value - before) if count else value)
        self.count.assign(count + 1)

    def has_average(self, epoch: int) -> bool:
        return epoch >= self.first


class _StepSnapshot(NamedTuple):
    """The state before a step.

    Args:
        steps: Steps that the optimizer has taken.
        rate: Learning rate of the next step, float64.
    """

    weights: list[Any]
    steps: Any
    rate: Any


class ScheduleFree(WeightAverage):
    """Schedule-free learning (Defazio et al. 2024, algorithm 1): no learning-rate decay, and no end that it depends on.

    The network holds `y = beta * x + (1 - beta) * z`, at which gradients are computed. The change that the optimizer
    makes to y is added to z. The mean of all z, called x, is evaluated and kept; each z is weighted with the square of
    its step's learning rate, so that the steps of a warm-up have little weight.

    Keras' weight decay is part of the optimizer's change: it uses y and the recipe's learning rate. The paper applies
    Adam's bias correction to that rate; here it is applied only to the weights of the mean.

    Args:
        optimizer: Already built, without momentum, which `beta` replaces.
        beta: Interpolation between z (0) and x (1) at which gradients are computed.
        beta_2: Adam's decay of squared gradients, for its bias correction; 0 for other optimizers.
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
        # In single precision a sum of squares of small learning rates soon stops growing.
        self.total = keras.Variable(0.0, trainable=False, dtype="float64", name="total")

    @property
    def variables(self) -> list[Any]:
        return [*self.averages, *self.base, self.total]

    @property
    def copies(self) -> list[list[Any]]:
        return [self.averages, self.base]

    def before_step(self) -> _StepSnapshot:
        # The rate of a schedule depends on `iterations`, which the step advances. `value` is TensorFlow's variable
        # itself: without `identity` it would be read only in `after_step`, when it has changed.
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
        """Compute the weight of the last step in the mean of all, float64."""
        corrected = tf.square(snapshot.rate) * (
            1.0 - tf.pow(tf.cast(self.beta_2, tf.float64), tf.cast(step, tf.float64))
        )
        # The loss-scaling optimizer skips a step whose gradients overflow in half precision.
        added = tf.where(step > snapshot.steps, corrected, tf.zeros_like(corrected))
        total = self.total.value + added
        self.total.assign(total)
        return tf.math.divide_no_nan(added, total)


def _copy_weights(weights: Sequence[Any]) -> list[Any]:
    return [keras.Variable(weight.numpy(), trainable=False, name="average") for weight in weights]
