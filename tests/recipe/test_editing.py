"""Values change in the text of a recipe, and everything else stays as it was written."""

from __future__ import annotations

from difflib import ndiff
from pathlib import Path
from typing import Any

import pytest

from bmcli.recipe.editing import edit_recipe, make_portable_text
from bmcli.recipe.load import load_recipe
from tests.recipe.files import write

HEAD = "# who: me\nbmcli: 1\nname: flowers  # of iris\ndata: {source: {kind: builtin, name: iris}}\n"
BLOCK = (
    HEAD
    + """
# the network
model:
  kind: mlp   # small
  hidden:
    - 64   # wide
    - 32
  dropout: 0.1

train:
  # long enough
  epochs: 9
  optimizer:
    kind: adam
    learning_rate: 1e-2   # found by hand

seed: 4
"""
)
FLOW = HEAD + "model: {kind: mlp, hidden: [64, 32], dropout: 0.1}   # small\ntrain: {epochs: 9, optimizer: adam}"
SHORT = HEAD + "model: mlp\ntrain:\n  epochs: 9\n"


def edit(folder: Path, text: str, values: dict[str, Any]) -> str:
    """Change the values of a recipe in its text; the result is loaded and compared."""
    loaded = load_recipe(write(folder, text))
    candidate = loaded.with_values(values)
    edited = edit_recipe(text, loaded.document.tree, candidate.document.tree)
    assert edited is not None
    assert load_recipe(write(folder, edited, "edited.yaml")).recipe == candidate.recipe
    return edited


def changes(before: str, after: str) -> list[str]:
    return [line.rstrip("\n") for line in ndiff(before.splitlines(True), after.splitlines(True)) if line[0] in "+-"]


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        (BLOCK, {"model.dropout": 0.25}, ["-   dropout: 0.1", "+   dropout: 0.25"]),
        (
            BLOCK,
            {"train.optimizer.learning_rate": 0.003},
            [
                "-     learning_rate: 1e-2   # found by hand",
                "+     learning_rate: 0.003   # found by hand",
            ],
        ),
        (BLOCK, {"model.hidden": [8]}, ["-   hidden:", "-     - 64   # wide", "-     - 32", "+   hidden: [8]"]),
        (BLOCK, {"model.activation": "gelu"}, ["+   activation: gelu"]),
        (BLOCK, {"train.optimizer.kind": "adam", "seed": 4}, []),
        (
            BLOCK,
            {"train.optimizer": {"kind": "sgd", "momentum": 0.9}},
            [
                "-     kind: adam",
                "-     learning_rate: 1e-2   # found by hand",
                "+     kind: sgd",
                "+     momentum: 0.9",
            ],
        ),
        (BLOCK, {"model.dropout": None}, ["-   dropout: 0.1"]),
        (BLOCK, {"data.seed": 3, "seed": 5}, [
            "- data: {source: {kind: builtin, name: iris}}", "+ data: {source: {kind: builtin, name: iris}, seed: 3}",
            "- seed: 4", "+ seed: 5",
        ]),
        (FLOW, {"model.dropout": 0.25}, [
            "- model: {kind: mlp, hidden: [64, 32], dropout: 0.1}   # small",
            "+ model: {kind: mlp, hidden: [64, 32], dropout: 0.25}   # small",
        ]),
        (FLOW, {"model.dropout": None}, [
            "- model: {kind: mlp, hidden: [64, 32], dropout: 0.1}   # small",
            "+ model: {kind: mlp, hidden: [64, 32]}   # small",
        ]),
        (FLOW, {"train.optimizer.learning_rate": 0.1}, [
            "- train: {epochs: 9, optimizer: adam}",
            "+ train: {epochs: 9, optimizer: {kind: adam, learning_rate: 0.1}}",
        ]),
        (FLOW, {"seed": 5}, ["+ seed: 5"]),
        (SHORT, {"model.hidden": [8]}, ["- model: mlp", "+ model: {kind: mlp, hidden: [8]}"]),
        (SHORT, {"train.optimizer.learning_rate": 0.1}, ["+   optimizer: {learning_rate: 0.1}"]),
        (SHORT, {"model": {"kind": "linear"}}, ["- model: mlp", "+ model: {kind: linear}"]),
    ],
)  # fmt: skip
def test_only_the_changed_values_change(tmp_path: Path, text: str, values: dict[str, Any], expected: list[str]) -> None:
    assert sorted(changes(text, edit(tmp_path, text, values))) == sorted(expected)


def test_a_seed_comes_after_the_name(tmp_path: Path) -> None:
    lines = edit(tmp_path, FLOW, {"seed": 5}).splitlines()
    assert lines[lines.index("name: flowers  # of iris") + 1] == "seed: 5"


def test_an_item_of_a_list_changes_in_its_place(tmp_path: Path) -> None:
    layers = "    - {kind: dense, units: 8}  # one\n    - {kind: dense, units: 3}\n"
    text = f"{HEAD}model:\n  kind: layers\n  layers:\n{layers}"
    edited = edit(tmp_path, text, {"model.layers.0.units": 16})
    assert changes(text, edited) == [
        "-     - {kind: dense, units: 8}  # one",
        "+     - {kind: dense, units: 16}  # one",
    ]


def test_a_value_from_a_variable_is_replaced_and_the_variable_stays(tmp_path: Path) -> None:
    text = HEAD + 'vars: {wide: 64}\nmodel: {kind: mlp, hidden: ["${wide}", "${wide}"], dropout: 0.1}\n'
    assert "hidden: [8]" in edit(tmp_path, text, {"model.hidden": [8]})
    assert "vars: {wide: 32}" in edit(tmp_path, text, {"vars.wide": 32})


def test_what_a_recipe_inherits_is_added_to_it(tmp_path: Path) -> None:
    write(tmp_path, BLOCK, "base.yaml")
    text = "# mine\nextends: base.yaml   # shared\nname: other\nmodel: {dropout: 0.2}\n"
    edited = edit(tmp_path, text, {"model.hidden": [8], "model.dropout": None, "train.optimizer.learning_rate": 0.1})
    assert edited == (
        "# mine\nextends: base.yaml   # shared\nname: other\nmodel: {dropout: null, hidden: [8]}\n"
        "train: {optimizer: {learning_rate: 0.1}}\n"
    )


def test_another_kind_replaces_an_inherited_one(tmp_path: Path) -> None:
    write(tmp_path, BLOCK, "base.yaml")
    text = "extends: base.yaml\nname: other\n"
    edited = edit(tmp_path, text, {"train.optimizer": {"kind": "sgd", "momentum": 0.9}})
    assert edited == text + "train: {optimizer: {kind: sgd, momentum: 0.9}}\n"


def test_overrides_and_absolute_paths_are_written_into_the_text(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.csv").write_text("x,label\n1,a\n2,b\n")
    write(tmp_path / "here", "bmcli: 1\nmodel: mlp\n", "base.yaml")
    text = (
        "extends: base.yaml  # shared\nname: a\n"
        "data: {source: {kind: csv, path: a.csv}, targets: {label: category}}  # mine\n"
    )
    loaded = load_recipe(write(tmp_path / "here", text), ["train.epochs=3", "model.hidden=[8]"])
    portable = make_portable_text(loaded)
    here = tmp_path / "here"
    assert portable == (
        f"extends: {here}/base.yaml  # shared\nname: a\n"
        f"data: {{source: {{kind: csv, path: {here}/a.csv}}, targets: {{label: category}}}}  # mine\n"
        "model: {kind: mlp, hidden: [8]}\ntrain: {epochs: 3}\n"
    )
    assert load_recipe(write(tmp_path / "elsewhere", portable)).recipe == loaded.recipe


def test_a_path_of_a_recipe_that_is_extended_stays_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n1,a\n2,b\n")
    base = "bmcli: 1\ndata: {source: {kind: csv, path: a.csv}, targets: {label: category}}\nmodel: mlp\n"
    write(tmp_path, base, "base.yaml")
    loaded = load_recipe(write(tmp_path, "extends: base.yaml\nname: a\n"))
    assert make_portable_text(loaded) == f"extends: {tmp_path}/base.yaml\nname: a\n"


def test_a_built_in_recipe_is_extended_by_its_name(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, "extends: digits\nname: a\n"), ["train.epochs=3"])
    assert make_portable_text(loaded) == "extends: digits\nname: a\ntrain: {epochs: 3}\n"


def test_an_alias_without_its_anchor_is_no_text(tmp_path: Path) -> None:
    text = HEAD + "model: {kind: mlp, dropout: &share 0.1}\ntrain: {ema: *share}\n"
    loaded = load_recipe(write(tmp_path, text))
    assert edit_recipe(text, loaded.document.tree, loaded.with_values({"model.dropout": 0.2}).document.tree) is None
