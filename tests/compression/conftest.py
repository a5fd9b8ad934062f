"""Small networks that were trained a little, so that their weights are not noise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.trainers import make_family, make_from, make_of, make_trainer

__all__ = ["make_family", "make_from", "make_of", "make_trainer"]


def examples(count: int = 64) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    label = np.arange(count) % 4
    image = draw.normal(0, 0.3, (count, 8, 8, 1)).astype("float32")
    for row, each in enumerate(label):
        image[row, 2 * each : 2 * each + 2] += 1.0
    return {"image": image, "age": draw.normal(size=(count, 3)).astype("float32"), "label": label}


def network() -> keras.Model:
    """Convolutions, normalization, two inputs, and dense layers."""
    inputs = {"image": keras.Input((8, 8, 1), name="image"), "age": keras.Input((3,), name="age")}
    tensor = keras.layers.Conv2D(12, 3, padding="same", use_bias=False)(inputs["image"])
    tensor = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(tensor))
    tensor = keras.layers.Conv2D(16, 3, strides=2, dilation_rate=1, activation="relu")(tensor)
    tensor = keras.layers.Concatenate()([keras.layers.Flatten()(tensor), inputs["age"]])
    tensor = keras.layers.Dropout(0.1)(keras.layers.Dense(32, activation="relu")(tensor))
    return keras.Model(inputs, {"label": keras.layers.Dense(4, name="head")(tensor)}, name="network")


@pytest.fixture(scope="session")
def trained() -> keras.Model:
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    model, rows = network(), examples()
    optimizer, loss = keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss={"label": loss})
    model.fit(given(rows), {"label": rows["label"]}, epochs=12, batch_size=16, verbose=0)
    assert accuracy(model) == 1.0
    return model


def given(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: rows[name] for name in ("image", "age")}


def logits(model: keras.Model) -> np.ndarray:
    return np.asarray(model(given(examples()), training=False)["label"])


def accuracy(model: keras.Model) -> float:
    return float((logits(model).argmax(axis=-1) == examples()["label"]).mean())


def kernels(model: keras.Model) -> list[Any]:
    return [weight.numpy() for weight in model.trainable_variables if weight.name.endswith("kernel")]
