"""A trainer for a recipe, ready before its first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import runs
from bmcli.data.preparation import prepare
from bmcli.recipe.load import load
from bmcli.training import built, strategy
from bmcli.training.loop import Trainer

# TensorFlow can divide the CPU only before its first use, so all tests of this process have it divided.
DEVICES = 4
(_CPU,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * DEVICES)


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.moments: list[Any] = []
        self.rows: list[Any] = []
        self.notes: list[str] = []

    def moment(self, moment: Any) -> None:
        self.moments.append(moment)

    def epoch(self, row: Any, selected: bool) -> None:
        self.rows.append({**row, "selected": selected})

    def note(self, text: str) -> None:
        self.notes.append(text)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path, cache: Path, write_recipe: Any) -> MakeTrainer:
    """Builds a trainer of the tiny recipe with overrides; `run` goes on in an existing run."""

    def make(*overrides: str, run: runs.Run | None = None) -> Trainer:
        recipe = load(str(write_recipe()), overrides).recipe
        prepared = prepare(recipe.data, recipe.targets(), recipe.seed, cache / "prepared")
        placement = strategy.place(recipe.runtime)
        network = built(recipe, prepared.spec, prepared.split("train").targets, placement)
        run = run or runs.create(tmp_path / "runs", recipe.name)
        return Trainer(recipe, network, prepared, placement, run, cache)

    return make


def weights_of(trainer: Trainer) -> list[np.ndarray]:
    return [weight.numpy() for weight in trainer.network.model.weights]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same bits."""
    return len(first) == len(second) and all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
