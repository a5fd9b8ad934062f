"""What a recipe takes from the run of `model.from`, and what contradicts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bmcli.errors import BmcliError, Fault
from bmcli.models import get_backbone_source
from bmcli.recipe.json_schema import make_recipe_schema
from bmcli.recipe.load import load_recipe
from bmcli.recipe.render import render_recipe
from bmcli.recipe.schema import Recipe

INPUTS = {"length": {"kind": "number", "scale": "minmax"}, "color": "category"}
LOCK: dict[str, Any] = {
    "name": "first",
    "data": {
        "source": {"kind": "csv", "path": "birds.csv"},
        "inputs": INPUTS,
        "targets": {"species": {"kind": "category"}},
    },
    "model": {"kind": "mlp", "hidden": [24, 12], "activation": "gelu"},
}
SECOND: dict[str, Any] = {
    "name": "second",
    "data": {"source": {"kind": "csv", "path": "birds.csv"}, "targets": {"weight": {"kind": "number"}}},
    "model": {"from": "runs/first"},
}


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that `runs/first` and `first` name."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "first" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / "recipe.lock.yaml").write_text(yaml.safe_dump(LOCK, sort_keys=False))
    (folder.parent / "latest").symlink_to(folder.name)
    return folder


def load(tmp_path: Path, *overrides: str, **changes: Any) -> Recipe:
    (tmp_path / "second.yaml").write_text(yaml.safe_dump({**SECOND, **changes}, sort_keys=False))
    return load_recipe(str(tmp_path / "second.yaml"), overrides).recipe


def faults(tmp_path: Path, **changes: Any) -> list[Fault]:
    with pytest.raises(BmcliError) as caught:
        load(tmp_path, **changes)
    return list(caught.value.faults)


@pytest.mark.parametrize("name", ["runs/first", "first", "runs/first/latest", "runs/first/2026-01-01"])
def test_model_and_inputs_come_from_the_run(tmp_path: Path, source: Path, name: str) -> None:
    recipe = load(tmp_path, model={"from": name})
    found = get_backbone_source(recipe.model)
    assert found is not None
    assert found.run == str(source)
    assert recipe.model.kind == "mlp"
    assert (recipe.model.hidden, recipe.model.activation.kind) == ((24, 12), "gelu")
    assert recipe.data.inputs is not None
    assert {key: each.kind for key, each in recipe.data.inputs.items()} == {"length": "number", "color": "category"}
    assert recipe.data.inputs["length"].scale == "minmax"


def test_equal_options_may_be_repeated(tmp_path: Path) -> None:
    model = {"from": "first", "kind": "mlp", "hidden": [24, 12], "activation": {"kind": "gelu"}}
    recipe = load(tmp_path, model=model, data={**SECOND["data"], "inputs": {"color": "category", "length": "number"}})
    assert recipe.data.inputs is not None
    assert list(recipe.data.inputs) == ["length", "color"], "the order is that of the run"


def test_other_options_name_both(tmp_path: Path) -> None:
    found = faults(tmp_path, model={"from": "first", "kind": "mlp", "hidden": [8], "dropout": 0.5})
    assert [fault.path for fault in found] == ["model.hidden", "model.dropout"]
    assert found[0].message == "received [8], but runs/first/2026-01-01 was trained with [24, 12]."
    assert found[0].suggestion == "Leave it out; it comes from the run."
    (fault,) = faults(tmp_path, model={"from": "first", "kind": "linear"})
    assert (fault.path, fault.message) == (
        "model.kind", "received 'linear', but runs/first/2026-01-01 was trained with 'mlp'.",
    )  # fmt: skip


def test_other_inputs_name_both(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, data={**SECOND["data"], "inputs": {"length": "number", "age": "number"}})
    assert fault.path == "data.inputs"
    assert "which are length, color; received length, age." in fault.message
    (fault,) = faults(tmp_path, data={**SECOND["data"], "inputs": {"length": "number", "color": "text"}})
    assert (fault.path, fault.message) == (
        "data.inputs.color.kind", "received 'text', but runs/first/2026-01-01 was trained with 'category'.",
    )  # fmt: skip


def test_a_target_that_is_an_input_of_the_run_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, data={**SECOND["data"], "targets": {"color": {"kind": "category"}}})
    assert fault.path == "data.targets.color"
    assert fault.suggestion == "Train that run without it, by drop: [color]."


def test_a_run_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, model={"from": "runs/frist"})
    assert fault.path == "model.from"
    assert fault.message.startswith("no run 'runs/frist'")
    (fault,) = faults(tmp_path, model={"from": 3})
    assert fault.message == "expected a run, received 3."


def test_the_resolved_recipe_needs_no_lookup(tmp_path: Path, source: Path) -> None:
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(SECOND, sort_keys=False))
    loaded = load_recipe(str(tmp_path / "second.yaml"))
    (tmp_path / "lock.yaml").write_text(render_recipe(loaded.recipe, loaded.tree))
    (source / "recipe.lock.yaml").unlink()
    assert load_recipe(str(tmp_path / "lock.yaml")).recipe == loaded.recipe


def test_a_recipe_without_a_source_does_not_mention_it(tmp_path: Path) -> None:
    loaded = load_recipe(str(tmp_path / "runs" / "first" / "latest" / "recipe.lock.yaml"))
    assert "from:" not in render_recipe(loaded.recipe, loaded.tree)


@pytest.mark.parametrize("model", [{"from": "first"}, {"from": "first", "kind": "mlp", "hidden": [24, 12]}])
def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path, model: dict[str, Any]) -> None:
    load(tmp_path, model={**model, **({"activation": "gelu"} if "kind" in model else {})})
    schema = jsonschema.Draft202012Validator(make_recipe_schema())
    assert schema.is_valid({**SECOND, "model": model})
    assert not schema.is_valid({**SECOND, "model": {**model, "from": 3}})
