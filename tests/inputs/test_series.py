"""A kind of input whose rows are windows of one series goes through every verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmcli.disk import compute_sha256
from tests.test_plugins import Call, call

__all__ = ["call"]  # the fixture

STEPS, ROWS = 16, 400


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A copy of the plug-in, a series of two levels, of which training rows see one, and a table of positions."""
    file = tmp_path / "series.py"
    file.write_text((Path(__file__).parent / "series.py").read_text())
    values = np.sin(np.arange(1000) / 5) + np.random.default_rng(0).normal(size=1000) / 10
    series = values + 9 * (np.arange(1000) >= 600)
    np.save(tmp_path / "series.npy", series.astype("float32"))
    lines = ["position,next,split"]
    for row in range(ROWS):
        split = ("train", "train", "validation", "test")[row % 4]
        position = (STEPS if split == "train" else 616) + row * 13 % 380
        lines.append(f"{position},{values[position]:.4f},{split}")
    (tmp_path / "positions.csv").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "series",
        "data": {
            "source": {"kind": "csv", "path": "positions.csv"},
            "inputs": {"position": {"kind": "series", "file": str(tmp_path / "series.npy"), "steps": STEPS}},
            "targets": {"next": "number"},
            "split": {"column": "split"},
        },
        "model": {"kind": "mlp", "hidden": [8]},
        "train": {"epochs": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return file


@pytest.mark.slow
def test_windows_of_a_series_go_through_every_verb(call: Call, plugin: Path, tmp_path: Path) -> None:
    def bmcli(*arguments: object) -> Any:
        done = call("--plugin", plugin, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    resident, streaming = (
        bmcli("train", "recipe.yaml", f"runtime.feed={feed}", f"name={feed}") for feed in ("resident", "streaming")
    )
    assert resident["metrics"] == streaming["metrics"]
    (entry,) = (path.parent for path in (tmp_path / "BMCLI_CACHE").rglob("spec.json"))
    stored = sum(path.stat().st_size for path in entry.rglob("inputs-0*.npy"))
    assert stored < 4 * (1000 + ROWS) + 4 * 128, "the series and a start for each row"
    (column,) = json.loads((entry / "spec.json").read_text())["inputs"]
    assert column["state"]["mean"] == pytest.approx(0, abs=0.1)
    assert column["state"]["scale"] == pytest.approx(0.7, abs=0.1), "of training rows, which are below step 600"

    evaluated = bmcli("evaluate", "resident")["metrics"]
    assert evaluated.items() <= resident["metrics"].items()
    assert bmcli("predict", "resident", "positions.csv", "--output", "run.csv")["rows"] == ROWS
    bmcli("explain", "resident")
    bmcli("export", "resident", "--formats", "saved_model")
    (artefact,) = (tmp_path / "BMCLI_RUNS/resident").glob("2*/exports/saved_model")
    bmcli("predict", artefact, "positions.csv", "--output", "artefact.csv")
    predicted, served = (
        np.loadtxt(tmp_path / name, skiprows=1, dtype="float32") for name in ("run.csv", "artefact.csv")
    )
    np.testing.assert_allclose(served, predicted, rtol=1e-4)


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_of_windows(call: Call, plugin: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    lines = (tmp_path / "positions.csv").read_text().splitlines()
    (tmp_path / "more.csv").write_text("\n".join(["position", *(str(n) for n in range(500, 540))]) + "\n")
    words = [f"{line},{'up' if float(line.split(',')[1]) > 0 else 'down'}" for line in lines[1:]]
    (tmp_path / "positions.csv").write_text("\n".join([f"{lines[0]},trend", *words]) + "\n")
    recipe["data"]["targets"] = {"trend": "category"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert call("--plugin", plugin, "train", "recipe.yaml").returncode == 0
    (model,) = (tmp_path / "BMCLI_RUNS/series").glob("2*/*.keras")
    teacher = {"model": str(model), "run": str(model.parent), "sha256": compute_sha256(model)}
    transfer = {"unlabelled": {"kind": "csv", "path": "more.csv"}}
    student = {
        **recipe,
        "name": "student",
        "distillation": {"teachers": [teacher], "losses": [{"kind": "soft"}], "transfer": transfer},
    }
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(student))
    done = call("--plugin", plugin, "train", "student.yaml")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "BMCLI_CACHE" / "transfer").glob("[!.]*")
    base, starts = np.load(folder / "inputs-0-base.npy"), np.load(folder / "inputs-0.npy")
    assert len(starts) == ROWS // 2 + 40
    assert len(base) <= 3000
    series = np.load(tmp_path / "series.npy")
    (column,) = json.loads(next((tmp_path / "BMCLI_CACHE").rglob("spec.json")).read_text())["inputs"]
    np.testing.assert_allclose(
        base[starts[-40] : starts[-40] + STEPS] * column["state"]["scale"] + column["state"]["mean"],
        series[500 - STEPS : 500], atol=1e-3,
    )  # fmt: skip
