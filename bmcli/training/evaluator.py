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
    gather_batch,
    gather_replicas,
    graph_function,
    repeat,
    replica_share,
    rest_rows,
)
from bmcli.training.loss import ExampleLosses, compute_label_losses, regularization_loss
from bmcli.training.meters import Meters
from bmcli.training.objective_batch import predict_outputs, prepare_examples, run_network


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
    """Evaluation of a network on a split: every row once, in the order of the split.

    Args:
        meters: Of a pass that measures; None if it only predicts.
        seed: That of the recipe, for the random numbers of objectives in a pass that measures.
    """

    def __init__(
        self,
        network: Network,
        feed: Feed,
        batch: int,
        placement: Placement,
        meters: Meters | None = None,
        seed: int = 0,
    ) -> None:
        self.network, self.feed, self.batch, self.placement, self.meters = network, feed, batch, placement, meters
        self._seed = seed
        self._compares_examples = any(objective.couples_examples for objective in network.objectives.values())
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
        done = 0
        for block, is_rest in iterate_batches(self.feed, self.batch, lambda: self._pacer.batches):
            start, number = time.perf_counter(), tf.constant(done)
            if is_rest and not self._accepts_any_size:
                self._measure_rest(block.data, rest_rows(block, self.batch), number)
            else:
                self._measure_many(block.data, block.rows, tf.constant(block.first), tf.constant(block.count), number)
            self.meters.loss()  # waits for the device, which computes in the background: the time would be too short
            self._pacer.after_call(block.count, time.perf_counter() - start, should_stop)
            done += block.count
        return self.meters.results()

    def predict(self) -> dict[str, np.ndarray]:
        """Predict all rows by target, in the order of the split."""
        batches = []
        for block, _ in iterate_batches(self.feed, self.batch):
            for number in range(block.first, block.first + block.count):
                batches.append(self._predict(block.data, batch_rows(block.rows, number, self.batch)))
        return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in self.network.objectives}

    def _loop(self, data: Any, rows: Any, first: Any, count: Any, number: Any) -> None:
        """Measure some batches.

        Args:
            first: The first of them in `rows`.
            number: That of the first in the split.
        """
        take_rows = batch_rows if self._accepts_any_size else full_batches

        def measure_next(done: Any) -> tuple[Any]:
            self._measure_batch(data, take_rows(rows, first + done, self.batch), number + done)
            return (done + 1,)

        repeat(count, measure_next)

    def _measure_batch(self, data: Any, rows: Any, number: Any) -> None:
        self.placement.strategy.run(self._measure, args=(data, rows, number))

    def _measure(self, data: Any, rows: Any, number: Any) -> None:
        assert self.meters is not None
        replicas, network = self.placement.replicas, self.network
        size = rows.shape[0] or tf.size(rows)
        share, counts = replica_share(rows, replicas)
        places = None if replicas == 1 else replica_share(tf.range(size), replicas)[0]
        # The number of a batch takes the place of the step, so that every pass draws the same for a row.
        examples = prepare_examples(network, gather_rows(data, share), self._seed, number, size, places, training=False)
        outputs = run_network(network, examples, training=False)
        losses = self._compute_losses(examples, outputs, counts, size)
        losses = losses if counts is None else losses.map(lambda values: values * counts)
        self.meters.update(
            losses,
            regularization_loss(network),
            examples["targets"],
            predict_outputs(network, examples, outputs),
            counts,
            row_weights=examples.get("weights"),
        )

    def _compute_losses(self, examples: Any, outputs: Any, counts: Any, size: Any) -> ExampleLosses:
        """Compute the losses of this replica's examples; those that are compared need the whole batch."""
        replicas = self.placement.replicas
        if replicas == 1 or not self._compares_examples:
            return compute_label_losses(self.network, examples, outputs)
        compared = {name: value for name, value in examples.items() if name not in ("inputs", "stacks")}
        examples, outputs = gather_batch((compared, outputs), counts, size, replicas)
        own, _ = replica_share(tf.range(size), replicas)
        return compute_label_losses(self.network, examples, outputs).map(lambda values: tf.gather(values, own))

    def _predict_batch(self, data: Any, rows: Any) -> dict[str, Any]:
        strategy = self.placement.strategy
        results = strategy.run(self._predict_share, args=(data, rows))
        # Each replica has gathered the whole batch, so that of the first one is all there is.
        return {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}

    def _predict_share(self, data: Any, rows: Any) -> dict[str, Any]:
        size = rows.shape[0]
        share, counts = replica_share(rows, self.placement.replicas)
        inputs = unstack_inputs(gather_rows(data, share))
        predicted = self.network.predict(self.network.run_prediction(inputs), inputs)
        if self.placement.replicas == 1:
            return predicted
        return {
            name: gather_replicas(value, counts, size, self.placement.replicas) for name, value in predicted.items()
        }
