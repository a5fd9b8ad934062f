"""Targets of every kind at once, from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import Bmcli
from tests.conftest import WriteRecipe

RECIPE = """\
bmcli: 1
name: targets
data:
  source: {kind: csv, path: rows.csv}
  inputs: {x: number, z: number}
  targets:
    kind: category
    grade: {kind: ordered, classes: [poor, fair, good]}
    tags: labels
    visits: count
    price: {kind: number, scale: log}
model: {kind: mlp, hidden: [16]}
objective: {price: {kind: quantile, quantiles: [0.1, 0.5, 0.9]}, tags: {kind: multi_label, class_weights: effective}}
train: {epochs: 8, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
runtime: {jit: false}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    lines = ["x,z,kind,grade,tags,visits,price"]
    for x, z in draw.normal(size=(300, 2)):
        grade = ("poor", "fair", "good")[int(x > -0.4) + int(x > 0.5)]
        tags = ";".join(tag for tag, there in (("high", x > 0), ("wide", z > 0.5)) if there)
        visits = draw.poisson(np.exp(1 + 0.5 * z))
        lines.append(f"{x},{z},{'ab'[int(x + z > 0)]},{grade},{tags},{visits},{np.exp(3 + x + 0.3 * draw.normal())}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_every_kind_of_target_is_trained_measured_and_gated(bmcli: Bmcli, recipe: Path, tmp_path: Path) -> None:
    gates = (
        "evaluate.gates.kind/accuracy='>= 0.7'",
        "evaluate.gates.grade/mae='<= 0.6'",
        "evaluate.gates.tags/f1_micro='>= 0.5'",
        "evaluate.gates.visits/poisson_deviance='<= 3'",
        "evaluate.gates.\"price/pinball_0.1\"='>= 0'",
    )
    done = bmcli("train", recipe, *gates, "--json")
    assert done.code == 0, done.err
    metrics = done.json()["metrics"]
    assert {"train/tags/f1_micro", "train/grade/mae", "train/visits/poisson_deviance", "train/price/coverage"} <= set(
        metrics
    )
    again = bmcli("evaluate", "targets", "--data", tmp_path / "rows.csv")
    assert again.code == 0, again.err
    for expected in ("rows.csv/price/interval_width", "rows.csv/grade/quadratic_kappa", "wide", "fair"):
        assert expected in again.out


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("train.select.metric=train/price/coverage", "train.select.metric"),
        ("train.callbacks=[{kind: early_stopping, monitor: train/price/coverage}]", "train.callbacks.0.monitor"),
    ],
)
def test_no_epoch_is_the_best_by_a_share_that_has_a_right_value(
    bmcli: Bmcli, recipe: Path, tmp_path: Path, override: str, path: str
) -> None:
    done = bmcli("train", recipe, override, "--json")
    assert done.code == 2, done.err
    (fault,) = done.json()["faults"]
    assert fault["path"] == path
    assert "neither a higher nor a lower 'train/price/coverage' is better" in fault["message"]
    assert not list(tmp_path.glob("runs/*/*"))


TOPICS = """\
bmcli: 1
name: topics
data:
  source: {kind: csv, path: topics.csv}
  targets: {topics: {kind: labels, columns: [sport, politics, art]}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 12, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
"""


def test_labels_of_a_column_each_are_trained_measured_and_predicted(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    lines = [f"{x},{z},{int(x > 0)},{('no', 'yes')[int(z > 0)]},{x + z > 1}" for x, z in draw.normal(size=(240, 2))]
    (tmp_path / "topics.csv").write_text("\n".join(["x,z,sport,politics,art", *lines]) + "\n")
    done = bmcli("train", write_recipe(TOPICS), "--json")
    assert done.code == 0, done.err
    assert done.json()["metrics"]["test/f1_micro"] > 0.8
    run = json.loads((tmp_path / "runs/topics/latest/data.json").read_text())
    assert [column["name"] for column in run["inputs"]] == ["x", "z"]
    again = bmcli("evaluate", "topics", "--data", "topics.csv")
    assert again.code == 0, again.err
    assert all(label in again.out for label in ("sport", "politics", "art"))
    lock = bmcli("train", "runs/topics/latest/recipe.lock.yaml", "--json")
    assert lock.json()["metrics"]["test/f1_micro"] == done.json()["metrics"]["test/f1_micro"]
    (tmp_path / "new.csv").write_text("x,z,note\n2.5,2.5,first\n-2.5,-2.5,second\n2.5,-2.5,third\n")
    done = bmcli("predict", "topics", "new.csv", "--keep", "note", "-q")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["topics"] for row in rows] == ["sport;politics;art", "", "sport"]
    assert list(rows[0]) == ["note", "topics", *(f"topics_probability_{name}" for name in ("sport", "politics", "art"))]


def test_a_gate_on_a_figure_of_another_kind_is_a_fault_before_training(bmcli: Bmcli, recipe: Path) -> None:
    done = bmcli("train", recipe, "evaluate.gates.\"price/pinball_0.2\"='<= 3'")
    assert done.code == 2
    assert "no metric 'price/pinball_0.2' for these targets. Did you mean 'price/pinball_" in done.err
