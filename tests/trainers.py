"""A trainer for a recipe, ready before its first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import tensorflow as tf
import yaml

from bmcli import runs
from bmcli.distribution import strategy
from bmcli.recipe.load import load_recipe
from bmcli.training import build_network, prepare_data
from bmcli.training.hooks import StepHook
from bmcli.training.trainer import Trainer
from bmcli.workflows.assembly import build_trainer
from tests.conftest import WriteRecipe

# TensorFlow can divide the CPU only before its first use, so all tests of this process have it divided, and no test
# module may make a tensor while it is imported.
DEVICES = 4
(_CPU,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * DEVICES)


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.moments: list[Any] = []
        self.rows: list[Any] = []
        self.notes: list[str] = []

    def on_progress(self, moment: Any) -> None:
        self.moments.append(moment)

    def on_epoch_end(self, row: Any, selected: bool) -> None:
        self.rows.append({**row, "selected": selected})

    def on_note(self, text: str) -> None:
        self.notes.append(text)


MakeTrainer = Callable[..., Trainer]

_Hook = TypeVar("_Hook", bound=StepHook)


def find_hook(trainer: Trainer, kind: type[_Hook]) -> _Hook:
    """The one hook of a kind that joins a training."""
    (found,) = [hook for hook in trainer.components.hooks if isinstance(hook, kind)]
    return found


@pytest.fixture
def make_of(tmp_path: Path, cache: Path) -> MakeTrainer:
    """Builds a trainer of a recipe file with overrides; `run` goes on in an existing run."""

    def make(path: Path, *overrides: str, run: runs.Run | None = None) -> Trainer:
        recipe = load_recipe(str(path), overrides).recipe
        prepared = prepare_data(recipe, cache)
        placement = strategy.create_placement(recipe.runtime)
        network = build_network(recipe, prepared.spec, prepared.split("train").targets, placement)
        run = run or runs.create(tmp_path / "runs", recipe.name)
        return build_trainer(recipe, network, prepared, placement, run, cache)

    return make


@pytest.fixture
def make_trainer(make_of: MakeTrainer, write_recipe: WriteRecipe) -> MakeTrainer:
    """Builds a trainer of the tiny recipe with overrides."""

    def make(*overrides: str, **more: Any) -> Trainer:
        return make_of(write_recipe(), *overrides, **more)

    return make


# The smallest network of each family that has all its parts, and the columns it reads; without dropout.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mlp": ({"hidden": [8]}, ("image", "age", "city")),
    "linear": ({}, ("age", "city")),
    "wide_deep": ({"hidden": [8]}, ("age", "city")),
    "table_resnet": ({"width": 8, "depth": 1, "normalization": "layer", "dropout": 0.0}, ("age", "city")),
    "ft_transformer": (
        {"width": 8, "heads": 2, "depth": 1, "dropout": 0.0, "attention_dropout": 0.0},
        ("age", "city"),
    ),
    "cnn": ({"filters": [4], "dense": [6]}, ("image", "age")),
    "resnet": ({"widths": [4], "blocks": [1], "normalization": "group"}, ("image", "age")),
    "mobilenet": ({"widths": [4], "blocks": [1], "last": None, "normalization": "group"}, ("image",)),
    "convnext": ({"widths": [4], "blocks": [1], "kernel_size": 3}, ("image",)),
    "rnn": ({"cell": "simple", "units": 4, "pooling": "mean", "dense": [5]}, ("text", "age")),
    "transformer": ({"width": 8, "heads": 2, "depth": 1, "mlp_ratio": 2, "dropout": 0.0}, ("text", "city")),
    "layers": (
        {
            "layers": [
                {"kind": "separable_conv2d", "filters": 4, "kernel_size": 3, "activation": "relu", "from": "image"},
                {"kind": "flatten", "name": "flat"},
                {"kind": "concatenate", "from": ["flat", "age"]},
                {"kind": "dense", "units": 3, "activation": "softmax"},
            ]
        },
        ("image", "age"),
    ),
}
# Families of which no network is small, or free of batch normalization.
LARGE = ("application",)
COSTLY = ("convnext", "ft_transformer", "mobilenet", "resnet", "wide_deep")  # their laws are slow tests
COLUMNS = {"image": "image", "text": "number", "age": "number", "city": "category"}  # and their kinds
TARGETS = {
    "label": "category", "is_high": "category", "price": "number", "tags": "labels", "grade": "ordered",
    "visits": "count",
}  # fmt: skip
TAGS = {"red": 2, "round": 3, "small": 5}  # every row that its number divides
SGD = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9}


def table(count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Columns of every kind and their weights; the text ends early in most rows."""
    draw = np.random.default_rng([seed, count])
    label = np.arange(count) * 7 % 3
    text = draw.normal(size=(count, 5, 3)) + label[:, None, None]
    for row in range(count):
        text[row, 2 + row % 4 :] = np.nan
    return {
        "image": (draw.integers(0, 200, (count, 6, 6, 1)) + 20 * label[:, None, None, None]).astype("uint8"),
        "text": text.astype("float32"),
        "age": draw.normal(size=(count, 3)).astype("float32"),
        "city": np.array(["Bonn", "Lyon", "Turin"])[np.arange(count) % 3],
        "label": np.array(["high", "low", "middle"])[label],
        "is_high": np.where(label + draw.normal(size=count) > 1, "yes", "no"),
        "price": (3 * label + draw.normal(size=count) + 20).astype("float32"),
        "worth": draw.uniform(0, 3, count).astype("float32"),
        "tags": np.array([";".join(tag for tag, each in TAGS.items() if n % each == 0) for n in range(count)]),
        "grade": np.arange(count) * 3 % 4,
        "visits": draw.poisson(2 + 3 * label),
    }


@pytest.fixture
def make_from(make_of: MakeTrainer, write_recipe: WriteRecipe) -> MakeTrainer:
    """Builds a trainer of a recipe given as a mapping, on some replicas."""

    def make(described: dict[str, Any], *overrides: str, replicas: int = 1, **more: Any) -> Trainer:
        mirrored = ("runtime.strategy=mirrored", f"runtime.replicas={replicas}") if replicas > 1 else ()
        return make_of(write_recipe(yaml.safe_dump(described)), *overrides, *mirrored, **more)

    return make


@pytest.fixture
def make_family(tmp_path: Path, make_from: MakeTrainer) -> MakeTrainer:
    """Builds a trainer of a family on an archive: batches of 8, three epochs, plain kernels, the last epoch kept."""

    def make(
        kind: str, *overrides: str, rows: int = 17, validation: int = 9, target: str = "label", **more: Any
    ) -> Trainer:
        # Without rows of another split some of the training rows would be dealt to it.
        splits = {"train": rows, "validation": validation} if validation else {"train": rows, "test": 1}
        path = tmp_path / f"{rows}-{validation}.npz"
        np.savez(path, **{f"{name}_{split}": a for split, count in splits.items() for name, a in table(count).items()})
        options, columns = FAMILIES[kind]
        described = {
            "bmcli": 1,
            "name": "family",
            "seed": 3,
            "data": {
                "source": {"kind": "npz", "path": str(path)},
                "inputs": {name: {"kind": COLUMNS[name]} for name in columns},
                "targets": {target: {"kind": TARGETS[target]}},
            },
            "model": {"kind": kind, **options},
            "train": {
                "epochs": 3,
                "batch_size": 8,
                "tensorboard": False,
                "select": {"metric": "last"},
                "optimizer": SGD,
            },
            "runtime": {"jit": False},
        }
        return make_from(described, *overrides, **more)

    return make


def weights_of(trainer: Trainer) -> list[np.ndarray]:
    return [weight.numpy() for weight in trainer.network.model.weights]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same bits."""
    return len(first) == len(second) and all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
