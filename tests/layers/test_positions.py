from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.layers.positions import Positions


def test_sinusoids_are_those_of_the_paper() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos of the same."""
    added = Positions("sinusoidal")(tf.zeros((1, 5, 6))).numpy()[0]
    for position in range(5):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(added[position, 2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(added[position, 2 * i + 1], np.cos(angle), atol=1e-6)


def test_only_learned_positions_are_trained() -> None:
    learned, fixed = Positions("learned"), Positions("sinusoidal")
    for layer in (learned, fixed):
        assert layer(tf.zeros((2, 5, 6))).shape == (2, 5, 6)
    assert [weight.shape for weight in learned.trainable_weights] == [(5, 6)]
    assert fixed.trainable_weights == []


def test_each_position_gets_its_own_vector() -> None:
    added = Positions("learned")(tf.zeros((2, 5, 6))).numpy()
    assert len({row.tobytes() for row in added[0]}) == 5
    np.testing.assert_array_equal(added[0], added[1])
