"""Predictions of a trained network."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.recipe.runtime import RuntimeOptions
from bmcli.specs import Split
from bmcli.training import feed as feeds
from bmcli.training.evaluator import Evaluator
from bmcli.training.feed import inputs_of, stacked

BATCH_SIZE = 512
WARM_UP, TIMED = 10, 100  # predictions of one example
MAX_TIMED_S = 2.0  # no more are timed once they took so long


class Predictor:
    """Predicts rows that come bit by bit, by a function that is compiled once."""

    def __init__(self, network: Network) -> None:
        self._columns = tuple(network.model.input)
        # Of no rows: what is stacked decides the signature.
        none = {name: np.zeros((0, *each.shape[1:]), each.dtype) for name, each in network.model.input.items()}
        signature = tf.nest.map_structure(
            lambda each: tf.TensorSpec((None, *each.shape[1:]), each.dtype), stacked(none)
        )
        self._predict = tf.function(
            lambda arrays: network.predict(network.model(inputs_of(arrays), training=False)),
            input_signature=[signature],
            autograph=False,
        )

    def __call__(self, rows: Split) -> dict[str, np.ndarray]:
        """As `predict` gives them."""
        arrays = stacked({name: rows.inputs[name] for name in self._columns})

        def batch(start: int) -> Any:
            return tf.nest.map_structure(lambda array: tf.constant(array[start : start + BATCH_SIZE]), arrays)

        found = [self._predict(batch(start)) for start in range(0, len(rows), BATCH_SIZE)]
        return {name: np.concatenate([batch[name].numpy() for batch in found]) for name in found[0]}


def predict(network: Network, rows: Split, runtime: RuntimeOptions, placement: Placement) -> dict[str, np.ndarray]:
    """Probabilities `(rows, classes)` or numbers in their own unit `(rows,)`, by target, in the order of the rows."""
    feed = feeds.make_feed(rows, runtime, placement)
    return Evaluator(network, feed, min(BATCH_SIZE, feed.count), placement).predict()


def measure_latency_s(network: Network, rows: Split) -> float:
    """Median seconds to predict one example, from the encoded arrays of the first row to its predictions."""
    predictor = Predictor(network)
    one = Split({name: values[:1] for name, values in rows.inputs.items()}, {})
    for _ in range(WARM_UP):  # the first one traces
        predictor(one)
    taken: list[float] = []
    while len(taken) < TIMED and sum(taken) < MAX_TIMED_S:
        start = time.perf_counter()
        predictor(one)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
