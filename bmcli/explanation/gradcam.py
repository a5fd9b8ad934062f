"""Grad-CAM: the parts of a picture or sequence where the last convolution supports the predicted class.

Selvaraju et al. 2017: the sum of its feature maps, each multiplied by the mean gradient of the score with respect to
it; negative values are set to 0.
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
    """Grad-CAM of one network and target."""

    def __init__(self, network: Network, score: TargetScore, maps: object) -> None:
        self.score = score
        self._front, self._back = graph.build_front(network, [maps]), graph.build_back(network, [maps])

    def __call__(self, rows: Split, chosen: np.ndarray) -> np.ndarray:
        """Compute the heat of each row in the size of the maps, `(rows, height, width)` or `(rows, steps)`; not scaled.

        Args:
            chosen: Class of each row, `(rows,)`.
        """
        encoded = self.score.read_rows(rows)
        # Means and sums below are computed in float32, also under mixed precision.
        maps = tf.cast(self._front(encoded, training=False)["0"], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = self.score(self._back([maps], encoded), encoded, tf.constant(chosen))
        spatial_axes = list(range(1, len(maps.shape) - 1))
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=spatial_axes, keepdims=True)
        heat: np.ndarray = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
        return heat


def find_maps(network: Network) -> object | None:
    """Find the feature maps of the last convolution; None if the network has none."""
    return graph.find_last_maps(network)


def normalize_heat(heat: np.ndarray) -> np.ndarray:
    """Scale the heat of one row to a maximum of 1."""
    return heat / max(float(heat.max()), 1e-12)
