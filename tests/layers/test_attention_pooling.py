from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.layers.attention_pooling import AttentionPooling

STEPS = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
MASK = np.array([[True, True, False, False], [False] * 4])


def test_the_weights_of_valid_steps_add_up_to_one() -> None:
    alike = np.repeat(STEPS[:, :1], 4, axis=1)
    np.testing.assert_allclose(AttentionPooling()(alike, mask=MASK)[0], STEPS[0, 0], rtol=1e-5)


def test_the_mean_is_weighted_by_what_answers_the_query() -> None:
    layer = AttentionPooling(units=2)
    layer.build((None, 4, 3))
    kernel, bias, query = (np.random.default_rng(1).normal(size=w.shape) for w in layer.weights)
    layer.set_weights([kernel, bias, query])
    scores = np.exp(np.tanh(STEPS[0] @ kernel + bias) @ query)[:, 0]
    expected = (scores[:, None] * STEPS[0]).sum(0) / scores.sum()
    np.testing.assert_allclose(layer(STEPS)[0], expected, rtol=1e-5)


def test_padding_is_left_out() -> None:
    layer = AttentionPooling()
    changed = STEPS.copy()
    changed[0, 2:] = 1000.0
    np.testing.assert_array_equal(layer(STEPS, mask=MASK), layer(changed, mask=MASK))


def test_no_steps_give_zeros_and_finite_gradients() -> None:
    steps = tf.constant(STEPS)
    with tf.GradientTape() as tape:
        tape.watch(steps)
        pooled = AttentionPooling()(steps, mask=MASK)
    np.testing.assert_array_equal(pooled[1], np.zeros(3))
    assert np.isfinite(tape.gradient(pooled, steps)).all()


def test_half_precision_stays_finite() -> None:
    pooled = AttentionPooling(dtype="mixed_float16")(STEPS, mask=MASK)
    assert pooled.dtype == tf.float16
    assert np.isfinite(pooled).all()
