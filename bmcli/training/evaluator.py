"""Passes over a split that measure or predict, without training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.training.feed import Feed, gather_rows, iterate_batches, unstack_inputs
from bmcli.training.graph_ops import (
    CALL_S,
    batch_rows,
    full_batches,
    gather_replicas,
    graph_function,
    repeat,
    replica_share,
    rest_rows,
)
from bmcli.training.loss import compute_losses, regularization_loss
from bmcli.training.meters import Meters


class PassStopped(Exception):
    """A pass over rows was left unfinished because of a signal."""


def _never_stop() -> bool:
    return False


class CallPacer:
    """Number of batches per call of a compiled loop.

    A call takes about `CALL_S`: Python handles signals only between calls.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.batches = 1

    def after_call(self, count: int, seconds: float, should_stop: Callable[[], bool]) -> None:
        """Adapt the number of batches to the time that a call of `count` batches took.

        Raises:
            PassStopped: `should_stop` returned true on at least one worker.
        """
        # Collective operations wait for all workers: these must make calls of the same size, so the chief's clock
        # counts, and must stop at the same call. One sum exchanges both.
        own = seconds if self._placement.is_chief else 0.0
        seconds, stopping = self._placement.sum_over_workers([own, float(should_stop())])
        if stopping:
            raise PassStopped
        # At most doubled, because the first calls also trace and compile.
        self.batches = max(1, min(2 * self.batches, int(CALL_S * count / max(seconds, 1e-6))))


class Evaluator:
    """Evaluation of a network on a split: every row once, in the order of the split."""

    def __init__(
        self, network: Network, feed: Feed, batch: int, placement: Placement, meters: Meters | None = None
    ) -> None:
        self.network, self.feed, self.batch, self.placement, self.meters = network, feed, batch, placement, meters
        # Shares of replicas and programs of a TPU need static shapes; otherwise one trace serves the ragged batch too.
        self._accepts_any_size = placement.replicas == 1 and placement.kind != "tpu"
        self._measure_many = graph_function(self._loop)
        self._measure_rest = graph_function(self._measure_batch)
        self._predict = graph_function(self._predict_batch)
        self._pacer = CallPacer(placement)

    def measure(self, should_stop: Callable[[], bool] = _never_stop) -> dict[str, float]:
        """Compute loss and metrics over the split.

        Args:
            should_stop: Whether to leave the pass; called after every call of some batches.

        Raises:
            PassStopped: `should_stop` returned true.
        """
        assert self.meters is not None, "a pass that measures needs meters"
        self.meters.reset()
        for block, is_rest in iterate_batches(self.feed, self.batch, lambda: self._pacer.batches):
            start = time.perf_counter()
            if is_rest and not self._accepts_any_size:
                self._measure_rest(block.data, rest_rows(block, self.batch))
            else:
                self._measure_many(block.data, block.rows, tf.constant(block.first), tf.constant(block.count))
            self.meters.loss()  # waits for the device, which computes in the background: the time would be too short
            self._pacer.after_call(block.count, time.perf_counter() - start, should_stop)
        return self.meters.results()

    def predict(self) -> dict[str, np.ndarray]:
        """Predict all rows by target, in the order of the split."""
        batches = []
        for block, _ in iterate_batches(self.feed, self.batch):
            for number in range(block.first, block.first + block.count):
                batches.append(self._predict(block.data, batch_rows(block.rows, number, self.batch)))
        return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in self.network.objectives}

    def _loop(self, data: Any, rows: Any, first: Any, count: Any) -> None:
        take_rows = batch_rows if self._accepts_any_size else full_batches

        def measure_next(done: Any) -> tuple[Any]:
            self._measure_batch(data, take_rows(rows, first + done, self.batch))
            return (done + 1,)

        repeat(count, measure_next)

    def _measure_batch(self, data: Any, rows: Any) -> None:
        self.placement.strategy.run(self._measure, args=(data, rows))

    def _measure(self, data: Any, rows: Any) -> None:
        assert self.meters is not None
        rows, counts = replica_share(rows, self.placement.replicas)
        examples = gather_rows(data, rows)
        outputs = self.network.model(unstack_inputs(examples), training=False)
        losses = compute_losses(self.network, examples, outputs)
        losses = losses if counts is None else losses * counts
        self.meters.update(
            losses, regularization_loss(self.network), examples["targets"], self.network.predict(outputs), counts
        )

    def _predict_batch(self, data: Any, rows: Any) -> dict[str, Any]:
        strategy = self.placement.strategy
        results = strategy.run(self._predict_share, args=(data, rows))
        # Each replica has gathered the whole batch, so that of the first one is all there is.
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    def _predict_share(self, data: Any, rows: Any) -> dict[str, Any]:
        size = rows.shape[0]
        share, counts = replica_share(rows, self.placement.replicas)
        predicted = self.network.predict(self.network.model(unstack_inputs(gather_rows(data, share)), training=False))
        if self.placement.replicas == 1:
            return predicted
        return {
            name: gather_replicas(value, counts, size, self.placement.replicas) for name, value in predicted.items()
        }
