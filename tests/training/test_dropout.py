"""Dropout from a hash: as random as it has to be, a function of the seed, and the one that Keras' layers call."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.training import dropout
from bmcli.training.dropout import draw_uint32, use_hashed_dropout
from tests.trainers import MakeTrainer, Silent, same, weights_of

COUNT = 2**16
ORIGINAL = tf.nn.experimental.stateless_dropout


def dropped(rate: float, seed: Any = (3, 4), shape: tuple[int, ...] = (COUNT,), **more: Any) -> np.ndarray:
    with use_hashed_dropout():
        return tf.nn.experimental.stateless_dropout(tf.ones(shape), rate=rate, seed=seed, **more).numpy()


def drawn(seed: Any, count: int = COUNT) -> np.ndarray:
    return draw_uint32((count,), seed).numpy()


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.astype(float), second.astype(float))[0, 1])


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_requested_share_is_kept(rate: float) -> None:
    kept = np.mean(dropped(rate) != 0)
    assert abs(kept - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / COUNT)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_kept_is_scaled_and_keeps_its_type(dtype: str) -> None:
    x = tf.cast(tf.random.stateless_normal((COUNT,), (1, 2)), dtype)
    with use_hashed_dropout():
        found = tf.nn.experimental.stateless_dropout(x, rate=0.25, seed=(3, 4))
    assert found.dtype == x.dtype
    values, given = tf.cast(found, tf.float32).numpy(), tf.cast(x / tf.cast(0.75, dtype), tf.float32).numpy()
    assert np.array_equal(values[values != 0], given[values != 0])
    assert abs(np.mean(values == 0) - 0.25) < 0.01


def test_what_is_dropped_has_no_gradient_and_what_is_kept_the_scale() -> None:
    x = tf.ones((1000,))
    with tf.GradientTape() as tape, use_hashed_dropout():
        tape.watch(x)
        found = tf.nn.experimental.stateless_dropout(x, rate=0.2, seed=(3, 4))
    assert np.array_equal(tape.gradient(found, x), found)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_dropped_is_zero_whatever_it_was(value: float) -> None:
    with use_hashed_dropout():
        found = tf.nn.experimental.stateless_dropout(tf.fill((1000,), value), rate=0.5, seed=(3, 4)).numpy()
    assert set(found[np.isfinite(found)]) == {0.0}


def test_xla_and_plain_kernels_draw_the_same_words() -> None:
    @tf.function(jit_compile=True, autograph=False)
    def compiled(seed: Any) -> Any:
        return draw_uint32((17, 31), seed)

    for seed in ((3, 4), (2**31 - 1, 0), (-5, 7)):
        given = tf.constant(seed, tf.int32)
        assert np.array_equal(compiled(given), draw_uint32((17, 31), given))


def test_words_are_a_function_of_the_seed_s_32_bits_whatever_its_type() -> None:
    for seed in ((3, 4), (2**32 - 1, 2**31)):
        signed = np.array(seed, np.uint32).view(np.int32)
        expected = drawn(tf.constant(seed, tf.uint32), 100)
        assert np.array_equal(drawn(tf.constant(signed), 100), expected)
        assert np.array_equal(drawn(tf.constant(seed, tf.int64), 100), expected)
    assert np.array_equal(drawn((3, 4), 100), drawn((3, 4), 100))


def test_a_shape_that_is_known_late_gives_the_same_words() -> None:
    late = tf.function(lambda x: dropout._hashed_dropout(x, 0.5, (3, 4)), autograph=False)
    found = late.get_concrete_function(tf.TensorSpec((None, 7)))(tf.ones((9, 7)))
    assert np.array_equal(found, dropped(0.5, shape=(9, 7)))


@pytest.mark.parametrize("other", [(4, 4), (3, 5), (4, 3), (3 + 0x9E3779B1, 4), (3, 2**31 + 4), (0, 0), (1, 0), (0, 1)])
def test_another_seed_or_step_gives_an_unrelated_mask(other: tuple[int, int]) -> None:
    assert abs(correlation(drawn((3, 4)), drawn(other))) < 5 / np.sqrt(COUNT)
    kept = dropped(0.5) != 0
    assert abs(np.mean(kept == (dropped(0.5, seed=other) != 0)) - 0.5) < 5 * 0.5 / np.sqrt(COUNT)


@pytest.mark.parametrize("seed", [(0, 0), (1, 0), (0, 1), (5, 100), (2**31 - 1, 2**31 - 1)])
def test_words_look_random(seed: tuple[int, int]) -> None:
    found = drawn(seed)
    bound = 5 / np.sqrt(COUNT)
    assert abs(np.mean(found / 2**32) - 0.5) < bound * np.sqrt(1 / 12)
    for lag in (1, 2, 8, 64, 128, 1024):
        assert abs(correlation(found[:-lag], found[lag:])) < bound, lag
    for shift in (0, 8, 16, 24):
        counts = np.bincount((found >> shift) & 255, minlength=256)
        chi_square = float(((counts - COUNT / 256) ** 2 / (COUNT / 256)).sum())
        assert 150 < chi_square < 390, shift  # 255 degrees of freedom: the quantiles 1e-8 and 1 - 1e-7
    for bit in range(32):
        assert abs(np.mean((found >> bit) & 1) - 0.5) < 0.5 * bound, bit
    assert len(np.unique(found)) == COUNT, "distinct places have distinct words: each step of the hash is a bijection"


def test_one_place_is_random_over_the_steps_of_a_training() -> None:
    steps = 2048
    of_step = tf.function(lambda step: draw_uint32((16,), tf.stack([7, step])), autograph=False)
    found = np.array([of_step(step) for step in tf.range(steps)])
    kept = found >= 2**31
    assert np.all(np.abs(kept.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(steps))
    for place in range(16):
        assert abs(correlation(found[:-1, place], found[1:, place])) < 5 / np.sqrt(steps)


def test_a_noise_shape_drops_whole_channels() -> None:
    kept = dropped(0.5, shape=(8, 10, 32), noise_shape=(8, 1, 32)) != 0
    assert np.array_equal(kept, np.broadcast_to(kept[:, :1], kept.shape))
    assert 0.3 < kept[:, 0].mean() < 0.7
    with use_hashed_dropout():
        spatial = keras.layers.SpatialDropout1D(0.5, seed=3)(tf.ones((8, 10, 32)), training=True).numpy()
    assert np.array_equal(spatial, np.broadcast_to(spatial[:, :1], spatial.shape))
    assert set(np.unique(spatial)) == {0.0, 2.0}


def attention(x: Any) -> Any:
    return keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(x, x, training=True)


LAYERS: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda x: keras.layers.Dropout(0.5)(x, training=True),
    "noise_shape": lambda x: keras.layers.Dropout(0.5, noise_shape=(None, 1, None))(x, training=True),
    "spatial": lambda x: keras.layers.SpatialDropout1D(0.5)(x, training=True),
    "attention": attention,
    "simple": lambda x: keras.layers.SimpleRNN(3, dropout=0.5)(x, training=True),
    "gru": lambda x: keras.layers.GRU(3, dropout=0.5)(x, training=True),
    "recurrent gru": lambda x: keras.layers.GRU(3, recurrent_dropout=0.5)(x, training=True),
    "lstm": lambda x: keras.layers.LSTM(3, dropout=0.5)(x, training=True),
    "recurrent lstm": lambda x: keras.layers.LSTM(3, recurrent_dropout=0.5)(x, training=True),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rates that the hashed dropout was called with."""
    called: list[Any] = []
    ours = dropout._hashed_dropout

    def counted(x: Any, rate: float, *others: Any, **more: Any) -> Any:
        called.append(rate)
        return ours(x, rate, *others, **more)

    monkeypatch.setattr(dropout, "_hashed_dropout", counted)
    return called


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_keras_draw_from_the_hash(name: str, calls: list[Any]) -> None:
    """Fail if Keras no longer calls the function that is replaced: XLA would be slow again."""
    with use_hashed_dropout():
        LAYERS[name](tf.ones((2, 5, 4)))
    assert calls
    assert set(calls) == {0.5}


@pytest.mark.parametrize(("jit", "reached"), [(True, True), (False, False)])
def test_steps_draw_from_the_hash_under_xla_alone(
    make_trainer: MakeTrainer, calls: list[Any], jit: bool, reached: bool
) -> None:
    trainer = make_trainer(f"runtime.jit={str(jit).lower()}", "train.epochs=1", "train.stop.steps=1")
    trainer.train(Silent())
    assert bool(calls) is reached


def test_everything_is_as_before_afterwards() -> None:
    with use_hashed_dropout():
        assert tf.nn.experimental.stateless_dropout is not ORIGINAL
        with use_hashed_dropout():
            pass
        assert tf.nn.experimental.stateless_dropout is not ORIGINAL
    assert tf.nn.experimental.stateless_dropout is ORIGINAL
    with pytest.raises(ZeroDivisionError), use_hashed_dropout():
        raise ZeroDivisionError
    assert tf.nn.experimental.stateless_dropout is ORIGINAL


def test_a_compiled_training_has_the_same_bits_again_and_when_resumed(make_trainer: MakeTrainer) -> None:
    settings = (
        "runtime.jit=true", "model.dropout=0.4", "train.epochs=2", "train.select.metric=last",
        "train.checkpoint.steps=6",
    )  # fmt: skip
    whole, again = make_trainer(*settings), make_trainer(*settings)
    whole.train(Silent())
    again.train(Silent())
    assert same(weights_of(whole), weights_of(again))
    shutil.rmtree(again.run.checkpoints / "step-000000016")
    resumed = make_trainer(*settings, run=again.run)
    resumed.resume()
    assert resumed.progress.step == 12
    resumed.train(Silent())
    assert same(weights_of(resumed), weights_of(whole))
