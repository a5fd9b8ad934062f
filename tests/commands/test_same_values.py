"""The same value is the same value for a run, its SavedModel and the encoder beside artefacts; unknown is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bmcli import encoder
from bmcli.export import card
from bmcli.inputs import kind_of, to_serving_array
from bmcli.recipe.load import load_recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from tests.commands.conftest import Bmcli, bmcli

__all__ = ["bmcli"]  # the fixture

RECIPE = """\
name: shoes
data:
  source: {kind: csv, path: shoes.csv}
  inputs: {code: {kind: category}, town: {kind: category}, size: {kind: number}}
  targets: {y: {kind: category}}
model: {kind: linear}
train: {epochs: 30, batch_size: 16, tensorboard: false, optimizer: {kind: adam, learning_rate: 0.1}}
runtime: {jit: false}
"""
CLASSES = {(True, "Zürich"): "Boots", (True, "Bern"): "Schuh", (False, "Zürich"): "Ñandú", (False, "Bern"): "7"}
CLEAN = [(code, town) for code in "1234" for town in ("Zürich", "Bern")]
AWKWARD_CODES = {"1": "1.0", "2": " 2", "3": "003", "4": "+4.00"}
AWKWARD_TOWNS = {"Zürich": "Zu\u0308rich", "Bern": "\u00a0Bern "}
AWKWARD_CLASSES = {"Boots": "Boots ", "Schuh": "Schuh\u00a0", "Ñandú": "N\u0303andu\u0301", "7": "7.0"}
TRUTH = [CLASSES[code < "3", town] for code, town in CLEAN]
AWKWARD = [(AWKWARD_CODES[code], AWKWARD_TOWNS[town]) for code, town in CLEAN]


def write(path: Path, rows: Sequence[tuple[str, str]], truth: Sequence[str], sizes: Sequence[str] = ()) -> Path:
    sizes = sizes or [str(36 + place % 10) for place in range(len(rows))]
    lines = [f"{code},{town},{size},{y}" for (code, town), size, y in zip(rows, sizes, truth, strict=True)]
    path.write_text("\n".join(["code,town,size,y", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(bmcli: Bmcli, tmp_path: Path) -> Path:
    write(tmp_path / "shoes.csv", CLEAN * 20, TRUTH * 20)
    (tmp_path / "shoes.yaml").write_text(RECIPE)
    done = bmcli("train", "shoes.yaml", "--json")
    assert done.code == 0, done.err
    return Path(done.json()["run"])


def predict(bmcli: Bmcli, target: Path, rows: Path) -> tuple[list[str], dict[str, int], str]:
    """Return the predicted classes, the counts of unseen cells, and the messages."""
    output = rows.with_suffix(f".{target.name}.jsonl")
    done = bmcli("predict", target, rows, "--output", output, "--json")
    assert done.code == 0, done.err
    lines = output.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["y"] for line in lines], done.json()["unseen"], done.err


def test_known_values_are_known_however_they_are_written(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    assert bmcli("export", run, "--formats", "saved_model").code == 0
    clean = write(tmp_path / "clean.csv", CLEAN, TRUTH)
    awkward = write(tmp_path / "awkward.csv", AWKWARD, [AWKWARD_CLASSES[each] for each in TRUTH])
    for target in (run, run / "exports" / "saved_model"):
        assert predict(bmcli, target, clean)[:2] == (TRUTH, {})
        assert predict(bmcli, target, awkward)[:2] == (TRUTH, {})
    evaluated = bmcli("evaluate", run, "--data", awkward, "--json").json()
    assert evaluated["metrics"]["awkward.csv/accuracy"] == 1
    assert evaluated["unseen"] == {}
    _assert_encoder_agrees(run)


def _assert_encoder_agrees(run: Path) -> None:
    """Check that the encoder beside artefacts encodes awkward cells as clean ones."""
    import pyarrow as pa

    spec, recipe = read_data_spec(Run(run)), load_recipe(str(Run(run).lock)).recipe
    described = json.loads(json.dumps(card.describe_preprocessing(spec, recipe)))["inputs"]
    for place in (0, 1):
        column, cells = spec.inputs[place], [row[place] for row in AWKWARD]
        clean = pa.chunked_array([pa.array([row[place] for row in CLEAN], pa.string())])
        wanted = kind_of(column).encode(clean, column)
        np.testing.assert_array_equal(encoder.encode(described[place], cells), wanted)
        awkward = to_serving_array(pa.chunked_array([pa.array(cells, pa.string())]), column)
        np.testing.assert_array_equal(encoder.encode(described[place], awkward), wanted)


def test_unknown_cells_are_counted_and_many_are_a_warning(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    assert bmcli("export", run, "--formats", "saved_model").code == 0
    met = [("9", "Zürich"), ("1", "Basel"), ("8", "Bern"), ("2", "Bern"), ("", ""), *CLEAN]
    sizes = ["40", "1000", *["41"] * 11]
    rows = write(tmp_path / "met.csv", met, ["Boots"] * len(met), sizes)
    for target in (run, run / "exports" / "saved_model"):
        _, unseen, messages = predict(bmcli, target, rows)
        assert unseen == {"code": 2, "town": 1, "size": 1}
        assert "cells unlike those of the training rows: 2 of 13 in 'code' (15.4%), " in messages
        assert "warning: many cells" not in messages
    few = write(tmp_path / "few.csv", met[:3], ["Boots"] * 3, sizes[:3])
    for target in (run, run / "exports" / "saved_model"):
        _, unseen, messages = predict(bmcli, target, few)
        assert unseen == {"code": 2, "town": 1, "size": 1}
        assert "warning: many cells are unlike those of the training rows: 2 of 3 in 'code' (66.7%)" in messages
    evaluated = bmcli("evaluate", run, "--data", few, "--json")
    assert evaluated.json()["unseen"] == {"code": 2, "town": 1, "size": 1}
    assert "warning: many cells are unlike those of the training rows" in evaluated.err


def test_a_gate_limits_the_share_of_unseen_cells(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "met.csv", [("9", "Bern"), *CLEAN], ["Boots", *TRUTH])
    limit = "evaluate.gates={unseen: '<= 0.1'}"
    missed = bmcli("evaluate", run, limit, "--data", rows, "--json")
    assert missed.code == 3
    assert missed.json()["missed_gates"] == ["unseen is 0.1111, expected <= 0.1"]
    assert bmcli("evaluate", run, limit, "--json").code == 0


def test_spellings_are_told_and_case_is_a_warning(bmcli: Bmcli, tmp_path: Path) -> None:
    truth = ["Boots " if place % 3 else each for place, each in enumerate(["Boots", "boots", "Schuh", "Schuh"] * 20)]
    write(tmp_path / "shoes.csv", CLEAN * 10, truth)
    done = bmcli("init", "shoes.csv", "--target", "y", "--output", "written.yaml")
    assert done.code == 0, done.err
    assert "column 'y': 'Boots', 'Boots ' are read as one, 'Boots'." in done.err
    assert "'Boots' and 'boots' differ only by upper and lower case, and are not read as one." in done.err
