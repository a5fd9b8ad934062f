"""Quantisation-aware training: the network sees itself as integers will have it, and its gradients do not."""

from __future__ import annotations

import shutil
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.compression.methods.round import round_to_levels, round_weights
from bmcli.compression.quantization_aware import QuantizationAware, fake_quantize
from bmcli.errors import BmcliError
from bmcli.recipe.compression import QuantizeAwareOptions
from tests.trainers import MakeTrainer, Silent, find_hook, same, weights_of
from tests.training.test_resuming import assert_same_training, rows_of

INT4 = ("train.quantize_aware={weights: int4, start: 0}", "runtime.jit=false")


def levels_of(kernel: np.ndarray) -> list[int]:
    """Number of values of each channel of a kernel."""
    return [len(np.unique(channel)) for channel in kernel.reshape(-1, kernel.shape[-1]).T]


def test_weights_become_what_integers_with_a_scale_for_each_channel_stand_for() -> None:
    kernel = np.array([[7.0, -0.7], [3.4, 0.34], [-0.4, 0.0]], "float32")
    found = round_to_levels(tf.constant(kernel), (0,), 7).numpy()
    np.testing.assert_allclose(found, [[7.0, -0.7], [3.0, 0.3], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(round_to_levels(tf.constant(found), (0,), 7).numpy(), found, atol=1e-6)
    assert round_to_levels(tf.zeros((3, 2)), (0,), 7).numpy().tolist() == [[0.0, 0.0]] * 3


def test_they_are_the_integers_of_tensorflow() -> None:
    kernel = np.random.default_rng(1).normal(size=(30, 4)).astype("float32")
    highest = np.abs(kernel).max(axis=0)
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -highest, highest, 8, True)
    np.testing.assert_allclose(round_to_levels(tf.constant(kernel), (0,), 127), expected, atol=1e-6)
    values = np.random.default_rng(2).normal(size=100).astype("float32")
    expected = tf.quantization.fake_quant_with_min_max_vars(values, -0.7, 2.1, 8)
    np.testing.assert_allclose(fake_quantize(tf.constant(values), tf.constant([-0.7, 2.1])), expected, atol=1e-5)


def test_gradients_pass_where_an_activation_lies_in_its_range() -> None:
    values = tf.constant([-1.0, 0.3, 0.31, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = fake_quantize(values, tf.constant([0.0, 1.0]))
    assert tape.gradient(found, values).numpy().tolist() == [0.0, 1.0, 1.0, 0.0]


def network() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])


def rounded_network(first: int = 0, **options: Any) -> tuple[keras.Model, QuantizationAware, Any]:
    keras.utils.set_random_seed(1)
    steps, model = keras.Variable(0, dtype="int64", trainable=False), network()
    return model, QuantizationAware(model, QuantizeAwareOptions(**options), first, steps), steps


def test_the_layers_compute_with_rounded_weights_and_learn_the_true_ones() -> None:
    keras.utils.set_random_seed(1)
    plain = network()
    model, _, _ = rounded_network(weights="int4", activations="float32")
    inputs = tf.random.stateless_normal((5, 3), (1, 2))
    assert same(plain.get_weights(), model.get_weights())
    with tf.GradientTape() as tape:
        outputs = model(inputs)
    gradients = tape.gradient(outputs, model.trainable_variables)
    round_weights(plain, "int4")
    with tf.GradientTape() as tape:
        expected = plain(inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    for mine, theirs in zip(gradients, tape.gradient(expected, plain.trainable_variables), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_rounding_begins_at_its_step() -> None:
    model, _, steps = rounded_network(first=3, weights="int4", activations="float32")
    keras.utils.set_random_seed(1)
    plain, inputs = network(), tf.ones((1, 3))
    found = []
    for step in (2, 3):
        steps.assign(step)
        found.append(bool(np.allclose(model(inputs), plain(inputs), atol=1e-6)))
    assert found == [True, False]


def test_ranges_follow_what_is_learned_from_alone() -> None:
    model, rounds, _ = rounded_network()
    model(tf.constant([[-9.0, 0.0, 9.0]]))
    assert [range_.numpy().tolist() for range_ in rounds.variables] == [[0.0, 0.0]] * 2
    with rounds.forward_pass():
        model(tf.constant([[-1.0, 0.0, 2.0]]))
    np.testing.assert_allclose(rounds.variables[0].numpy(), [-0.9, 1.8], atol=1e-6)
    assert rounds.variables[1].numpy()[0] == 0.0, "0 is in every range"


@pytest.mark.parametrize(("weights", "most"), [("int4", 15), pytest.param("int8", 255, marks=pytest.mark.slow)])
def test_the_kept_network_is_a_plain_one_with_few_values(make_trainer: MakeTrainer, weights: str, most: int) -> None:
    trainer = make_trainer(f"train.quantize_aware={weights}", "runtime.jit=false")
    outcome = trainer.train(Silent())
    model = outcome.network.model
    kernels = [weight.numpy() for weight in model.trainable_variables if weight.name == "kernel"]
    assert max(max(levels_of(kernel)) for kernel in kernels) <= most
    assert all("call" not in vars(layer) for layer in model.layers)
    assert [weight.shape for weight in model.weights] == [weight.shape for weight in trainer.network.model.weights]


def test_validation_is_that_of_the_rounded_network(make_trainer: MakeTrainer) -> None:
    settings = ("train.quantize_aware={weights: int4, activations: float32, start: 0}", "runtime.jit=false")
    watch = Silent()
    trainer = make_trainer(*settings, "train.select.metric=last")
    trainer.train(watch)
    model = trainer.network.model
    for layer in model.layers:
        vars(layer).pop("call", None)
    round_weights(model, "int4")
    plain = make_trainer("runtime.jit=false")
    plain.network.model.set_weights(model.get_weights())
    assert plain.evaluator.measure()["loss"] == pytest.approx(watch.rows[-1]["validation/loss"], abs=1e-5)


def test_epochs_before_rounding_give_way_to_later_ones(make_trainer: MakeTrainer) -> None:
    watch = Silent()
    trainer = make_trainer("train.quantize_aware={weights: int4, start: 0.5}", "train.epochs=4", "runtime.jit=false")
    outcome = trainer.train(watch)
    assert [row["selected"] for row in watch.rows[:2]] == [True, True]
    assert outcome.selected_epoch > 2


MATRIX: dict[str, tuple[str, ...]] = {
    "int8": ("train.quantize_aware=int8", "model.normalization=batch", "train.ema=0.9"),
    "int4 and pruned": ("train.quantize_aware=int4", "train.prune={sparsity: 0.5}"),
    "xla": ("train.quantize_aware=int8", "runtime.jit=true"),
    "mixed_float16": ("train.quantize_aware=int4", "train.precision=mixed_float16"),
    "mixed_bfloat16": ("train.quantize_aware=int8", "train.precision=mixed_bfloat16"),
    "replicas": ("train.quantize_aware=int8", "runtime.strategy=mirrored", "runtime.replicas=2"),
    "accumulation": ("train.quantize_aware=int8", "train.gradient_accumulation=2"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "int8" else pytest.mark.slow) for n in MATRIX])
def test_a_training_killed_on_its_way_resumes_to_the_same_bits(make_trainer: MakeTrainer, name: str) -> None:
    jit = () if name == "xla" else ("runtime.jit=false",)
    settings = (*MATRIX[name], *jit, "train.batch_size=40", "train.checkpoint.steps=5")
    whole = make_trainer(*settings)
    kept = whole.train(Silent()).network
    rows = rows_of(whole)
    assert whole.progress.step == 9
    shutil.rmtree(whole.run.checkpoints / "step-000000009")
    again = make_trainer(*settings, run=whole.run)
    assert again.resume() == ()
    outcome = again.train(Silent())
    assert_same_training(again, whole, rows)
    assert same(outcome.network.model.get_weights(), kept.model.get_weights())


def test_xla_learns_what_plain_steps_learn(make_trainer: MakeTrainer) -> None:
    settings = ("train.quantize_aware={start: 0}", "model.dropout=0", "train.epochs=1", "train.stop.steps=3")
    plain, compiled = (make_trainer(*settings, f"runtime.jit={jit}") for jit in ("false", "true"))
    for trainer in (plain, compiled):
        trainer.train(Silent())
    for mine, theirs in zip(weights_of(plain), weights_of(compiled), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.slow
def test_replicas_round_the_same(make_family: MakeTrainer) -> None:
    """Weights alone: ranges are means over what the replicas see, as moving statistics are."""
    settings = ("train.quantize_aware={weights: int8, activations: float32, start: 0}",)
    one, many = make_family("mlp", *settings), make_family("mlp", *settings, replicas=2)
    for trainer in (one, many):
        trainer.train(Silent())
    # A weight near the middle between two integers may fall to either side.
    for mine, theirs in zip(weights_of(one), weights_of(many), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.slow
def test_ranges_are_the_same_on_every_replica(make_family: MakeTrainer) -> None:
    many = make_family("mlp", "train.quantize_aware={start: 0}", replicas=2)
    many.train(Silent())
    assert find_hook(many, QuantizationAware).variables
    for range_ in find_hook(many, QuantizationAware).variables:
        first, second = (v.numpy() for v in many.placement.strategy.experimental_local_results(range_.value))
        assert same([first], [second])
        assert first[1] > 0


def test_a_network_without_layers_to_round_is_refused(make_family: MakeTrainer) -> None:
    layers = "[{kind: flatten, from: image}, {kind: batch_normalization}, {kind: reshape, target_shape: [3, 12]}, " \
        "{kind: global_average_pooling1d, data_format: channels_first}, {kind: softmax}]"  # fmt: skip
    with pytest.raises(BmcliError, match="no layer can be quantised") as caught:
        make_family("layers", f"model.layers={layers}", "data.inputs.age=null", "train.quantize_aware=int8")
    assert caught.value.faults[0].path == "train.quantize_aware"
