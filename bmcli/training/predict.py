"""Predictions of a trained network."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.recipe.schema import RuntimeOptions
from bmcli.specs import Split
from bmcli.training import feed as feeds
from bmcli.training.network import Network
from bmcli.training.step import Pass
from bmcli.training.strategy import Placement

BATCH = 512


class Predictor:
    """Predicts rows that come bit by bit, by a function that is compiled once."""

    def __init__(self, network: Network) -> None:
        inputs = {
            name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in network.model.input.items()
        }
        self._predict = tf.function(
            lambda values: network.predict(network.model(values, training=False)),
            input_signature=[inputs],
            autograph=False,
        )

    def __call__(self, rows: Split) -> dict[str, np.ndarray]:
        """As `predict` gives them."""
        found = [
            self._predict({name: tf.constant(values[start : start + BATCH]) for name, values in rows.inputs.items()})
            for start in range(0, len(rows), BATCH)
        ]
        return {name: np.concatenate([batch[name].numpy() for batch in found]) for name in found[0]}


def predict(network: Network, rows: Split, runtime: RuntimeOptions, placement: Placement) -> dict[str, np.ndarray]:
    """Probabilities `(rows, classes)` or numbers in their own unit `(rows,)`, by target, in the order of the rows."""
    feed = feeds.make(rows, runtime, placement)
    return Pass(network, feed, min(BATCH, feed.count), placement).predict()
