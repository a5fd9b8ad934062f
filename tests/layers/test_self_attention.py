from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.layers.positions import Positions
from bmcli.layers.self_attention import SelfAttention

ROWS = np.random.default_rng(0).normal(size=(3, 7, 16)).astype("float32")


def copy_of_keras(attention: keras.layers.MultiHeadAttention, **options: Any) -> SelfAttention:
    """Make our layer with the weights of Keras'."""
    own = SelfAttention(4, 4, **options)
    own(ROWS)
    for source, variable in zip(attention.weights, own.weights, strict=True):
        variable.assign(tf.reshape(source.value, variable.shape))
    return own


@pytest.mark.parametrize("causal", [False, True])
def test_it_equals_the_attention_of_keras(causal: bool) -> None:
    keras.utils.set_random_seed(1)
    attention = keras.layers.MultiHeadAttention(4, 4)
    mask = np.arange(7) < np.array([[7], [4], [1]])
    attention(ROWS, ROWS)
    own = copy_of_keras(attention, causal=causal)
    expected = attention(ROWS, ROWS, attention_mask=mask[:, None], use_causal_mask=causal)
    np.testing.assert_allclose(own(ROWS, mask=mask), expected, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"rotary": True}, {"key_value_heads": 2, "rotary": True}], ids=str)
def test_step_by_step_it_computes_the_same(options: dict[str, Any]) -> None:
    keras.utils.set_random_seed(2)
    layer = SelfAttention(4, 4, causal=True, **options)
    expected, cache, found = layer(ROWS), layer.make_cache(3, 9), []
    for position in range(7):
        output, cache = layer.advance(tf.constant(ROWS[:, position : position + 1]), cache, tf.constant(position))
        found.append(output)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-6)


def test_no_step_sees_a_later_one_if_it_is_causal() -> None:
    layer = SelfAttention(4, 4, causal=True)
    changed = ROWS.copy()
    changed[:, 4:] += 1
    first, second = (layer(rows).numpy() for rows in (ROWS, changed))
    np.testing.assert_array_equal(first[:, :4], second[:, :4])
    assert np.abs(first[:, 4:] - second[:, 4:]).min(axis=(0, 2)).all()


def test_rotary_attention_depends_on_distances_alone() -> None:
    keras.utils.set_random_seed(3)
    layer = SelfAttention(2, 8, rotary=True)
    shifted = np.concatenate([np.zeros((3, 5, 16), "float32"), ROWS], axis=1)
    mask = np.arange(12)[None] >= np.full((3, 1), 5)
    np.testing.assert_allclose(layer(shifted, mask=mask)[:, 5:], layer(ROWS), atol=1e-5)
    turned = layer(ROWS[:, ::-1].copy())[:, ::-1]
    assert np.abs(turned - layer(ROWS)).max() > 1e-3


def test_heads_share_keys_and_values() -> None:
    """With equal weights in every group, grouped queries are plain attention with repeated keys."""
    grouped, plain = SelfAttention(4, 4, key_value_heads=2), SelfAttention(4, 4)
    grouped(ROWS)
    plain(ROWS)
    for name in ("query_dense", "output_dense"):
        getattr(plain, name).set_weights(getattr(grouped, name).get_weights())
    for name in ("key_dense", "value_dense"):
        kernel, bias = getattr(grouped, name).get_weights()
        repeated = np.repeat(kernel.reshape(16, 2, 4), 2, axis=1).reshape(16, 16)
        getattr(plain, name).set_weights([repeated, np.repeat(bias.reshape(2, 4), 2, axis=0).reshape(16)])
    np.testing.assert_allclose(grouped(ROWS), plain(ROWS), atol=1e-6)
    assert grouped.count_params() < plain.count_params()


def test_a_seed_of_the_initializer_gives_other_weights_to_queries_than_to_keys() -> None:
    layer = SelfAttention(2, 8, kernel_initializer=keras.initializers.GlorotUniform(seed=5))
    layer(ROWS)
    kernels = [each.kernel.numpy() for each in (layer.query_dense, layer.key_dense, layer.value_dense)]
    assert all(np.abs(one - other).max() > 0.1 for one, other in itertools.pairwise(kernels))


def test_a_saved_network_has_the_same_attention(tmp_path: Path) -> None:
    steps = keras.Input((7, 16))
    model = keras.Model(steps, SelfAttention(4, 4, 2, rotary=True, causal=True, dropout=0.1)(Positions()(steps)))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(ROWS), model(ROWS))


def test_attention_to_later_steps_cannot_be_computed_step_by_step() -> None:
    layer = SelfAttention(4, 4)
    layer(ROWS)
    with pytest.raises(ValueError, match="attends to later steps"):
        layer.advance(tf.constant(ROWS[:, :1]), layer.make_cache(3, 7), tf.constant(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4, "size": 4, "key_value_heads": 3}, "cannot share"),
        ({"heads": 2, "size": 3, "rotary": True}, "even"),
    ],
)
def test_heads_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfAttention(**options)
