"""`model.from`: a training that starts from the backbone of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from bmcli.layers import keras_file
from bmcli.recipe.load import load_recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.workflows.session import start_session
from tests.commands.conftest import Bmcli
from tests.commands.test_train import assert_same_bits, weights

TRAIN = {"epochs": 3, "batch_size": 16, "tensorboard": False, "optimizer": {"kind": "adam", "learning_rate": 1e-2}}
FIRST: dict[str, Any] = {
    "name": "first",
    "data": {
        "source": {"kind": "csv", "path": "flowers.csv"}, "targets": {"kind": {"kind": "category"}}, "drop": ["heavy"],
    },
    "model": {"kind": "mlp", "hidden": [8, 6], "normalization": "batch"},
    "train": TRAIN,
    "runtime": {"jit": False},
}  # fmt: skip
SECOND: dict[str, Any] = {
    **FIRST,
    "name": "second",
    "seed": 4,
    "data": {
        "source": FIRST["data"]["source"], "targets": {"heavy": {"kind": "category"}},
        "split": {"train": 0.5, "validation": 0.2, "test": 0.3},
    },
    "model": {"from": "first"},
}  # fmt: skip


@pytest.fixture
def recipes(tmp_path: Path) -> tuple[Path, Path]:
    """Recipes of two targets of one table, the second with the backbone of the first."""
    draw = np.random.default_rng(0)
    lines = ["length,width,color,kind,heavy"]
    for row in range(150):
        kind, length, width = row % 3, draw.normal() + row % 3, 10 * draw.normal()
        heavy = "yes" if length + width / 10 > 1 else "no"
        lines.append(f"{length:.4f},{width:.4f},{['red', 'blue'][row % 2]},{'abc'[kind]},{heavy}")
    (tmp_path / "flowers.csv").write_text("\n".join(lines))
    for recipe in (FIRST, SECOND):
        (tmp_path / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "first.yaml", tmp_path / "second.yaml"


def train(bmcli: Bmcli, *arguments: object) -> Run:
    done = bmcli("train", *arguments, "--json")
    assert done.code == 0, done.err
    return Run(Path(done.json()["run"]))


def read_backbone(run: Run) -> dict[str, np.ndarray]:
    """Arrays of the backbone in the file of a run, by their path in the file."""
    found: dict[str, np.ndarray] = {}
    with keras_file.open_keras_file(run.model) as file, file.weights() as path, h5py.File(path) as weights:
        weights.visititems(
            lambda name, item: found.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_the_first_weights_are_those_of_the_source(bmcli: Bmcli, recipes: tuple[Path, Path], cache: Path) -> None:
    first = train(bmcli, recipes[0])
    loaded = load_recipe(str(recipes[1]))
    session = start_session(loaded, cache)
    assert session.prepared.spec.inputs == read_data_spec(first).inputs, "scales and classes are those of the source"
    trainer = session.build_trainer(None)
    assert trainer.start is not None
    expected = {array.tobytes() for array in read_backbone(first).values()}
    by_name = {weight.path: weight.numpy() for weight in trainer.network.model.weights}
    assert len(trainer.start.taken) == 2 * 5, "kernel of each layer, and scale, offset and statistics of each norm"
    for name in trainer.start.taken:
        assert by_name[name].tobytes() in expected, name
    assert set(by_name) - set(trainer.start.taken) == {"dense_2/kernel", "dense_2/bias"}
    assert by_name["dense_2/kernel"].tobytes() not in expected


def test_a_training_from_a_run_is_recorded_and_repeated(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    first = train(bmcli, recipes[0])
    second = train(bmcli, recipes[1])
    lock = yaml.safe_load(second.lock.read_text())
    assert lock["model"]["from"] == {"run": str(first.folder.resolve()), "sha256": digest_of(first)}
    assert (lock["model"]["kind"], lock["model"]["hidden"]) == ("mlp", [8, 6])
    start = json.loads(second.start.read_text())
    assert start["left_out"] == ["dense_2/kernel", "dense_2/bias"]
    assert "dense/kernel" in start["taken"]
    assert len(second.read_epochs()) == 3
    plain = train(bmcli, recipes[1], "model={kind: mlp, hidden: [8, 6], normalization: batch, from: null}")
    assert not np.array_equal(weights(str(plain.folder))[0], weights(str(second.folder))[0])
    assert_same_bits(str(second.folder), str(train(bmcli, second.lock).folder))
    evaluated = bmcli("evaluate", second.folder, "--json")
    assert evaluated.code == 0, evaluated.err


def digest_of(run: Run) -> str:
    digest: str = json.loads(run.data.read_text())["model"]
    return digest


def test_the_log_counts_what_was_taken(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    train(bmcli, recipes[0])
    done = bmcli("train", recipes[1])
    assert "10 weights taken, 2 of its heads left out" in done.err


def test_a_resumed_training_ends_like_a_whole_one(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    train(bmcli, recipes[0])
    whole = train(bmcli, recipes[1], "train.epochs=4", "train.select.metric=last")
    part = train(bmcli, recipes[1], "train.epochs=2", "train.select.metric=last")
    resumed = bmcli("train", "--resume", part.folder, "train.epochs=4", "--json")
    assert resumed.code == 0, resumed.err
    assert_same_bits(str(whole.folder), str(part.folder))


def test_a_source_that_changed_is_a_fault(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    first, second = train(bmcli, recipes[0]), train(bmcli, recipes[1])
    other = train(bmcli, recipes[0], "seed=5")
    shutil.copy(other.model, first.model)
    again = bmcli("train", second.lock)
    assert again.code == 2
    assert "not the model that the training wrote" in again.err
    shutil.copytree(other.folder, first.folder, dirs_exist_ok=True)
    again = bmcli("train", second.lock)
    assert again.code == 2
    assert "has changed since it was chosen" in again.err


@pytest.mark.slow
def test_a_finished_run_needs_its_source_no_more(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    first, second = train(bmcli, recipes[0]), train(bmcli, recipes[1])
    shutil.rmtree(first.folder.parent)
    for command in ("evaluate", "export"):
        done = bmcli(command, second.folder, "--json")
        assert done.code == 0, done.err


def test_a_source_that_is_gone_is_a_fault_that_names_it(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    first = train(bmcli, recipes[0])
    part = train(bmcli, recipes[1], "train.epochs=2")
    shutil.rmtree(first.folder)
    for arguments in (("--resume", part.folder, "train.epochs=4"), (part.lock,)):
        done = bmcli("train", *arguments)
        assert done.code == 2, done.err
        assert "model.from" in done.err
        assert f"{first.folder.name} is missing" in done.err


@pytest.mark.slow
def test_a_student_starts_from_a_run(bmcli: Bmcli, recipes: tuple[Path, Path], tmp_path: Path) -> None:
    first = train(bmcli, recipes[0])
    teacher = {**SECOND, "model": {"kind": "mlp", "hidden": [16]}, "name": "big"}
    distill = {"student": {"model": {"from": "first"}}}
    described = {**teacher, "distill": distill, "data": {**SECOND["data"], "drop": ["kind"]}}
    (tmp_path / "big.yaml").write_text(yaml.safe_dump(described))
    done = bmcli("distill", "big.yaml", "--json")
    assert done.code == 0, done.err
    for learner in ("student", "baseline"):
        lock = yaml.safe_load((Path(done.json()["runs"][learner][0]) / "recipe.lock.yaml").read_text())
        assert lock["model"]["from"]["run"] == str(first.folder.resolve())


@pytest.mark.slow
def test_trials_and_folds_start_from_a_run(bmcli: Bmcli, recipes: tuple[Path, Path]) -> None:
    train(bmcli, recipes[0])
    space = "tune={space: {train.optimizer.learning_rate: {choice: [1e-2, 1e-3]}}, trials: 2, confirm: none}"
    tuned = bmcli("tune", recipes[1], space, "--json")
    assert tuned.code == 0, tuned.err
    lock = yaml.safe_load((Path(tuned.json()["best"]["run"]) / "recipe.lock.yaml").read_text())
    assert lock["model"]["from"]["sha256"]
    folds = bmcli("evaluate", recipes[1], "--folds", "2", "--json")
    assert folds.code == 0, folds.err
