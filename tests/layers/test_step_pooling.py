from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bmcli.layers.step_pooling import StepPooling

STEPS = np.array([[[1.0, -5.0], [3.0, -7.0], [100.0, 100.0]], [[9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]], "float32")
MASK = np.array([[True, True, False], [False, False, False]])


@pytest.mark.parametrize(("mode", "pooled"), [("mean", [2.0, -6.0]), ("max", [3.0, -5.0]), ("last", [3.0, -7.0])])
def test_padding_is_left_out(mode: str, pooled: list[float]) -> None:
    np.testing.assert_array_equal(StepPooling(mode)(STEPS, mask=MASK)[0], pooled)


@pytest.mark.parametrize("mode", ["mean", "max", "last"])
def test_no_steps_give_zeros_and_finite_gradients(mode: str) -> None:
    steps = tf.constant(STEPS)
    with tf.GradientTape() as tape:
        tape.watch(steps)
        pooled = StepPooling(mode)(steps, mask=MASK)
    np.testing.assert_array_equal(pooled[1], [0.0, 0.0])
    assert np.isfinite(tape.gradient(pooled, steps)).all()


@pytest.mark.parametrize("mode", ["mean", "max", "last"])
def test_without_a_mask_every_step_counts(mode: str) -> None:
    everything = tf.ones((2, 3), tf.bool)
    np.testing.assert_allclose(StepPooling(mode)(STEPS), StepPooling(mode)(STEPS, mask=everything), rtol=1e-6)


def test_the_mean_of_many_half_precision_steps_does_not_overflow() -> None:
    steps = tf.fill((1, 4000, 1), tf.constant(60.0, tf.float16))
    pooled = StepPooling("mean", dtype="float16")(steps, mask=tf.ones((1, 4000), tf.bool))
    assert pooled.dtype == tf.float16
    assert float(pooled[0, 0]) == 60.0
