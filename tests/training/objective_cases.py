"""Objectives that change batches, count units or compare examples, each with a small network and data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from bmcli import runs, tokens
from bmcli.distribution import strategy
from bmcli.layers.self_attention import SelfAttention
from bmcli.models import Features
from bmcli.networks.network import Network
from bmcli.normalization import Normalization
from bmcli.objectives import Batch, MetricAdapter, TargetObjective, tagging
from bmcli.objectives.causal_language_model import CausalLanguageModel
from bmcli.objectives.masked_language_model import MaskedLanguageModel
from bmcli.recipe.load import load_recipe
from bmcli.recipe.tokens import TokensField
from bmcli.specs import Column, DataSpec, OutputSpec, PreparedData
from bmcli.training.trainer import Trainer
from bmcli.workflows.assembly import build_trainer
from tests.conftest import TINY, WriteRecipe

TOKENS, STEPS, WIDTH, TAGS = 11, 7, 6, 3
VALIDATION = 13
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Denoising(TargetObjective):
    """Numbers without the noise that is added to them; the target is not used."""

    weight: float = 1.0

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        clean = batch.inputs["numbers"]
        return Batch({**batch.inputs, "numbers": clean + 0.5 * draws.normal(*clean.shape[1:])}, clean)

    def loss(self, target: Any, output: Any) -> Any:
        return tf.reduce_mean(tf.square(output - target), axis=-1)

    def predict(self, output: Any) -> Any:
        return output

    def metrics(self, extra: Any = ()) -> dict[str, Any]:
        error = MetricAdapter(
            keras.metrics.Mean(), "min", lambda target, found: (tf.reduce_mean(tf.abs(target - found), axis=-1),)
        )
        return {"error": error}


@dataclass
class TokenAccuracy:
    """Share of the tokens that are predicted."""

    keras_metric: Any
    direction: Any = "max"

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        known = tf.cast(target != 0, tf.float32)
        weights = known if counts is None else known * counts[:, None]
        hits = tf.cast(tf.argmax(prediction, axis=-1, output_type=target.dtype) == target, tf.float32)
        self.keras_metric.update_state(hits, sample_weight=weights)


@dataclass(frozen=True)
class NextToken(TargetObjective):
    """The next token at each step, at a random share of the steps; 0 is padding."""

    weight: float = 1.0

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        tokens = batch.inputs["tokens"]
        following = tf.concat([tokens[:, 1:], tf.zeros_like(tokens[:, :1])], axis=1)
        return Batch(batch.inputs, tf.where(draws.uniform(STEPS) < 0.7, following, 0))

    def count_units(self, target: Any) -> Any:
        return tf.reduce_sum(tf.cast(target != 0, tf.float32), axis=-1)

    def loss(self, target: Any, output: Any) -> Any:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, output)
        return tf.reduce_sum(losses * tf.cast(target != 0, tf.float32), axis=-1)

    def predict(self, output: Any) -> Any:
        return tf.nn.softmax(output)

    def metrics(self, extra: Any = ()) -> dict[str, Any]:
        return {"token_accuracy": TokenAccuracy(keras.metrics.Mean())}


@dataclass(frozen=True)
class Contrastive(TargetObjective):
    """Two noisy versions of each row, each to be found among those of all others (Chen et al. 2020, equation 1)."""

    weight: float = 1.0
    views = 2
    couples_examples = True

    def prepare(self, batch: Batch, draws: Any, training: bool) -> Batch:
        numbers = batch.inputs["numbers"]
        versions = [numbers + 0.3 * draws.normal(*numbers.shape[1:]) for _ in range(2)]
        return Batch({"numbers": tf.stack(versions, axis=1)}, batch.target)

    def loss(self, target: Any, output: Any) -> Any:
        count = tf.shape(output)[0]
        rows = tf.math.l2_normalize(tf.reshape(output, (-1, output.shape[-1])), axis=-1)
        similarity = tf.matmul(rows, rows, transpose_b=True) / 0.5 - 1e9 * tf.eye(2 * count)
        partners = tf.bitwise.bitwise_xor(tf.range(2 * count), 1)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(partners, similarity)
        return tf.reduce_mean(tf.reshape(losses, (-1, 2)), axis=-1)

    def predict(self, output: Any) -> Any:
        return tf.math.l2_normalize(output, axis=-1)

    def metrics(self, extra: Any = ()) -> dict[str, Any]:
        nearness = MetricAdapter(
            keras.metrics.Mean(), "max", lambda _, found: (tf.reduce_sum(found[:, 0] * found[:, 1], axis=-1),)
        )
        return {"nearness": nearness}


def build_tokens(dropout: float = 0.0, size: int = TOKENS, padding: str = "causal") -> tuple[Any, Any]:
    """Build a network of tokens, which is causal by default; returns its input and a vector for each step."""
    given = keras.Input((STEPS,), dtype="int32", name="tokens")
    hidden = keras.layers.Embedding(size, 8)(given)
    hidden = keras.layers.Conv1D(8, 3, padding=padding, activation="tanh")(hidden)
    return given, keras.layers.Dropout(dropout)(hidden)


def build_numbers(dropout: float = 0.0) -> tuple[Any, Any]:
    numbers = keras.Input((WIDTH,), name="numbers")
    hidden = keras.layers.Dense(8, activation="tanh")(numbers)
    return numbers, keras.layers.Dropout(dropout)(hidden)


def build_denoising(dropout: float = 0.0) -> Network:
    numbers, hidden = build_numbers(dropout)
    return Network(
        keras.Model({"numbers": numbers}, {"goal": keras.layers.Dense(WIDTH)(hidden)}), {"goal": Denoising()}, {}
    )


def build_next_token(dropout: float = 0.0) -> Network:
    tokens, hidden = build_tokens(dropout)
    return Network(
        keras.Model({"tokens": tokens}, {"goal": keras.layers.Dense(TOKENS)(hidden)}), {"goal": NextToken()}, {}
    )


def build_language_model(dropout: float = 0.0) -> Network:
    """Build a transformer block with the objective of bmcli, which learns from the input."""
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    hidden = keras.layers.Embedding(TOKENS, 8)(tokens)
    attention = SelfAttention(2, 4, rotary=True, causal=True, dropout=dropout)
    hidden = hidden + attention(keras.layers.RMSNormalization()(hidden), mask=keras.ops.not_equal(tokens, 0))
    logits = keras.layers.Dense(TOKENS)(keras.layers.Dropout(dropout)(hidden))
    output = OutputSpec("goal", "causal_language_model", (STEPS - 1,), activation="softmax", inputs=("tokens",))
    objective = CausalLanguageModel(output, Column("goal", "tokens", (STEPS,), "int32"), 1.0, 0.0)
    model = keras.Model({"tokens": tokens}, {"goal": logits})
    return Network(model, {"goal": objective}, {}, {"goal": ("tokens",)})


def build_masked_language_model(dropout: float = 0.0) -> Network:
    """Build a transformer block with the objective of bmcli, which hides tokens of the input."""
    tokenizer = tokens.fit(TokensField().check("characters"), Normalization(), ["abcdefghi"] * 2, "sequence")
    given, hidden = build_tokens(dropout, tokenizer.inner_size + 1, "same")
    logits = keras.layers.Dense(tokenizer.inner_size)(hidden)
    output = OutputSpec("goal", "masked_language_model", (STEPS, 2), activation="softmax", inputs=("tokens",))
    column = Column("goal", "tokens", (STEPS,), "int32", state=tokenizer.to_state())
    objective = MaskedLanguageModel(output, column, 1.0, 0.3, False)
    return Network(keras.Model({"tokens": given}, {"goal": logits}), {"goal": objective}, {}, {"goal": ("tokens",)})


def build_tagging(dropout: float = 0.0) -> Network:
    """Build a network with the objective of tags, whose target here is made of the tokens."""
    tokens, hidden = build_tokens(dropout)
    state = {"tags": [str(tag) for tag in range(TAGS)], "columns": ["goal", "tokens"]}
    target, options = Column("goal", "tags", (STEPS,), "int32", state=state), tagging.Options()
    mask = keras.ops.not_equal(tokens, 0)
    logits = tagging.build_head(options, target, Features(hidden, mask))
    objective = tagging.build(options, tagging.describe(options, target), target, None)
    return Network(keras.Model({"tokens": tokens}, {"goal": logits}), {"goal": objective}, {})


def build_contrastive(dropout: float = 0.0) -> Network:
    numbers, hidden = build_numbers(dropout)
    return Network(
        keras.Model({"numbers": numbers}, {"goal": keras.layers.Dense(5)(hidden)}), {"goal": Contrastive()}, {}
    )


class Case(NamedTuple):
    """An objective to train.

    Args:
        column: The input that its network reads.
        target: Kind of the target: a number, or a tag of each token.
    """

    column: str
    build: Callable[..., Network]
    target: str = "number"


CASES = {
    "denoising": Case("numbers", build_denoising),
    "next token": Case("tokens", build_next_token),
    "language model": Case("tokens", build_language_model),
    "masked language model": Case("tokens", build_masked_language_model),
    "tagging": Case("tokens", build_tagging, "tags"),
    "contrastive": Case("numbers", build_contrastive),
}


def make_rows(column: str, count: int, target: str = "number") -> Arrays:
    """Make rows of one input and a target; texts differ in length."""
    random = np.random.default_rng([len(column), count])
    goal = {"goal": random.normal(size=count).astype("float32")}
    if column == "numbers":
        return {"numbers": random.normal(size=(count, WIDTH)).astype("float32"), **goal}
    tokens = random.integers(1, TOKENS, (count, STEPS)).astype("int32")
    tokens[np.arange(STEPS) >= random.integers(2, STEPS + 1, (count, 1))] = 0
    if target == "tags":
        goal = {"goal": np.where(tokens > 0, (tokens + np.roll(tokens, 1, axis=1)) % TAGS, -1).astype("int32")}
    return {"tokens": tokens, **goal}


def prepare_rows(folder: Path, column: str, rows: int, validation: int, target: str = "number") -> PreparedData:
    """Write rows as prepared data, unless the folder has them."""
    splits = {"train": make_rows(column, rows, target), "validation": make_rows(column, validation, target)}
    is_new = not folder.exists()
    for split, arrays in splits.items() if is_new else ():
        (folder / split).mkdir(parents=True)
        for role, name in (("inputs", column), ("targets", "goal")):
            np.save(folder / split / f"{role}-0.npy", arrays[name])
    source = splits["train"][column]
    inputs = (Column(column, "number", source.shape[1:], source.dtype.name),)
    counts = {"train": rows, "validation": validation, "test": 0}
    goal = splits["train"]["goal"]
    targets = (Column("goal", target, goal.shape[1:], goal.dtype.name),)
    return PreparedData(DataSpec(inputs, targets, counts, "", ""), folder)


MakeCase = Callable[..., Trainer]


@pytest.fixture
def make_case(tmp_path: Path, cache: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch) -> MakeCase:
    """Builds a trainer of an objective: batches of 8, two epochs, plain kernels; validation in batches of 5."""
    monkeypatch.setattr("bmcli.workflows.assembly.EVALUATION_BATCH_SIZE", 5)

    def make(
        name: str,
        *overrides: str,
        replicas: int = 1,
        rows: int = 21,
        dropout: float = 0.0,
        build: Callable[..., Network] | None = None,
        run: runs.Run | None = None,
    ) -> Trainer:
        mirrored = ("runtime.strategy=mirrored", f"runtime.replicas={replicas}") if replicas > 1 else ()
        options = {"epochs": 2, "batch_size": 8, "tensorboard": False, "select": {"metric": "last"},
                   "optimizer": {"kind": "sgd", "learning_rate": 0.2, "momentum": 0.9}}  # fmt: skip
        described = {**yaml.safe_load(TINY), "train": options, "runtime": {"jit": False}}
        recipe = load_recipe(str(write_recipe(yaml.safe_dump(described))), (*overrides, *mirrored)).recipe
        prepared = prepare_rows(tmp_path / f"{name} {rows}", CASES[name].column, rows, VALIDATION, CASES[name].target)
        placement = strategy.create_placement(recipe.runtime)
        strategy.set_random_state(recipe.seed, recipe.train.precision)
        with placement.strategy.scope():
            network = (build or CASES[name].build)(dropout)
        if placement.replicas > 1:
            strategy.offset_replica_seeds(network.model)
        run = run or runs.create(tmp_path / "runs", recipe.name)
        return build_trainer(recipe, network, prepared, placement, run, cache)

    return make
