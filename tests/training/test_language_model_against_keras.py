"""A causal transformer learns what Keras' own layers learn from the same weights and batches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import models, parts, tokens
from bmcli.models import CAUSAL_STEPS
from bmcli.networks.network import Network
from bmcli.normalization import Normalization
from bmcli.objectives import causal_language_model
from bmcli.recipe.fields import PartField
from bmcli.recipe.tokens import TokensField
from bmcli.specs import Column, DataSpec
from bmcli.training.feed import shuffle_rows
from tests.trainers import Silent, weights_of
from tests.training.objective_cases import STEPS, MakeCase, make_rows

ROWS, EPOCHS, DIMENSION, WIDTH, HEADS, DEPTH = 21, 2, 6, 8, 2, 2
TOKENIZER = tokens.fit(
    TokensField().check("characters"), Normalization(lowercase=False), ["abcdefghijklmnop"], "written"
)


def build_ours(dropout: float = 0.0) -> Network:
    column = Column("tokens", "text", (STEPS,), "int32", state={
        "tokenizer": TOKENIZER.to_state(), "length": STEPS, "bag": False, "ends": ["begin"], "dimension": DIMENSION,
    })  # fmt: skip
    spec = DataSpec((column,), (), {"train": ROWS, "validation": 0, "test": 0}, "", "")
    options: Any = PartField("objectives").check("causal_language_model")
    learned = causal_language_model.describe_inputs(options, "goal", [column])
    family = parts.load("models", "transformer")
    chosen = family.Options(width=WIDTH, heads=HEADS, depth=DEPTH, mlp_ratio=2, positions=None, dropout=dropout)
    backbone = family.build(chosen, spec, (CAUSAL_STEPS,))
    logits = causal_language_model.build_head(options, learned.target, backbone.features[CAUSAL_STEPS])
    model = models.create_keras_model(backbone.inputs, {"goal": logits})
    objective = causal_language_model.build(options, *learned, None)
    return Network(model, {"goal": objective}, {}, {"goal": ("tokens",)})


def build_keras() -> keras.Model:
    """Build the same network of the layers of Keras alone."""
    ids = keras.Input((STEPS,), dtype="int32")
    valid = keras.ops.expand_dims(keras.ops.not_equal(ids, 0), 1)
    steps = keras.layers.Dense(WIDTH)(keras.layers.Embedding(TOKENIZER.size, DIMENSION)(ids))
    for _ in range(DEPTH):
        normal = keras.layers.LayerNormalization(epsilon=1e-6)(steps)
        attention = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
        steps = steps + attention(normal, normal, attention_mask=valid, use_causal_mask=True)
        normal = keras.layers.LayerNormalization(epsilon=1e-6)(steps)
        steps = steps + keras.layers.Dense(WIDTH)(keras.layers.Dense(2 * WIDTH, "gelu")(normal))
    steps = keras.layers.LayerNormalization(epsilon=1e-6)(steps)
    return keras.Model(ids, keras.layers.Dense(TOKENIZER.size)(steps))


def fit_keras(model: keras.Model, seed: int, batch: int) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), loss, jit_compile=False)
    ids = make_rows("tokens", ROWS)["tokens"]
    for epoch in range(EPOCHS):
        rows = shuffle_rows(seed, epoch, ROWS).numpy()
        for start in range(0, ROWS, batch):
            chosen = ids[rows[start : start + batch]]
            following = np.pad(chosen[:, 1:], ((0, 0), (0, 1)))
            known = (following != 0).astype("float32")
            model.train_on_batch(chosen, following, sample_weight=known / known.sum())


def test_a_causal_transformer_learns_what_the_layers_of_keras_learn(make_case: MakeCase) -> None:
    trainer = make_case("language model", rows=ROWS, build=build_ours)
    before = weights_of(trainer)
    reference: Any = build_keras()
    for weight, start in zip(reference.weights, before, strict=True):
        weight.assign(tf.reshape(start, weight.shape))
    fit_keras(reference, trainer.recipe.seed, trainer.batch)
    trainer.train(Silent())
    found = weights_of(trainer)
    assert max(float(np.abs(a - b).max()) for a, b in zip(before, found, strict=True)) > 1e-2
    for expected, weight, name in zip(reference.weights, found, trainer.network.model.weights, strict=True):
        np.testing.assert_allclose(weight, np.reshape(expected, weight.shape), atol=1e-5, err_msg=name.path)
