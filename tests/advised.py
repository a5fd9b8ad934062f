"""What the messages of bmcli advise, collected from its source: commands, flags, options, values, variables, extras."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

import bmcli
from bmcli.errors import BmcliError
from bmcli.recipe import nodes
from bmcli.recipe.json_schema import make_recipe_schema

PACKAGE = Path(bmcli.__file__).parent
HOLE = "\N{REPLACEMENT CHARACTER}"
"""Stands for each expression of an f-string."""

_HELP_KEYWORDS = {"description", "help", "epilog", "short_help"}


@dataclass(frozen=True)
class Text:
    """A string of the source that a user may read.

    Args:
        place: File and line.
        module: Path of the module inside of the package.
        text: The string; `HOLE` stands for what is filled in.
        is_help: Whether it is a help text or the description of an option, and no message.
    """

    place: str
    module: str
    text: str
    is_help: bool


@dataclass(frozen=True)
class CommandCall:
    """A call of `make_command`; `words` has None for each argument that is computed."""

    place: str
    function: str
    words: tuple[str | None, ...]


@cache
def parse_package() -> Mapping[str, ast.Module]:
    """Parse every module, by path inside of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {str(file.relative_to(PACKAGE)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


@cache
def list_texts() -> tuple[Text, ...]:
    """List every string that is not a docstring."""
    return tuple(text for module, tree in parse_package().items() for text in _list_texts(module, tree))


def _list_texts(module: str, tree: ast.Module) -> Iterator[Text]:
    docstrings, parts, helps = set(), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in ast.walk(node)} - {id(node)}
        elif isinstance(node, ast.keyword) and node.arg in _HELP_KEYWORDS:
            helps |= {id(part) for part in ast.walk(node.value)}
    for node in ast.walk(tree):
        if id(node) in docstrings | parts or not isinstance(node, (ast.Constant, ast.JoinedStr)):
            continue
        text = _format_text(node)
        if any(sign in text for sign in " `="):
            yield Text(f"{module}:{node.lineno}", module, text, id(node) in helps)


def _format_text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(str(each.value) if isinstance(each, ast.Constant) else HOLE for each in node.values)


@cache
def list_command_calls() -> tuple[CommandCall, ...]:
    """List the calls of `make_command` with the functions that hold them."""
    return tuple(
        CommandCall(f"{module}:{call.lineno}", f"{module}:{function}", tuple(map(_read_word, call.args)))
        for module, tree in parse_package().items()
        for function, call in _iterate_calls(tree, "")
    )


def _read_word(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _iterate_calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield from _iterate_calls(child, child.name)
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "make_command":
            yield function, child
        yield from _iterate_calls(child, function)


@cache
def read_schema() -> Mapping[str, Any]:
    """The JSON schema of recipes."""
    return make_recipe_schema()


def find_schemas(steps: tuple[str, ...], schema: Any = None) -> list[Any]:
    """Find the schemas of the values at a path of the recipe; a `HOLE` or `*` is any key. Empty if nothing is there."""
    found = [read_schema()["$defs"]["Recipe"]] if schema is None else [schema]
    for step in steps:
        found = [inside for each in found for inside in _enter(each, step)]
    return found


def _alternatives(schema: Any, seen: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Yield a schema with all that it refers to at the same place."""
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen |= {id(schema)}
    yield schema
    if "$ref" in schema:
        yield from _alternatives(read_schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")], seen)
    for word in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(word, ()):
            yield from _alternatives(each, seen)
    for word in ("then", "else"):
        yield from _alternatives(schema.get(word), seen)


def _enter(schema: Any, step: str) -> Iterator[Any]:
    for each in _alternatives(schema):
        properties = each.get("properties", {})
        if step in properties:
            yield properties[step]
        elif HOLE in step or step == "*":
            yield from properties.values()
        if isinstance(each.get("additionalProperties"), dict) and step not in properties:
            yield each["additionalProperties"]
        if isinstance(each.get("items"), dict) and (step.isdecimal() or HOLE in step):
            yield each["items"]
        if each.get("type") == "object" and not properties and each.get("additionalProperties", True) is True:
            yield {}


@cache
def _list_by_name() -> Mapping[str, list[Any]]:
    """All schemas of values by the key under which they stand."""
    found: dict[str, list[Any]] = {}
    pending: list[Any] = [read_schema()["$defs"]]
    while pending:
        each = pending.pop()
        if isinstance(each, list):
            pending += each
        elif isinstance(each, dict):
            for name, schema in each.get("properties", {}).items() if isinstance(each.get("properties"), dict) else ():
                found.setdefault(name, []).append(schema)
            pending += each.values()
    return found


@cache
def _list_with_kind() -> list[Any]:
    """All schemas of parts and Keras objects, which are chosen by their kind."""
    fields = (
        "PartField.",
        "ModelField.",
        "KerasObjectField.",
        "ScheduleField",
        "ObjectiveField",
        "ChoiceField",
        "TokensField",
    )
    return [each for name, each in read_schema()["$defs"].items() if name.startswith(fields)]


def accepts(schema: Any, value: Any) -> bool:
    """Whether a schema of the recipe accepts a value."""
    return Draft202012Validator({**schema, "$defs": read_schema()["$defs"]}).is_valid(value)


FILLINGS = ("mean", "2", "0.5", "[1, 2]", "[a, b]", "10s", "true", "regression", "iso")
"""What may be filled in for a `HOLE`: the text is right if one of them is."""


def find_accepted(key: str, value_text: str) -> bool:
    """Whether some option of this name accepts a value, with one of `FILLINGS` for each hole."""
    steps = tuple(key.split("."))
    schemas = find_schemas(steps) if len(steps) > 1 else _list_by_name().get(key, [])
    return any(accepts(schema, value) for value in _iterate_values(value_text) for schema in schemas)


def find_accepted_kind(value_text: str) -> bool:
    """Whether some part accepts a mapping with its kind."""
    return any(accepts(schema, value) for value in _iterate_values(value_text) for schema in _list_with_kind())


def _iterate_values(text: str) -> Iterator[Any]:
    """Yield the values that a text may have, with one of `FILLINGS` for all of its holes."""
    for filling in FILLINGS if HOLE in text else ("",):
        with contextlib.suppress(BmcliError):
            tree = nodes.parse_tree(text.replace(HOLE, filling), "message", Path(), [])
            yield json.loads(json.dumps(tree.plain()))


_FRAGMENT = re.compile(r"(?:(?<=`)|(?<=[Ww]rite )|(?<=Add ))([a-z_]+(?:\.[a-z_]+)*): (?=\S)")


def list_fragments(text: str) -> list[tuple[str, str]]:
    """List the pieces of YAML that a message advises: key and value."""
    return [(match[1], _cut_value(text[match.end() :])) for match in _FRAGMENT.finditer(text)]


def list_kind_mappings(text: str) -> list[str]:
    """List the mappings that begin with a kind."""
    return [_cut_value(text[match.start() :]) for match in re.finditer(r"\{kind: ", text)]


def _cut_value(text: str) -> str:
    """Cut a value of YAML off the start of a text: a collection up to its end, or one word."""
    if text[0] in "[{":
        depth = 0
        for position, character in enumerate(text):
            depth += (character in "[{") - (character in "]}")
            if depth == 0:
                return text[: position + 1]
        return text
    match = re.match(r"'[^']*'|\"[^\"]*\"|[^\s`,;]+", text)
    assert match is not None
    return match[0].rstrip(".:")
