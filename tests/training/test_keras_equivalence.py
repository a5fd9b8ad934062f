"""Equivalence with Keras: the loop computes what `model.fit` computes on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from bmcli import models, parts
from bmcli.specs import Split
from bmcli.training import prepare_data
from bmcli.training.feed import shuffle_rows
from bmcli.training.trainer import Trainer
from tests.trainers import COSTLY, FAMILIES, LARGE, MakeTrainer, Silent, weights_of

EPOCHS = 2
ROWS = 21  # in batches of 8: the last has 5
MOMENTUM = "train.optimizer={kind: sgd, learning_rate: 0.05, momentum: 0.9}"
# Where a gradient is all rounding error, a small epsilon would make a step of it.
ADAM = "train.optimizer={kind: adam, learning_rate: 1e-2, epsilon: 1e-4}"
L2 = "model.kernel_regularizer={kind: l2, l2: 0.05}"
LOSSES = {
    "label": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "price": keras.losses.MeanSquaredError(),
    "tags": keras.losses.BinaryCrossentropy(from_logits=True),
}


def optimizer_of(setting: str) -> keras.Optimizer:
    return {MOMENTUM: keras.optimizers.SGD(0.05, momentum=0.9), ADAM: keras.optimizers.Adam(1e-2, epsilon=1e-4)}[
        setting
    ]


def fitted(trainer: Trainer, split: Split, optimizer: str, class_weight: dict[int, float] | None = None) -> list[Any]:
    """Weights after Keras fits an untrained trainer's network to the rows, in the order of bmcli's epochs."""
    (target,) = trainer.network.objectives
    with models.allow_column_names():  # Keras knows class weights only where the output is no dict
        model = keras.Model(trainer.network.model.input, trainer.network.model.output[target])
    model.compile(optimizer_of(optimizer), LOSSES[target], jit_compile=False)
    for epoch in range(EPOCHS):
        rows = shuffle_rows(trainer.recipe.seed, epoch, len(split)).numpy()
        model.fit(
            {name: values[rows] for name, values in split.inputs.items()},
            split.targets[target][rows],
            batch_size=trainer.batch,
            epochs=1,
            shuffle=False,
            sample_weight=None if split.weights is None else split.weights[rows],
            class_weight=class_weight,
            verbose=0,
        )
    return weights_of(trainer)


@pytest.fixture
def agrees_with_fit(make_family: MakeTrainer, cache: Path) -> Any:
    """Train a family twice from the same weights, by bmcli and by Keras."""

    def check(kind: str, optimizer: str, *settings: str, **more: Any) -> None:
        class_weight = more.pop("class_weight", None)
        ours, plain = (
            make_family(kind, optimizer, f"train.epochs={EPOCHS}", *settings, rows=ROWS, validation=0, **more)
            for _ in range(2)
        )
        recipe = ours.recipe
        split = prepare_data(recipe, cache).split("train")
        assert len(split) == ROWS
        assert len(split) % ours.batch or ours.batch == len(split)
        before = weights_of(ours)
        expected = fitted(plain, split, optimizer, class_weight)
        ours.train(Silent())
        found = weights_of(ours)
        assert max(float(np.abs(a - b).max()) for a, b in zip(before, expected, strict=True)) > 1e-2
        for weight, a, b in zip(ours.network.model.weights, found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6, err_msg=weight.path)

    return check


def test_every_family_is_among_the_cases() -> None:
    assert {*FAMILIES, *LARGE} == set(parts.names("models"))


@pytest.mark.parametrize("optimizer", [MOMENTUM, pytest.param(ADAM, marks=pytest.mark.slow)], ids=["momentum", "adam"])
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in COSTLY else ()) for kind in FAMILIES]
)
def test_the_loop_learns_what_fit_learns(agrees_with_fit: Any, kind: str, optimizer: str) -> None:
    agrees_with_fit(kind, optimizer)


# Options of each family that its smallest network does not use.
OPTIONS = {
    "l2": (L2, ("mlp", "cnn", "rnn", "transformer")),
    "dropout": ("model.dropout=0.4", ("mlp", "cnn", "rnn", "transformer")),
    "batch normalization": ("model.normalization=batch", ("mlp", "cnn", "rnn")),
    "layer normalization": ("model.normalization=layer", ("mlp",)),
    "recurrent dropout": ("model.recurrent_dropout=0.3", ("rnn",)),
}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        pytest.param(kind, option, marks=() if kind == kinds[0] else pytest.mark.slow)
        for option, (_, kinds) in OPTIONS.items()
        for kind in kinds
    ],
)
def test_the_loop_learns_what_fit_learns_with_each_option(agrees_with_fit: Any, kind: str, option: str) -> None:
    """Dropout draws the same numbers: each layer has a separate generator, whose state only its calls advance."""
    agrees_with_fit(kind, ADAM, OPTIONS[option][0])


@pytest.mark.parametrize("optimizer", [pytest.param(MOMENTUM, marks=pytest.mark.slow), ADAM], ids=["momentum", "adam"])
def test_the_loop_learns_what_fit_learns_with_all_options(agrees_with_fit: Any, optimizer: str) -> None:
    agrees_with_fit("mlp", optimizer, L2, "model.dropout=0.4", "model.normalization=batch", "data.weight=worth")


def test_the_loop_learns_a_number_as_fit_does(agrees_with_fit: Any) -> None:
    agrees_with_fit("mlp", ADAM, L2, target="price")


def test_the_loop_learns_labels_as_fit_does(agrees_with_fit: Any) -> None:
    agrees_with_fit("mlp", ADAM, L2, "data.weight=worth", target="tags")


def test_sample_weights_are_those_of_fit(agrees_with_fit: Any) -> None:
    agrees_with_fit("mlp", ADAM, "data.weight=worth")


def test_class_weights_are_those_of_fit(agrees_with_fit: Any) -> None:
    agrees_with_fit(
        "mlp",
        ADAM,
        "objective={kind: classification, class_weights: {low: 3.0, middle: 0.5}}",
        class_weight={0: 1.0, 1: 3.0, 2: 0.5},
    )


def test_a_batch_larger_than_the_data_is_that_of_fit(agrees_with_fit: Any) -> None:
    agrees_with_fit("mlp", ADAM, "train.batch_size=64")
