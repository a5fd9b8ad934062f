"""Every family's defaults learn a small data set: 1,437 handwritten digits of 8 by 8 pixels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from bmcli import parts
from bmcli.recipe.fields import PartField
from tests.models.fakes import build_network, category, column, spec

DIGITS = tuple("0123456789")
RESIDUAL: tuple[dict[str, Any], ...] = (
    {"kind": "flatten"},
    {"kind": "dense", "units": 64, "activation": "relu", "name": "a"},
    {"kind": "dense", "units": 64, "activation": "relu", "name": "b"},
    {"kind": "add", "from": ("a", "b")},
    {"kind": "dense", "units": 10, "activation": "softmax"},
)
BATCH = 64


@pytest.mark.parametrize(
    ("kind", "options", "steps", "accuracy"),
    [
        ("mlp", {}, 400, 0.94),
        ("linear", {}, 800, 0.88),
        pytest.param("wide_deep", {}, 400, 0.94, marks=pytest.mark.slow),
        ("table_resnet", {}, 200, 0.94),
        ("cnn", {}, 300, 0.96),
        pytest.param("resnet", {}, 120, 0.94, marks=pytest.mark.slow),
        pytest.param("mobilenet", {}, 200, 0.94, marks=pytest.mark.slow),
        pytest.param("convnext", {}, 200, 0.94, marks=pytest.mark.slow),
        ("rnn", {}, 800, 0.92),
        pytest.param("transformer", {}, 200, 0.88, marks=pytest.mark.slow),
        ("layers", {"layers": RESIDUAL}, 400, 0.94),
    ],
)
def test_defaults_learn_digits(kind: str, options: dict[str, Any], steps: int, accuracy: float) -> None:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order][..., None] / 16).astype("float32")
    labels = digits.target[order].astype("int32")
    keras.utils.set_random_seed(0)
    data = spec(column("image", (8, 8, 1)), targets=(category("label", DIGITS),))
    network = build_network(parts.load("models", kind), PartField("models").check({"kind": kind, **options}), data)
    part, chosen = parts.load("objectives", "classification"), PartField("objectives").check("classification")
    objective = part.build(chosen, part.describe(chosen, data.targets[0]), data.targets[0], labels[:1437])
    _train(network, objective, images[:1437], labels[:1437], steps)
    probabilities = objective.predict(network({"image": tf.constant(images[1437:])})["label"]).numpy()
    assert np.mean(probabilities.argmax(-1) == labels[1437:]) > accuracy


def _train(network: keras.Model, objective: Any, images: np.ndarray, labels: np.ndarray, steps: int) -> None:
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(rows: Any, targets: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(objective.loss(targets, network({"image": rows}, training=True)["label"]))
        weights = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    random = np.random.default_rng(0)
    for _ in range(steps):
        rows = random.integers(0, len(images), BATCH)
        step(tf.constant(images[rows]), tf.constant(labels[rows]))
