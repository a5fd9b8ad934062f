"""Passes over a split without learning."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.training.feed import Feed, gather_rows, inputs_of, iterate_batches
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
    """A pass over rows was left, because a signal came."""


def _never_stop() -> bool:
    return False


class CallPacer:
    """The number of batches of a call: they fill about `CALL_S`, so that signals are answered between calls."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.batches = 1

    def after_call(self, count: int, seconds: float, should_stop: Callable[[], bool]) -> None:
        """Takes up how long a call of `count` batches took; all workers go by the clock of the chief.

        Raises:
            PassStopped: One of the workers is to stop.
        """
        own = seconds if self._placement.is_chief else 0.0
        seconds, stopping = self._placement.sum_over_workers([own, float(should_stop())])
        if stopping:
            raise PassStopped
        # At most doubled, because the first calls also trace and compile.
        self.batches = max(1, min(2 * self.batches, int(CALL_S * count / max(seconds, 1e-6))))


class Evaluator:
    """A pass over a split without learning: every row once, in its own order."""

    def __init__(
        self, network: Network, feed: Feed, batch: int, placement: Placement, meters: Meters | None = None
    ) -> None:
        self.network, self.feed, self.batch, self.placement, self.meters = network, feed, batch, placement, meters
        self._accepts_any_size = placement.replicas == 1 and placement.kind != "tpu"
        self._measure_many = graph_function(self._loop)
        self._measure_rest = graph_function(self._measure_batch)
        self._predict = graph_function(self._predict_batch)
        self._pacer = CallPacer(placement)

    def measure(self, should_stop: Callable[[], bool] = _never_stop) -> dict[str, float]:
        """Loss and metrics over the split, by the meters given.

        Args:
            should_stop: Whether to leave the pass; asked after every call of some batches.

        Raises:
            PassStopped: It said so.
        """
        assert self.meters is not None, "a pass that measures needs meters"
        self.meters.reset()
        for block, is_rest in iterate_batches(self.feed, self.batch, lambda: self._pacer.batches):
            start = time.perf_counter()
            if is_rest and not self._accepts_any_size:
                self._measure_rest(block.data, rest_rows(block, self.batch))
            else:
                self._measure_many(block.data, block.rows, tf.constant(block.first), tf.constant(block.count))
            self.meters.loss()  # waits for the device
            self._pacer.after_call(block.count, time.perf_counter() - start, should_stop)
        return self.meters.results()

    def predict(self) -> dict[str, np.ndarray]:
        """Predictions of all rows by target, in the order of the split."""
        found = []
        for block, _ in iterate_batches(self.feed, self.batch):
            for number in range(block.first, block.first + block.count):
                found.append(self._predict(block.data, batch_rows(block.rows, number, self.batch)))
        return {name: np.concatenate([batch[name].numpy() for batch in found]) for name in self.network.objectives}

    def _loop(self, data: Any, rows: Any, first: Any, count: Any) -> None:
        def following(done: Any) -> tuple[Any]:
            chosen = batch_rows if self._accepts_any_size else full_batches
            self._measure_batch(data, chosen(rows, first + done, self.batch))
            return (done + 1,)

        repeat(count, following)

    def _measure_batch(self, data: Any, rows: Any) -> None:
        self.placement.strategy.run(self._measure, args=(data, rows))

    def _measure(self, data: Any, rows: Any) -> None:
        assert self.meters is not None
        rows, counts = replica_share(rows, self.placement.replicas)
        examples = gather_rows(data, rows)
        outputs = self.network.model(inputs_of(examples), training=False)
        each = compute_losses(self.network, examples, outputs)
        each = each if counts is None else each * counts
        self.meters.update(
            each, regularization_loss(self.network), examples["targets"], self.network.predict(outputs), counts
        )

    def _predict_batch(self, data: Any, rows: Any) -> dict[str, Any]:
        strategy = self.placement.strategy
        found = strategy.run(self._predict_share, args=(data, rows))
        return {name: strategy.experimental_local_results(value)[0] for name, value in found.items()}

    def _predict_share(self, data: Any, rows: Any) -> dict[str, Any]:
        size = rows.shape[0]
        mine, counts = replica_share(rows, self.placement.replicas)
        predicted = self.network.predict(self.network.model(inputs_of(gather_rows(data, mine)), training=False))
        if self.placement.replicas == 1:
            return predicted
        return {
            name: gather_replicas(value, counts, size, self.placement.replicas) for name, value in predicted.items()
        }
