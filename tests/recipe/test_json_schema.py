"""The JSON schema and `load_recipe` agree on what a recipe is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from pydantic import Field

from bmcli import parts
from bmcli.recipe import json_schema, nodes
from bmcli.recipe.fields import Kind, Options
from bmcli.recipe.load import list_built_in, load_recipe
from tests.recipe.files import SMALLEST, write
from tests.recipe.strategies import accepted, recipes, schema
from tests.recipe.test_render import LAW, as_lists

VALIDATOR = jsonschema.Draft202012Validator(schema())


def plain(text: str) -> Any:
    return as_lists(nodes.parse_tree(text, "", Path()).plain())


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a schema."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from inside(item)


def test_it_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_reference_leads_to_a_definition() -> None:
    references = {each["$ref"] for each in inside(schema()) if isinstance(each.get("$ref"), str)}
    assert references
    assert references <= {f"#/$defs/{name}" for name in schema()["$defs"]}


def test_every_field_is_described() -> None:
    definitions = schema()["$defs"]
    bare = [
        (owner, name)
        for owner, definition in definitions.items()
        for each in inside(definition)
        if isinstance(each.get("properties"), dict) and "description" in each
        for name, field in each["properties"].items()
        if isinstance(field, dict) and not described(field, definitions)
    ]
    assert bare == []


def described(field: dict[str, Any], definitions: dict[str, Any]) -> bool:
    if "description" in field:
        return True
    if "$ref" in field:
        return described(definitions[field["$ref"].removeprefix("#/$defs/")], definitions)
    return any(described(each, definitions) for each in field.get("anyOf", ()))


def test_every_default_fits_its_field() -> None:
    wrong = []
    for name, definition in schema()["$defs"].items():
        # Defaults that only Keras knows.
        for each in inside(definition) if "Keras" not in name and "Layers" not in name else ():
            if "default" in each and ("$ref" in each or "anyOf" in each or "type" in each):
                checker = jsonschema.Draft202012Validator({**each, "$defs": schema()["$defs"]})
                wrong += [] if checker.is_valid(as_lists(each["default"])) else [each]
    assert wrong == []


@settings(LAW, max_examples=50)
@given(recipe=recipes())
def test_what_load_accepts_the_schema_accepts(tmp_path: Path, recipe: dict[str, Any]) -> None:
    _, values = accepted(recipe, tmp_path / "recipe.yaml")
    assert [error.message for error in VALIDATOR.iter_errors(values)] == []


@pytest.mark.parametrize("name", list_built_in())
def test_built_in_recipes_are_accepted(name: str) -> None:
    text = list_built_in()[name].read_text(encoding="utf-8")
    assert [error.message for error in VALIDATOR.iter_errors(plain(text))] == []


ACCEPTED = [
    "train: {schedule: cosine}",
    "train: {schedule: {kind: exponential_decay, decay_steps: 10, decay_rate: 0.9}}",
    "train: {optimizer: sgd}",
    "objective: classification",
    "objective: {label: classification}",
    "vars: {n: 3}\ntrain: {epochs: '${n}', precision: '${n}'}",
    "extends: other.yaml\ntrain: {epochs: null}",
    "extends: null",
    "tune: {space: {model.hidden: {choice: [[8], [9]]}, train.tensorboard: bool, seed: {bool: true}}}",
    "tune: {algorithm: grid, objective: [auto, size], confirm: none, space: {a: {log: [1, 2], when: {b: [1]}}}}",
    "tune: {algorithm: {kind: hyperband, factor: 4}, space: {a: {int: [1, 9], step: 2, scale: log}}}",
    "extends: other.yaml\ntune: {space: {a: null, b: {step: 1}}, confirm: null}",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_these_are_accepted(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(plain(SMALLEST + text))] == []


@pytest.mark.parametrize("text", ["model: {hidden: [8]}", "model: {hidden: {0: 8}}", "data: {split: null}", "seed: 3"])
def test_a_recipe_that_extends_another_may_be_a_part(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(plain(f"extends: base.yaml\n{text}"))] == []


REFUSED = [
    SMALLEST.replace("name: smallest\n", ""),
    SMALLEST.replace("smallest", "two words"),
    SMALLEST.replace("mlp", "mlpp"),
    SMALLEST.replace("mlp", "{kind: mlp, hiden: [3]}"),
    SMALLEST.replace("mlp", "{kind: mlp, hidden: [0]}"),
    SMALLEST.replace("mlp", "{hidden: [3]}"),
    SMALLEST.replace("mlp", "{kind: mlp, activation: reluu}"),
    SMALLEST.replace(", name: digits", ""),
    SMALLEST + "sead: 3",
    SMALLEST + "seed: -1",
    SMALLEST + "train: null",
    SMALLEST + "train: {epochs: ten}",
    SMALLEST + "train: {epochs: 0}",
    SMALLEST + "train: {epochs: '${a} ${b}'}",
    SMALLEST + "train: {stop: {time: 30}}",
    SMALLEST + "train: {stop: {time: 30 parsecs}}",
    SMALLEST + "train: {optimizer: {kind: adamw, learning_rat: 1}}",
    SMALLEST + "train: {schedule: {kind: cosine, decay_steps: 3}}",
    SMALLEST + "evaluate: {gates: {accuracy: '= 0.9'}}",
    SMALLEST + "evaluate: {gates: {accuracy: 0.9}}",
    SMALLEST + "tune: {}",
    SMALLEST + "tune: {space: {}}",
    SMALLEST + "tune: {space: {a: 3}}",
    SMALLEST + "tune: {space: {a: {}}}",
    SMALLEST + "tune: {space: {a: {choice: []}}}",
    SMALLEST + "tune: {space: {a: {int: [1, 2.5]}}}",
    SMALLEST + "tune: {space: {a: {float: [1]}}}",
    SMALLEST + "tune: {space: {a: {log: [1, 2], step: 2}}}",
    SMALLEST + "tune: {space: {a: {bool: false}}}",
    SMALLEST + "tune: {space: {a: bool}, algorithm: bayes}",
    SMALLEST + "tune: {space: {a: bool}, algorithm: {kind: grid, factor: 3}}",
    SMALLEST + "tune: {space: {a: bool}, objective: train/loss}",
    SMALLEST + "tune: {space: {a: bool}, objective: [size]}",
    SMALLEST + "tune: {space: {a: bool}, confirm: {tops: 3}}",
    "extends: base.yaml\nmodel: {hiden: [8]}",
    "extends: base.yaml\ntrain: {epochs: ten}",
    "[]",
]


@pytest.mark.parametrize("text", REFUSED)
def test_these_are_refused(text: str) -> None:
    assert not VALIDATOR.is_valid(plain(text))


def test_the_bare_name_of_a_kind_that_needs_no_option_is_accepted() -> None:
    definition = {"$ref": "#/$defs/ModelField.models", "$defs": schema()["$defs"]}
    assert jsonschema.Draft202012Validator(definition).is_valid("mlp")


def test_the_bare_name_of_a_kind_that_needs_an_option_is_refused() -> None:
    definition = {"$ref": "#/$defs/PartField.data.sources", "$defs": schema()["$defs"]}
    assert not jsonschema.Draft202012Validator(definition).is_valid("csv")


def test_definitions_of_one_name_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(field: str) -> type[Kind]:
        class Block(Options):
            """A block."""

        Block.__annotations__[field] = int
        inner = type("Block", (Options,), {"__annotations__": {field: int}, "__module__": __name__})

        class Made(Kind):
            kind: Literal["made"] = "made"
            block: inner = Field(description="Its block.")  # type: ignore[valid-type]

        return Made

    modules = {"one": kind("width"), "two": kind("height")}
    monkeypatch.setattr(parts, "names", lambda room: tuple(modules))
    monkeypatch.setattr(parts, "load", lambda room, name: type("Module", (), {"Options": modules[name]}))
    found = json_schema.make_recipe_schema()["$defs"]
    assert {next(iter(found[name]["properties"])) for name in ("Block", "Block_")} == {"width", "height"}


def test_the_smallest_recipe_loads(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, SMALLEST)).recipe.name == "smallest"
