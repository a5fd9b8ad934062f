"""A recipe that is written out reads back to the same recipe, with the origin of every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmcli.recipe import nodes
from bmcli.recipe.load import list_built_in, load_recipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.render import format_origin, render_recipe
from tests.recipe.files import SMALLEST, write
from tests.recipe.strategies import TEXTS, accepted, recipes

LAW = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def lines(text: str) -> dict[str, str]:
    """Lines of a rendered recipe by their first word."""
    return {line.split(":")[0].strip(): line for line in text.splitlines()}


@settings(LAW, max_examples=80)
@given(recipe=recipes())
def test_a_rendered_recipe_reads_back_to_the_same_recipe(tmp_path: Path, recipe: dict[str, Any]) -> None:
    loaded, _ = accepted(recipe, tmp_path / "recipe.yaml")
    again = load_recipe(write(tmp_path, render_recipe(loaded.recipe, loaded.tree), "lock.yaml"))
    assert repr(again.recipe) == repr(loaded.recipe)


@pytest.mark.parametrize("name", list_built_in())
def test_a_rendered_built_in_recipe_reads_back(tmp_path: Path, name: str) -> None:
    loaded = load_recipe(name)
    lock = write(tmp_path, render_recipe(loaded.recipe, loaded.tree))
    assert load_recipe(lock).recipe == loaded.recipe


def test_there_are_built_in_recipes() -> None:
    assert list_built_in()


def test_a_lock_renders_to_the_same_values(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST))
    first = render_recipe(loaded.recipe, loaded.tree)
    again = load_recipe(write(tmp_path, first, "lock.yaml"))
    assert (
        nodes.parse_tree(render_recipe(again.recipe, again.tree), "", tmp_path).plain()
        == nodes.parse_tree(first, "", tmp_path).plain()
    )


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(1 - 10**40, 10**40 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)  # fmt: skip
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=80)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8)


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value


@settings(LAW, max_examples=300)
@given(value=TREES)
def test_what_is_written_on_one_line_reads_back_to_the_same_value(value: Any) -> None:
    read = nodes.parse_tree(f"key: {write_scalar(value)}", "", Path()).plain()
    assert repr(as_lists(read)) == repr({"key": value})


def test_origin_of_a_default(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST))
    assert format_origin(loaded.tree, ("train", "epochs")) == "default"


def test_origin_of_a_value_is_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST)
    assert format_origin(load_recipe(file).tree, ("data", "source", "name")) == f"{file}:3"


def test_origin_of_an_extended_value_is_in_the_base(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST, "base.yaml")
    tree = load_recipe(write(tmp_path, "extends: base.yaml\nname: other\n")).tree
    assert format_origin(tree, ("model", "kind")) == f"{tmp_path / 'base.yaml'}:4"


def test_origin_of_an_override_is_the_argument(tmp_path: Path) -> None:
    tree = load_recipe(write(tmp_path, SMALLEST), ["train.epochs=3"]).tree
    assert format_origin(tree, ("train", "epochs")) == "command line: train.epochs=3"


def test_origin_of_a_variable_is_where_it_is_used(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST + "vars: {n: 3}\ntrain:\n  epochs: ${n}\n")
    assert format_origin(load_recipe(file).tree, ("train", "epochs")) == f"{file}:7"


def test_origin_of_what_a_bare_name_leaves_out_is_the_default(tmp_path: Path) -> None:
    tree = load_recipe(write(tmp_path, SMALLEST)).tree
    assert format_origin(tree, ("model", "hidden")) == "default"


def test_origin_of_a_list_with_an_item_overridden_names_both(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST.replace("mlp", "{kind: mlp, hidden: [8, 4]}"))
    tree = load_recipe(file, ["model.hidden.1=5"]).tree
    assert format_origin(tree, ("model", "hidden")) == f"{file}:4, command line: model.hidden.1=5"


@pytest.mark.parametrize("written", ['"a\\nb"', '"a  # b"', '"\\u2028"', '"é😀"', '"' + "x" * 900 + '"'])
def test_no_argument_breaks_the_comment_it_stands_in(tmp_path: Path, written: str) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST), [f"vars.x={written}"])
    rendered = render_recipe(loaded.recipe, loaded.tree)
    assert load_recipe(write(tmp_path, rendered, "lock.yaml")).recipe == loaded.recipe


def test_an_argument_of_two_lines_stays_on_one_line(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST), ["vars={a: 1,\n b: 2}"])
    assert load_recipe(write(tmp_path, render_recipe(loaded.recipe, loaded.tree), "lock.yaml")).recipe.vars == {
        "a": 1,
        "b": 2,
    }


def test_a_file_name_cannot_break_the_comment(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST, "a\nmodel: cnn #.yaml"))
    assert load_recipe(write(tmp_path, render_recipe(loaded.recipe, loaded.tree), "lock.yaml")).recipe == loaded.recipe


def test_found_values_replace_auto(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST))
    line = lines(render_recipe(loaded.recipe, loaded.tree, {"runtime.jit": True}))["jit"]
    assert line.split() == ["jit:", "true", "#", "auto"]


def test_layers_stand_one_a_line(tmp_path: Path) -> None:
    text = SMALLEST.replace("mlp", "{kind: layers, layers: [flatten, {kind: dense, units: 10}]}")
    loaded = load_recipe(write(tmp_path, text))
    assert "    - {kind: dense, units: 10}" in render_recipe(loaded.recipe, loaded.tree)


def test_a_dollar_sign_stays_one(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST + "vars: {x: 1, price: '$$5 and $${x}'}\n"))
    again = load_recipe(write(tmp_path, render_recipe(loaded.recipe, loaded.tree), "lock.yaml"))
    assert (loaded.recipe.vars["price"], again.recipe.vars["price"]) == ("$5 and ${x}", "$5 and ${x}")
