"""Grad-CAM: where in a picture or sequence the last convolution found what speaks for an answer.

Selvaraju et al. 2017: its maps are added up, each times the mean gradient of the answer by it, and what speaks
against is left out.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.explanation import graph
from bmcli.explanation.scores import TargetScore
from bmcli.networks.network import Network
from bmcli.specs import Split

PAPER = "Selvaraju et al. 2017"


class GradCam:
    """The method for one network and target."""

    def __init__(self, network: Network, score: TargetScore, maps: object) -> None:
        self.score = score
        self._front, self._back = graph.build_front(network, [maps]), graph.build_back(network, [maps])

    def __call__(self, rows: Split, chosen: np.ndarray) -> np.ndarray:
        """Heat of each row as large as the maps, `(rows, height, width)` or `(rows, steps)`, from 0; not scaled.

        Args:
            chosen: Class of each row, `(rows,)`.
        """
        encoded = {name: tf.constant(np.asarray(cells)) for name, cells in rows.inputs.items()}
        maps = tf.cast(self._front(encoded, training=False)["0"], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = self.score(self._back([maps], encoded), tf.constant(chosen))
        places = list(range(1, len(maps.shape) - 1))
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=places, keepdims=True)
        heat: np.ndarray = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
        return heat


def find_maps(network: Network) -> object | None:
    """The tensor that the method looks at; None if the network has no convolution."""
    return graph.find_last_maps(network)


def normalize_heat(heat: np.ndarray) -> np.ndarray:
    """One row's heat from 0 to 1."""
    return heat / max(float(heat.max()), 1e-12)
