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
from bmcli.training.evaluator import Evaluator
from bmcli.training.feed import make_feed, stack_inputs, unstack_inputs

BATCH_SIZE = 512
WARM_UP, TIMED = 10, 100  # predictions of one example
MAX_TIMED_S = 2.0  # of slow networks fewer predictions are timed


class Predictor:
    """Predictor of rows that arrive in pieces; its function is traced only once."""

    def __init__(self, network: Network) -> None:
        self._columns = tuple(network.model.input)
        # Arrays of no rows show which columns are stacked. The signature leaves the number of rows open, so that pieces
        # of any size share one trace.
        empty = {name: np.zeros((0, *each.shape[1:]), each.dtype) for name, each in network.model.input.items()}
        signature = tf.nest.map_structure(
            lambda each: tf.TensorSpec((None, *each.shape[1:]), each.dtype), stack_inputs(empty)
        )

        def predict_arrays(arrays: Any) -> dict[str, Any]:
            inputs = unstack_inputs(arrays)
            return network.predict(network.run_prediction(inputs), inputs)

        self._predict = tf.function(predict_arrays, input_signature=[signature], autograph=False)

    def __call__(self, rows: Split) -> dict[str, np.ndarray]:
        """Predict rows; the result has the form of that of `predict`."""
        arrays = stack_inputs({name: rows.inputs[name] for name in self._columns})

        def batch(start: int) -> Any:
            return tf.nest.map_structure(
                lambda array: tf.constant(np.asarray(array[start : start + BATCH_SIZE])), arrays
            )

        batches = [self._predict(batch(start)) for start in range(0, len(rows), BATCH_SIZE)]
        return {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in batches[0]}


def predict(network: Network, rows: Split, runtime: RuntimeOptions, placement: Placement) -> dict[str, np.ndarray]:
    """Predict rows by target: probabilities `(rows, classes)`, or numbers in the target's unit `(rows,)`."""
    feed = make_feed(rows, runtime, placement)
    return Evaluator(network, feed, min(BATCH_SIZE, feed.count), placement).predict()


def measure_latency_s(network: Network, rows: Split) -> float:
    """Measure the median seconds to predict one example, from the encoded arrays of the first row."""
    predictor = Predictor(network)
    one = Split({name: values[:1] for name, values in rows.inputs.items()}, {})
    for _ in range(WARM_UP):  # the first one traces
        predictor(one)
    times: list[float] = []
    while len(times) < TIMED and sum(times) < MAX_TIMED_S:
        start = time.perf_counter()
        predictor(one)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
