"""Hypothesis strategies for whole recipes, made from their JSON schema, so that new parts are covered unasked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from bmcli.errors import BmcliError
from bmcli.recipe.json_schema import make_recipe_schema
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.paths import split_path

TEXTS = (
    *("a", "label", "two words", "Größe", "😀", 'say "hi"', "it's", "back\\slash", "a: b", "a #b", "- a", "a.b", "a=b"),
    *("$", "${seed}", "$$", "true", "null", "1e-3", "010", ".inf", "~", " a ", "tab\t", "line\nbreak", "\x1b[0m"),
    *("{a}", "[a]", "*a", "&a", "!a", "%a", "@a", "`a`", "?", "-", "---", "...", "<<", "='1'", "1", "\u2028", "é" * 90),
)  # fmt: skip


@cache
def schema() -> dict[str, Any]:
    return make_recipe_schema()


def recipes() -> st.SearchStrategy[dict[str, Any]]:
    """Recipes as plain values that the schema accepts; `load_recipe` also checks what the schema cannot express."""
    return values(schema()["$defs"]["Recipe"]).map(lambda recipe: {k: v for k, v in recipe.items() if k != "extends"})


@cache
def named(reference: str) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: values(schema()["$defs"][reference.removeprefix("#/$defs/")]))


def values(described: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema accepts, variables left out."""
    if "$ref" in described:
        return named(described["$ref"])
    if "anyOf" in described:
        return st.one_of(*(values(each) for each in described["anyOf"] if each.get("$ref") != "#/$defs/variable"))
    if "const" in described:
        return st.just(described["const"])
    if "enum" in described:
        return st.sampled_from(described["enum"])
    return _OF_TYPE.get(described.get("type", ""), _untyped)(described)


def _untyped(described: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    default = described.get("default")
    return st.integers(1, 4) if default is None else st.just(default)


def _integers(described: Mapping[str, Any]) -> st.SearchStrategy[int]:
    least = described.get("minimum", described.get("exclusiveMinimum", -(10**6)))
    return st.integers(least, described.get("maximum", least + 1000))


def _numbers(described: Mapping[str, Any]) -> st.SearchStrategy[float]:
    return st.floats(
        described.get("minimum", described.get("exclusiveMinimum")),
        described.get("maximum", described.get("exclusiveMaximum")),
        exclude_min="exclusiveMinimum" in described,
        exclude_max="exclusiveMaximum" in described,
        allow_nan=False,
        allow_infinity=False,
    )


def _strings(described: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in described:
        return st.from_regex(described["pattern"].replace("$", r"\Z")).filter(str.isascii)
    return st.sampled_from(TEXTS)


def _arrays(described: Mapping[str, Any]) -> st.SearchStrategy[list[Any]]:
    if "prefixItems" in described:
        return st.tuples(*(values(item) for item in described["prefixItems"])).map(list)
    return st.lists(values(described["items"]), min_size=described.get("minItems", 0), max_size=3)


def _objects(described: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if not described.get("properties"):
        more = described.get("additionalProperties")
        inside = values(more) if isinstance(more, dict) else st.integers()
        return st.dictionaries(st.sampled_from(TEXTS), inside, min_size=1, max_size=3)
    properties = {name: values(each) for name, each in described["properties"].items()}
    required = set(described.get("required", ()))
    return st.fixed_dictionaries(
        {name: each for name, each in properties.items() if name in required},
        optional={name: each for name, each in properties.items() if name not in required},
    )


_OF_TYPE = {
    "null": lambda described: st.none(),
    "boolean": lambda described: st.booleans(),
    "integer": _integers,
    "number": _numbers,
    "string": _strings,
    "array": _arrays,
    "object": _objects,
}


def as_yaml(value: Any) -> str:
    """JSON, which is YAML too, with dollar signs doubled; written without the code under test."""
    return json.dumps(value, ensure_ascii=False).replace("$", "$$").replace("\u2028", "\\u2028")


def accepted(recipe: dict[str, Any], file: Path) -> tuple[LoadedRecipe, dict[str, Any]]:
    """A recipe that `load_recipe` accepts, with the values that it found wrong taken out; and the values left."""
    for _ in range(12):
        file.write_text(as_yaml(recipe), encoding="utf-8")
        try:
            return load_recipe(str(file)), recipe
        except BmcliError as error:
            _take_out(recipe, [fault.path for fault in error.faults])
    assume(False)
    raise AssertionError


def _take_out(recipe: dict[str, Any], paths: Iterable[str]) -> None:
    """Takes the values at the paths out, or what is nearest above one that is not there."""
    for path in paths:
        holder, key, value = None, None, recipe
        for step in split_path(path):
            step = step if isinstance(value, list) else str(step)
            keys: Any = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
            if step not in keys:
                break
            holder, key, value = value, step, value[step]
        if holder is not None:
            holder[key] = _GONE
    _sweep(recipe)


_GONE = object()


def _sweep(value: Any) -> None:
    """Takes out what was marked; until then positions in lists hold."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is _GONE]:
            del value[key]
    elif isinstance(value, list):
        value[:] = [item for item in value if item is not _GONE]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _sweep(item)
