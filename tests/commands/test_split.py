"""Runs with each kind of split and sample are evaluated and resumed by their locks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmcli.runs import Run

from .conftest import Bmcli
from .test_train import weights

RECIPE = """\
bmcli: 1
name: split
data:
  source: {kind: csv, path: t.csv}
  targets: {y: category}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
runtime: {jit: false}
"""
TABLE = "who,at,age,y\n" + "".join(
    f"p{n * 7 % 31},2024-{1 + n % 12:02d}-{1 + n % 28:02d},{n * 13 % 57},{'ab'[n % 5 < 2]}\n" for n in range(240)
)
WAYS = {
    "group": (("data.split.group=who", "data.sample={balance: y}"), {"stratify": "y", "group": "who"}),
    "time": (("data.split.time=at", "data.sample=0.5"), {"stratify": "none", "time": "at"}),
    "hash": (("data.split.hash=[who, age]", "data.sample=50"), {"stratify": "none", "hash": ["who", "age"]}),
}


@pytest.mark.parametrize("way", ["group", *(pytest.param(way, marks=pytest.mark.slow) for way in ("time", "hash"))])
def test_a_run_is_measured_and_gone_on_with_by_its_lock(bmcli: Bmcli, tmp_path: Path, way: str) -> None:
    overrides, expected = WAYS[way]
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = bmcli("train", "recipe.yaml", *overrides, "--json")
    assert done.code == 0, done.err
    trained: dict[str, Any] = done.json()
    lock = Path(trained["run"]) / "recipe.lock.yaml"
    locked = yaml.safe_load(lock.read_text())["data"]
    assert {name: locked["split"][name] for name in expected} == expected
    assert set(locked["inputs"]) == {"who", "at", "age"} - {expected.get("group"), expected.get("time")}
    again = bmcli("evaluate", trained["run"], "--json").json()["metrics"]
    assert {name: trained["metrics"][name] for name in again} == pytest.approx(again, abs=1e-6)
    longer = bmcli("train", "--resume", trained["run"], "train.epochs=2", "--json")
    assert longer.code == 0, longer.err
    whole = bmcli("train", "recipe.yaml", *overrides, "train.epochs=2", "--json").json()["metrics"]
    assert longer.json()["metrics"] == pytest.approx(whole, abs=1e-6)


def test_a_lock_that_knows_no_new_options_is_measured_as_ever(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    trained = bmcli("train", "recipe.yaml", "--json").json()
    lock = Path(trained["run"]) / "recipe.lock.yaml"
    written = yaml.safe_load(lock.read_text())
    del written["data"]["sample"]
    for name in ("group", "time", "hash"):
        del written["data"]["split"][name]
    for section, name in (("train", "swa"), ("train", "layer_rates")):
        del written[section][name]
    del written["train"]["stop"]["overfit"]
    Run(lock.parent).write_lock(yaml.safe_dump(written))
    again = bmcli("evaluate", trained["run"], "--json").json()["metrics"]
    assert {name: trained["metrics"][name] for name in again} == pytest.approx(again, abs=1e-6)


@pytest.mark.slow
def test_the_rows_of_a_data_seed_stay_while_the_first_weights_change(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*seeds: str) -> dict[str, Any]:
        still = "train.optimizer={kind: sgd, learning_rate: 0.0}"
        done = bmcli("train", "recipe.yaml", "data.sample=0.5", still, *seeds, "--json")
        assert done.code == 0, done.err
        trained: dict[str, Any] = done.json()
        return trained

    def rows(trained: dict[str, Any]) -> str:
        return str(json.loads((Path(trained["run"]) / "data.json").read_text())["key"])

    first, second, other = run("seed=1", "data.seed=5"), run("seed=2", "data.seed=5"), run("seed=5")
    assert rows(first) == rows(second) == rows(other)
    kept = zip(weights(first["run"]), weights(second["run"]), strict=True)
    assert any(a.tobytes() != b.tobytes() for a, b in kept)
    again = bmcli("evaluate", first["run"], "--json").json()["metrics"]
    assert {name: first["metrics"][name] for name in again} == pytest.approx(again, abs=1e-6)
