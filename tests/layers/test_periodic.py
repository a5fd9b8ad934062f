from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.layers.periodic import Periodic

NUMBERS = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")


def test_waves_go_through_a_dense_layer_of_each_number() -> None:
    layer = Periodic(frequencies=3, deviation=0.5, width=4)
    found = layer(NUMBERS)
    rates, kernel, bias = layer.get_weights()
    assert found.shape == layer.compute_output_shape((5, 2)) == (5, 2, 4)
    for number in range(2):
        angles = 2 * np.pi * NUMBERS[:, number, None] * rates[number]
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        np.testing.assert_allclose(found[:, number], np.maximum(waves @ kernel[number] + bias[number], 0), atol=1e-5)


def test_the_deviation_is_that_of_the_frequencies() -> None:
    layer = Periodic(frequencies=5000, deviation=0.3, width=1)
    layer.build((None, 2))
    assert abs(float(np.std(layer.get_weights()[0])) - 0.3) < 0.01


def test_angles_are_computed_in_float32_in_mixed_precision() -> None:
    half, full = (Periodic(4, 20.0, 3, dtype=dtype) for dtype in ("mixed_bfloat16", "float32"))
    expected = full(NUMBERS)
    half.build((None, 2))
    half.set_weights(full.get_weights())
    # As far apart as rounding the waves makes them; rounded angles would be off by a radian.
    np.testing.assert_allclose(tf.cast(half(NUMBERS), "float32"), expected, atol=0.05)
