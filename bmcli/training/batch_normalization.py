"""Moving statistics of batch normalisation for averaged weights, with which no example was ever computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from bmcli import private_api
from bmcli.distribution.strategy import Placement
from bmcli.training.evaluator import CallPacer
from bmcli.training.feed import Feed, gather_rows, unstack_inputs
from bmcli.training.graph_ops import full_batches, graph_function, moving_statistics, repeat, replica_share


class StatisticsEstimator:
    """Estimator of moving statistics, by a pass over the training rows in batches of the training's size.

    Izmailov et al. 2018, section 3.2. The ragged last batch is left out.
    """

    def __init__(self, model: keras.Model, feed: Feed, batch: int, placement: Placement) -> None:
        self.model, self.feed, self.batch, self.placement = model, feed, batch, placement
        self.statistics = moving_statistics(model)
        self._accumulate = graph_function(self._loop)
        self._pacer = CallPacer(placement)

    @contextmanager
    def use_estimates(self, rows: tf.Tensor, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Give the network statistics of its present weights inside the context, and restore its own afterwards.

        Args:
            rows: The order in which the training rows are visited.
            should_stop: Whether to leave the pass over them; called after every call of some batches.

        Raises:
            PassStopped: `should_stop` returned true.
        """
        if not self.statistics:
            yield
            return
        # The state of dropout's generators is among them: the pass must not change what the training draws next.
        variables = self.model.non_trainable_variables
        before = [variable.numpy() for variable in variables]
        try:
            means = self._estimate_means(rows, should_stop)
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            for statistic, mean in zip(self.statistics, means, strict=True):
                statistic.assign(mean)
            yield
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)

    def _estimate_means(self, rows: tf.Tensor, should_stop: Callable[[], bool]) -> list[Any]:
        """Compute the mean of each statistic over all batches."""
        full = self.feed.count // self.batch
        self.feed.start_epoch(rows, self.batch)
        done, totals = 0, [tf.zeros(statistic.shape) for statistic in self.statistics]
        while done < full:
            start = time.perf_counter()
            block = self.feed.read_block(done, min(self._pacer.batches, full - done))
            # The totals go into the compiled loop and come back, so that the order of additions, and with it the last
            # bits, do not depend on the number of batches in a call.
            totals = self._accumulate(
                block.data, block.rows, tf.constant(block.first), tf.constant(block.count), totals
            )
            totals[0].numpy()  # waits for the device
            self._pacer.after_call(block.count, time.perf_counter() - start, should_stop)
            done += block.count
        return [(total / full).numpy() for total in totals]

    def _loop(self, data: Any, rows: Any, first: Any, count: Any, totals: list[Any]) -> list[Any]:
        """Add the statistics of some more batches to the totals."""

        def add_batch(done: Any, *totals: Any) -> tuple[Any, ...]:
            statistics = self._batch_statistics(data, full_batches(rows, first + done, self.batch))
            return done + 1, *(total + more for total, more in zip(totals, statistics, strict=True))

        return repeat(count, add_batch, *totals)

    def _batch_statistics(self, data: Any, rows: Any) -> list[Any]:
        strategy = self.placement.strategy
        results = strategy.run(self._replica_statistics, args=(data, rows))
        return [strategy.experimental_local_results(value)[0] for value in results]

    def _replica_statistics(self, data: Any, rows: Any) -> list[Any]:
        """Compute the statistics of a batch: the means over the replicas, as a training step does."""
        share, _ = replica_share(rows, self.placement.replicas)
        with _zero_momentum(self.model):
            self.model(unstack_inputs(gather_rows(data, share)), training=True)
        shares = [tf.cast(statistic.value, tf.float32) / self.placement.replicas for statistic in self.statistics]
        if self.placement.replicas == 1:
            return shares
        context = tf.distribute.get_replica_context()
        means: list[Any] = context.all_reduce(tf.distribute.ReduceOp.SUM, shares)
        return means


@contextmanager
def _zero_momentum(model: keras.Model) -> Iterator[None]:
    """Let moving statistics become those of the last batch alone, in what is traced inside the context."""
    # Keras shows the statistics of a batch only through its update of the moving ones: with momentum 0 both are equal.
    layers = [
        layer for layer in private_api.flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
