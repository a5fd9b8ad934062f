"""A target whose answers differ in length goes through preparation, training, folds, tuning and distillation."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmcli import plugins
from bmcli.disk import compute_sha256
from bmcli.networks.network import load_serving_model

from .conftest import Bmcli

PLUGIN = Path(__file__).parent / "ragged.py"
COLOURS = ("red", "green", "blue")
RECIPE = {
    "name": "colours",
    "data": {
        "source": {"kind": "csv", "path": "colours.csv"},
        "targets": {"colours": "colours"},
        "weight": "weight",
        "split": {"validation": 0.2, "test": 0.2},
    },
    "model": {"kind": "mlp", "hidden": [16]},
    "train": {
        "epochs": 12,
        "batch_size": 16,
        "tensorboard": False,
        "optimizer": {"kind": "adam", "learning_rate": 0.02},
    },
}


@pytest.fixture
def colours(bmcli: Bmcli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls bmcli with the plug-in, in a folder with a table in which the colours follow from the shapes."""
    lines = ["shape,size,weight,colours"]
    for row in range(150):
        shape, size = "abc"[row % 3], row % 5
        words = [COLOURS[(row + place) % 3] for place in range(size)]
        lines.append(f"{shape},{size},{1 + row % 2},{' '.join(words)}")
    (tmp_path / "colours.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    for name, folder in (("BMCLI_CACHE", cache), ("BMCLI_RUNS", tmp_path / "runs")):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv(plugins.FILES_VARIABLE, json.dumps([str(PLUGIN)]))
    caches = (plugins._list_parts, plugins.load_part)
    for each in caches:
        each.cache_clear()

    def call(*arguments: object) -> Any:
        done = bmcli(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json()

    yield call
    monkeypatch.undo()
    for each in caches:
        each.cache_clear()


def test_answers_of_any_length_are_trained_measured_and_predicted(colours: Any, tmp_path: Path) -> None:
    resident = colours("train", "recipe.yaml")
    assert resident["metrics"]["test/colour_accuracy"] > 0.6, resident["metrics"]  # empty answers count 0
    streaming = colours("train", "recipe.yaml", "runtime.feed=streaming", "name=streaming")
    assert streaming["metrics"] == resident["metrics"]
    answer = colours("predict", "colours", "colours.csv", "--keep", "shape", "--output", "out.csv")
    assert (answer["rows"], answer["lines"]) == (150, 600)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["shape"] for row in rows[:12]] == [*"aaaabbbbcccc"]
    assert [row["place"] for row in rows[:4]] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_answers_of_any_length_go_through_folds_and_searches(colours: Any, tmp_path: Path) -> None:
    folds = colours("evaluate", "recipe.yaml", "--folds", "2", "train.epochs=2")
    assert "colour_accuracy" in json.dumps(folds)
    (table,) = (tmp_path / "runs").rglob("predictions.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) % 4 == 0
    truth = {int(row["row"]) - 1: row["colours_true"].split() for row in rows}
    assert truth == {row: [COLOURS[(row + place) % 3] for place in range(row % 5)] for row in truth}
    assert set(map(len, truth.values())) == set(range(5))
    found = colours(
        "tune", "recipe.yaml", "train.epochs=1", "tune.trials=2", "tune.space={model.dropout: {choice: [0.0, 0.1]}}"
    )
    assert [trial["state"] for trial in found["trials"]] == ["done", "done"]


@pytest.mark.slow
def test_a_student_of_answers_of_any_length_is_the_same_on_two_replicas(colours: Any, tmp_path: Path) -> None:
    teacher = Path(colours("train", "recipe.yaml", "train.epochs=2")["run"])
    model = teacher / "model.keras"
    teachers = [{"model": str(model), "run": str(teacher), "sha256": compute_sha256(model)}]
    losses = [{"kind": kind} for kind in ("hard", "logits", "soft", "dist")]
    recipe = {**RECIPE, "name": "student", "distillation": {"teachers": teachers, "losses": losses}}
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(recipe))
    one = Path(colours("train", "student.yaml", "train.epochs=2")["run"])
    command = [sys.executable, "-m", "bmcli", "train", "student.yaml", "train.epochs=2", "--strategy", "mirrored"]
    done = subprocess.run(
        [*command, "--replicas", "2", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first, second = (
        load_serving_model(run / "model.keras").weights for run in (one, Path(json.loads(done.stdout)["run"]))
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_student_learns_from_answers_of_any_length(colours: Any, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("shape,size\n" + "a,1\nb,2\n" * 10)
    transfer = {"unlabelled": {"kind": "csv", "path": "more.csv"}}
    distill = {"student": {"model": {"kind": "mlp", "hidden": [4]}}, "transfer": transfer}
    distill["losses"] = [{"kind": kind} for kind in ("hard", "logits", "soft", "dist")]
    recipe = {**RECIPE, "distill": distill}
    (tmp_path / "distill.yaml").write_text(yaml.safe_dump(recipe))
    answer = colours("distill", "distill.yaml", "train.epochs=2")
    assert answer["gain"]["metric"] == "test/colour_accuracy"
    assert answer["teacher"]["test/colour_accuracy"] > 0.5
