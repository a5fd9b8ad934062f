"""A kind of input that a user adds goes through every verb like a built-in one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from tests.test_plugins import Call, call

__all__ = ["call"]  # the fixture

CYCLIC = Path(__file__).parent / "cyclic.py"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A copy of the plug-in, and a table in which the demand follows from the hour; some hours are missing."""
    file = tmp_path / "cyclic.py"
    file.write_text(CYCLIC.read_text())
    rows = [(f"{n % 24 + (n % 7) / 7:.3f}" if n % 40 else "", 50 + 30 * math.sin(n % 24 / 3.82)) for n in range(240)]
    (tmp_path / "demand.csv").write_text("hour,demand\n" + "".join(f"{hour},{value:.2f}\n" for hour, value in rows))
    return file


def write_recipe(tmp_path: Path, **options: object) -> None:
    recipe = {
        "name": "demand",
        "data": {
            "source": {"kind": "csv", "path": "demand.csv"},
            "inputs": {"hour": {"kind": "cyclic", **options}},
            "targets": {"demand": {"kind": "number"}},
        },
        "model": {"kind": "mlp", "hidden": [8]},
        "train": {"epochs": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.slow
def test_a_kind_of_input_of_a_file_goes_through_every_verb(call: Call, plugin: Path, tmp_path: Path) -> None:
    drafted = call("--plugin", plugin, "init", "demand.csv", "--target", "demand", "--output", "draft.yaml", "--json")
    assert drafted.returncode == 0, drafted.stderr
    (hour, _) = json.loads(drafted.stdout)["columns"]
    assert (hour["role"], hour["kind"], hour["why"]) == ("input", "cyclic", "hours of a day")
    assert yaml.safe_load((tmp_path / "draft.yaml").read_text())["data"]["inputs"] == {"hour": "cyclic"}

    write_recipe(tmp_path, period=24)
    for verb in (["validate", "recipe.yaml"], ["plan", "recipe.yaml", "--json"], ["train", "recipe.yaml", "--json"]):
        done = call("--plugin", plugin, *verb)
        assert done.returncode == 0, done.stderr
    predicted = call("--plugin", plugin, "predict", "demand", "demand.csv", "--output", "predicted.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 241
    explained = call("--plugin", plugin, "explain", "demand", "--json")
    assert explained.returncode == 0, explained.stderr
    reported = call("--plugin", plugin, "report", "demand")
    assert reported.returncode == 0, reported.stderr
    (page,) = (tmp_path / "BMCLI_RUNS/demand").glob("2*/report.html")
    assert "cycles of 24" in page.read_text()

    exported = call("--plugin", plugin, "export", "demand", "--formats", "saved_model,litert", "--json")
    assert exported.returncode == 0, exported.stderr
    for folder in (tmp_path / "BMCLI_RUNS/demand").glob("2*/exports/*"):
        card = json.loads((folder / "card.json").read_text())
        assert card["verification"]["verified"]
        assert "a missing value in 'hour'" in card["verification"]["edge_cases"]
        assert card["columns"] == [
            {"name": "hour", "kind": "cyclic", "meaning": "a number that repeats; NaN is missing",
             "preprocessing": "inside"}
        ]  # fmt: skip
        served = call("--plugin", plugin, "predict", folder, "demand.csv", "--output", f"{folder.name}.csv")
        assert served.returncode == 0, served.stderr


def test_data_are_prepared_again_by_other_code(call: Call, plugin: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    assert call("--plugin", plugin, "validate", "recipe.yaml", "--deep").returncode == 0
    plugin.write_text(plugin.read_text().replace("2 * np.pi", "4 * np.pi"))
    assert call("--plugin", plugin, "validate", "recipe.yaml", "--deep").returncode == 0
    assert len(list((tmp_path / "BMCLI_CACHE").rglob("spec.json"))) == 2


def test_a_format_that_cannot_hold_its_preprocessing_is_a_fault(call: Call, plugin: Path, tmp_path: Path) -> None:
    plugin.write_text(plugin.read_text().replace('preprocessing = "arithmetic"', 'preprocessing = "tensorflow"'))
    write_recipe(tmp_path)
    assert call("--plugin", plugin, "train", "recipe.yaml").returncode == 0
    done = call("--plugin", plugin, "export", "demand", "--formats", "litert")
    assert done.returncode == 2
    assert "the format cannot hold the preprocessing of 'hour', and its kind cyclic has none outside of" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "lacking"),
    [
        ("def get_traits(", "def get_properties(", "lacks get_traits."),
        ("class Options(InputOptions)", "from bmcli.recipe.fields import Kind\nclass Options(Kind)", "can_be_crossed"),
    ],
)
def test_a_part_that_lacks_a_function_is_a_fault(
    call: Call, plugin: Path, tmp_path: Path, old: str, new: str, lacking: str
) -> None:
    plugin.write_text(plugin.read_text().replace(old, new))
    write_recipe(tmp_path)
    done = call("--plugin", plugin, "validate", "recipe.yaml")
    assert done.returncode == 2
    assert "plug-in 'inputs.cyclic' lacks " in done.stderr
    assert lacking in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_that_name_no_inputs_detect_built_in_kinds(call: Call, plugin: Path, tmp_path: Path) -> None:
    source, targets = {"kind": "csv", "path": "demand.csv"}, {"demand": {"kind": "number"}}
    recipe = {"name": "demand", "data": {"source": source, "targets": targets}, "model": "mlp"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = call("--plugin", plugin, "validate", "recipe.yaml", "--deep")
    assert done.returncode == 0, done.stderr
    (spec,) = (tmp_path / "BMCLI_CACHE").rglob("spec.json")
    assert [column["kind"] for column in json.loads(spec.read_text())["inputs"]] == ["number"]
