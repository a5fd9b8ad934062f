"""An objective that learns from inputs alone goes through every command without `data.targets`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bmcli import plugins
from bmcli.networks.network import load_serving_model

from .conftest import Bmcli
from .test_kill import Killed

PLUGIN = Path(__file__).parent / "denoising.py"
ROWS = 300
RECIPE: dict[str, Any] = {
    "name": "waves",
    "data": {
        "source": {"kind": "csv", "path": "waves.csv"},
        "drop": ["place"],
        "weight": "weight",
        "split": {"validation": 0.2, "test": 0.2},
    },
    "model": {"kind": "mlp", "hidden": [16, 3, 16], "activation": "tanh"},
    "objective": {"kind": "denoising", "noise": 0.05},
    "train": {
        "epochs": 15, "batch_size": 16, "tensorboard": False, "optimizer": {"kind": "adam", "learning_rate": 0.02},
    },
    "evaluate": {"slices": ["place"]},
}  # fmt: skip


@pytest.fixture
def waves(bmcli: Bmcli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls bmcli with the plug-in, in a folder with a table of six numbers that follow from two."""
    generator = np.random.default_rng(4)
    lines = ["a,b,c,d,e,f,weight,place"]
    for row in range(ROWS):
        x, y = generator.normal(size=2)
        numbers = [x, y, x + y, x - y, 10 + 3 * x, 100 * y]
        lines.append(",".join([*(f"{each:.5f}" for each in numbers), str(1 + row % 2), ("north", "south")[row % 2]]))
    (tmp_path / "waves.csv").write_text("\n".join(lines) + "\n")
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


def read_table(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_inputs_are_reconstructed_from_training_to_a_served_model(waves: Any, tmp_path: Path) -> None:
    planned = waves("plan", "recipe.yaml")
    assert (planned["targets"], list(planned["inputs"])) == ([], [*"abcdef"])
    trained = waves("train", "recipe.yaml")
    assert trained["metrics"]["test/error"] < 0.25, trained["metrics"]
    run = Path(trained["run"])
    lock = yaml.safe_load((run / "recipe.lock.yaml").read_text())
    assert lock["objective"]["kind"] == "denoising"
    assert not lock["data"].get("targets")

    waves("evaluate", "waves")
    record = json.loads((run / "evaluation.json").read_text())["test"]
    assert record["intervals"]["error"]["low"] < record["metrics"]["error"] < record["intervals"]["error"]["high"]
    assert [(each["target"], each["compared"]) for each in record["slices"]] == [("denoising", 2)]

    answer = waves("predict", "waves", "waves.csv", "--keep", "f", "--output", "out.csv")
    assert (answer["rows"], answer["lines"]) == (ROWS, ROWS)
    rows = read_table("out.csv")
    true, found = (np.array([float(row[name]) for row in rows]) for name in ("f", "f_reconstructed"))
    assert np.corrcoef(true, found)[0, 1] > 0.95

    exported = waves("export", "waves", "--formats", "saved_model,litert")
    assert exported, exported
    for name in ("saved_model", "litert"):
        card = json.loads((run / "exports" / name / "card.json").read_text())
        assert card["verification"]["verified"], card["verification"]
        assert [target["name"] for target in card["targets"]] == ["denoising"]
        assert [output["shape"] for output in card["signatures"][0]["outputs"]] == [[6]]
    waves("predict", run / "exports" / "litert", "waves.csv", "--output", "served.csv")
    served = np.array([[float(value) for value in row.values()] for row in read_table("served.csv")])
    expected = [[float(row[f"{name}_reconstructed"]) for name in "abcdef"] for row in rows]
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-4)

    waves("report", "waves")
    assert "learned" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_streaming_training_gives_the_weights_of_a_resident_one(waves: Any) -> None:
    resident = waves("train", "recipe.yaml", "train.epochs=4")["run"]
    streaming = waves("train", "recipe.yaml", "train.epochs=4", "runtime.feed=streaming")["run"]
    first, second = (load_serving_model(Path(run) / "model.keras").weights for run in (resident, streaming))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_explain_compare_and_folds_work_without_a_target(waves: Any, tmp_path: Path) -> None:
    waves("train", "recipe.yaml", "train.epochs=3")
    waves("train", "recipe.yaml", "train.epochs=3", "seed=2", "data.seed=0", "name=second")
    explained = waves("explain", "waves", "--rows", "40")
    assert "a" in json.dumps(explained)
    compared = waves("compare", "waves", "second")
    assert compared["metric"] == "error", compared
    folds = waves("evaluate", "recipe.yaml", "--folds", "2", "train.epochs=1")
    assert "error" in json.dumps(folds)


def test_a_source_with_a_label_hides_it_from_an_objective_without_target(waves: Any, tmp_path: Path) -> None:
    recipe = {**RECIPE, "data": {"source": {"kind": "builtin", "name": "iris"}}, "evaluate": {}}
    (tmp_path / "iris.yaml").write_text(yaml.safe_dump(recipe))
    planned = waves("plan", "iris.yaml")
    assert planned["targets"] == []
    assert len(planned["inputs"]) == 4


def test_an_objective_learns_from_inputs_beside_one_of_a_target(waves: Any, tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "data": {**RECIPE["data"], "targets": {"place": "category"}, "drop": []},
        "objective": {"numbers": {"kind": "denoising", "weight": 0.5}},
        "evaluate": {},
    }
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(recipe))
    metrics = waves("train", "both.yaml", "train.epochs=2")["metrics"]
    assert {"test/place/accuracy", "test/numbers/error"} <= set(metrics)


@pytest.mark.slow
def test_a_network_is_trained_further_for_a_target(waves: Any, tmp_path: Path) -> None:
    source = waves("train", "recipe.yaml", "train.epochs=3")["run"]
    recipe = {
        **RECIPE, "name": "places", "data": {**RECIPE["data"], "targets": {"place": "category"}, "drop": []},
        "model": {"from": source}, "objective": None, "evaluate": {},
    }  # fmt: skip
    (tmp_path / "places.yaml").write_text(yaml.safe_dump(recipe))
    assert "test/accuracy" in waves("train", "places.yaml", "train.epochs=1")["metrics"]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_bits(waves: Any, tmp_path: Path) -> None:
    recipe = {**RECIPE, "name": "killed", "train": {**RECIPE["train"], "epochs": 40, "checkpoint": {"steps": 1}}}
    text = yaml.safe_dump(recipe).replace("path: waves.csv", f"path: {tmp_path / 'waves.csv'}")
    whole, killed = (Killed(tmp_path / name, recipe=text) for name in ("whole", "killed"))
    whole.to_the_end()
    process = killed.start()
    assert killed.until_it_trains(process)
    process.kill()
    process.wait()
    killed.to_the_end()
    assert killed.result() == whole.result()


def check(bmcli: Bmcli, tmp_path: Path, recipe: dict[str, Any]) -> str:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(recipe))
    done = bmcli("validate", "--deep", "wrong.yaml")
    assert done.code == 2
    return done.err


def test_a_wrong_use_is_a_fault_with_its_place(waves: Any, bmcli: Bmcli, tmp_path: Path) -> None:
    text = check(bmcli, tmp_path, {**RECIPE, "data": {**RECIPE["data"], "targets": {"a": "number"}}})
    assert "denoising does not suit target 'a' of kind number." in text
    assert "It learns from inputs alone: leave out data.targets" in text
    text = check(bmcli, tmp_path, {**RECIPE, "objective": None, "seed": -1})
    assert "data.targets: a csv source has no default target." in text
    assert "seed" in text
    data = {**RECIPE["data"], "inputs": {"place": "category"}, "drop": []}
    assert "there is no input of numbers to reconstruct." in check(bmcli, tmp_path, {**RECIPE, "data": data})
    data = {**RECIPE["data"], "targets": {"b": "number"}}
    objective = {"a": {"kind": "denoising"}}
    text = check(bmcli, tmp_path, {**RECIPE, "data": data, "objective": objective})
    assert "the output of denoising is named 'a', as an input is." in text
