"""A network that learns nothing in the first epochs is found, and one that learns never is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.recipe.train import TrainOptions
from bmcli.training.early_check import choose_epoch, make_suggestion
from tests.trainers import MakeTrainer, Silent

CLASSES = {"kind": "category"}


@pytest.fixture
def make_series(tmp_path: Path, make_from: MakeTrainer) -> MakeTrainer:
    """Builds a trainer of an MLP on 120 rows of two numbers, from which the target follows unless it is noise."""

    def make(*overrides: str, target: Mapping[str, Any] = CLASSES, noise: bool = False) -> Any:
        draw = np.random.default_rng(0)
        x = draw.normal(size=(160, 2)).astype("float32")
        score = draw.normal(size=160) if noise else x[:, 0] - x[:, 1]
        y = np.where(score > 0.5, "high", "low") if target["kind"] == "category" else (3 * score + 40)
        arrays = {"x": x, "y": y}
        parts = {"train": slice(0, 120), "validation": slice(120, 160)}
        path = tmp_path / "rows.npz"
        np.savez(path, **{f"{name}_{split}": a[rows] for name, a in arrays.items() for split, rows in parts.items()})
        described = {
            "bmcli": 1,
            "name": "early",
            "data": {"source": {"kind": "npz", "path": str(path)}, "targets": {"y": dict(target)}},
            "model": {"kind": "mlp", "hidden": [8]},
            "train": {
                "epochs": 30,
                "batch_size": 12,
                "tensorboard": False,
                "optimizer": {"kind": "adam", "learning_rate": 1e-2},
            },
            "runtime": {"jit": False},
        }
        return make_from(described, *overrides)

    return make


STUCK = "train.optimizer.learning_rate=1e-9"
EVERY_TARGET = pytest.mark.parametrize("target", [CLASSES, {"kind": "number"}], ids=["classes", "number"])


def list_warnings(watch: Silent) -> list[str]:
    return [note for note in watch.notes if note.startswith("warning: ")]


@EVERY_TARGET
def test_a_network_that_does_not_learn_is_found_once_and_kept_in_the_run(
    make_series: MakeTrainer, target: Mapping[str, Any]
) -> None:
    trainer, watch = make_series(STUCK, target=target), Silent()
    trainer.train(watch)
    (warning,) = list_warnings(watch)
    assert "The network learns nothing." in warning
    assert "learning_rate" in warning
    assert "model.normalization: batch" in warning
    (kept,) = trainer.run.read_findings()
    assert kept["check"] == "learning"
    assert f"warning: {kept['message']} {kept['suggestion']}" == warning
    numbers = kept["numbers"]
    assert numbers["epochs"] == 20  # 200 steps
    assert numbers["loss"] > 0.99 * numbers["constant_loss"]


def test_the_constant_loss_of_classes_is_the_entropy_of_their_shares(make_series: MakeTrainer) -> None:
    trainer = make_series(STUCK)
    trainer.train(Silent())
    (kept,) = trainer.run.read_findings()
    high = np.mean(-np.diff(np.random.default_rng(0).normal(size=(160, 2)).astype("float32")[:120]) > 0.5)
    entropy = -high * np.log(high) - (1 - high) * np.log(1 - high)
    assert kept["numbers"]["constant_loss"] == pytest.approx(entropy, rel=1e-5)


@EVERY_TARGET
def test_a_network_that_learns_is_not_warned_of(make_series: MakeTrainer, target: Mapping[str, Any]) -> None:
    trainer, watch = make_series(target=target), Silent()
    trainer.train(watch)
    assert watch.rows[-1]["train/loss"] < 0.5
    assert list_warnings(watch) == []
    assert trainer.run.read_findings() == []


def test_a_network_that_learns_behind_strong_dropout_is_not_warned_of(make_series: MakeTrainer) -> None:
    watch = Silent()
    make_series("model.dropout=0.8", "train.optimizer.learning_rate=2e-3").train(watch)
    assert list_warnings(watch) == []


def test_a_target_that_is_noise_is_found(make_series: MakeTrainer) -> None:
    watch = Silent()
    slow = "train.optimizer.learning_rate=1e-4"
    make_series("model={kind: linear}", slow, noise=True, target={"kind": "number"}).train(watch)
    assert len(list_warnings(watch)) == 1


def test_a_loss_with_a_penalty_is_not_checked(make_series: MakeTrainer) -> None:
    watch = Silent()
    make_series(STUCK, "model.kernel_regularizer={kind: l2, l2: 0.1}").train(watch)
    assert list_warnings(watch) == []


def test_the_check_waits_for_the_end_of_the_warm_up_and_for_enough_steps() -> None:
    def choose(steps_per_epoch: int, **more: Any) -> int:
        train = TrainOptions.model_validate(more)
        return choose_epoch(train, 100 * steps_per_epoch, steps_per_epoch)

    assert choose(1000) == 3
    assert choose(10) == 20
    assert choose(10, schedule={"kind": "cosine", "warmup": 0.1}) == 30


def test_only_what_the_recipe_can_change_is_advised(make_series: MakeTrainer) -> None:
    recipe = make_series("model.normalization=batch").recipe
    assert "normalization" not in make_suggestion(recipe.train, recipe.model)
    assert "a learning_rate of 0.001 or 0.03 instead of 0.01" in make_suggestion(recipe.train, recipe.model)
