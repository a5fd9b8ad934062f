"""One optimizer step, many of them in one call, and a pass over a split without learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.training.feed import ResidentFeed
from bmcli.training.meters import Meters
from bmcli.training.network import Network

NO_STEP = -1


def total_loss(network: Network, targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Weighted sum over the targets of the mean loss of the examples, plus the network's own losses (regularisers)."""
    losses = [
        objective.weight * tf.reduce_mean(objective.loss(targets[name], outputs[name]))
        for name, objective in network.objectives.items()
    ]
    return tf.add_n([*losses, *(tf.cast(loss, tf.float32) for loss in network.model.losses)])


class Steps:
    """The compiled steps of one network.

    Args:
        batch: Examples of a step.
        jit: Compile each step with XLA. The loop around the steps stays plain: XLA around the whole loop is many times
            slower on CPUs.
    """

    def __init__(
        self,
        network: Network,
        optimizer: keras.Optimizer,
        meters: Meters,
        feed: ResidentFeed,
        batch: int,
        jit: bool,
    ) -> None:
        self.network, self.optimizer, self.meters = network, optimizer, meters
        self.feed, self.batch = feed, batch
        compiled = tf.function(self._step, jit_compile=True) if jit else self._step
        self._many = tf.function(self._loop_over(compiled))
        # The ragged last batch has a shape of its own; compiling it too would cost more than it saves.
        self._ragged = tf.function(self._step_on)

    def many(self, order: tf.Tensor, first: int, count: int) -> int:
        """Trains on `count` batches of an order from the `first`; the first whose loss was not finite, or -1."""
        return int(self._many(order, tf.constant(first), tf.constant(count)))

    def ragged(self, order: tf.Tensor) -> int:
        """Trains on what is left after the last full batch; 0 if its loss was not finite, else -1."""
        rest = order[len(order) // self.batch * self.batch :]
        return NO_STEP if bool(tf.math.is_finite(self._ragged(rest))) else 0

    def _step(self, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        network = self.network
        with tf.GradientTape() as tape:
            outputs = network.model(inputs, training=True)
            loss = total_loss(network, targets, outputs)
            scaled = self.optimizer.scale_loss(loss)
        weights = network.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        self.meters.update(loss, targets, network.predict(outputs))
        return loss

    def _step_on(self, rows: Any) -> Any:
        return self._step(*self.feed.gather(rows))

    def _loop_over(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def loop(order: Any, first: Any, count: Any) -> Any:
            bad = tf.constant(NO_STEP)
            for done in tf.range(count):
                start = (first + done) * self.batch
                rows = tf.ensure_shape(order[start : start + self.batch], (self.batch,))
                loss = step(*self.feed.gather(rows))
                bad = tf.where((bad == NO_STEP) & ~tf.math.is_finite(loss), done, bad)
            return bad

        return loop


class Pass:
    """A pass over a split without learning: every row once, in its own order."""

    def __init__(self, network: Network, feed: ResidentFeed, batch: int, meters: Meters | None = None) -> None:
        self.network, self.feed, self.batch, self.meters = network, feed, batch, meters
        self._measure = tf.function(self._measure_all)
        self._predict = tf.function(self._predict_rows)

    def measure(self) -> dict[str, float]:
        """Loss and metrics over the split, by the meters given."""
        assert self.meters is not None, "a pass that measures needs meters"
        self.meters.reset()
        self._measure()
        return self.meters.results()

    def predict(self) -> dict[str, np.ndarray]:
        """Predictions of all rows by target, in the order of the split."""
        starts = range(0, self.feed.count, self.batch)
        batches = [self._predict(tf.range(start, min(start + self.batch, self.feed.count))) for start in starts]
        return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in self.network.objectives}

    def _measure_all(self) -> None:
        full = self.feed.count // self.batch
        for done in tf.range(full):
            start = done * self.batch
            self._measure_rows(tf.ensure_shape(tf.range(start, start + self.batch), (self.batch,)))
        if full * self.batch < self.feed.count:
            self._measure_rows(tf.range(full * self.batch, self.feed.count))

    def _measure_rows(self, rows: Any) -> None:
        inputs, targets = self.feed.gather(rows)
        outputs = self.network.model(inputs, training=False)
        assert self.meters is not None
        self.meters.update(total_loss(self.network, targets, outputs), targets, self.network.predict(outputs))

    def _predict_rows(self, rows: Any) -> dict[str, Any]:
        inputs, _ = self.feed.gather(rows)
        return self.network.predict(self.network.model(inputs, training=False))
