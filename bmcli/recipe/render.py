"""A recipe as YAML with every default written out and a comment that tells where each value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bmcli.recipe.fields import Kind, dump
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.nodes import KeyPath, Node, escape_dollars, write_scalar
from bmcli.recipe.paths import split_path
from bmcli.recipe.schema import Recipe

_WIDTH = 60
_LONGEST_ORIGIN = 100
_MOST_SPELLED_OUT = 200  # inputs


def render_recipe(recipe: Recipe, tree: Node, found: Mapping[str, Any] | None = None) -> str:
    """The resolved recipe, line by line with origins; `load` reads it back to the same recipe.

    Args:
        found: Values that `auto` became, by dotted path; they replace what the recipe says.
    """
    values = dump(recipe)
    if recipe.data.inputs is not None and len(recipe.data.inputs) > _MOST_SPELLED_OUT:
        # With all their defaults they would be more than a recipe may hold.
        values["data"]["inputs"] = {name: _shorten(kind) for name, kind in recipe.data.inputs.items()}
    for section in ("tune", "distill", "taught"):
        if values[section] is None:
            del values[section]
    if not recipe.plugins:
        del values["plugins"]
    became = {split_path(path): value for path, value in (found or {}).items()}
    for steps, value in became.items():
        _set(values, steps, dump(value))
    lines = [
        (text, "" if steps is None else "auto" if _is_within(steps, became) else format_origin(tree, steps))
        for text, steps in _lines(escape_dollars(values), ())
    ]
    width = min(_WIDTH, max(len(text) for text, _ in lines))
    return "".join(f"{text:<{width}}  # {came}\n" if came else f"{text}\n" for text, came in lines)


def _is_within(steps: tuple[Any, ...], found: Mapping[tuple[Any, ...], Any]) -> bool:
    """Whether a place is one of those that were found, or inside of one."""
    return any(steps[:length] in found for length in range(1, len(steps) + 1))


def _shorten(kind: Kind) -> Any:
    """The options of a part that are not defaults; its name alone where all are."""
    given = {name: dump(value) for name, value in kind.model_dump(exclude_defaults=True).items() if name != "kind"}
    return {"kind": kind.kind, **given} if given else kind.kind


def format_origin(tree: Node, steps: KeyPath) -> str:
    """Where a value comes from: `recipe.yaml:12`, `command line: train.epochs=3`, or `default`."""
    node, way = tree.nearest(steps)
    # A bare name stands for the kind of what it names.
    named = isinstance(node.value, str) and steps == (*way, "kind")
    if way != steps and not named:
        return "default"
    places = {node.place.file: node.place}
    for scalar in node.scalars():
        places.setdefault(scalar.place.file, scalar.place)
    return ", ".join(_format_place(place.file, place.line, place.text) for place in places.values())


def render_base(loaded: LoadedRecipe) -> str:
    """The recipe that candidates are laid over as one file: its bases and overrides merged, without `tune`.

    `load` reads a candidate over it to the same recipe as over the recipe itself, wherever the file lies. A rendered
    recipe would not do: its variables are filled in, and options that name no kind have one.
    """
    return "".join(f"{text}\n" for text, _ in _lines(dump(loaded.make_base_tree().plain()), ()))


def _format_place(file: str, line: int, text: str) -> str:
    words = file if file == "distill" else f"{file}: {text}" if file in ("command line", "search") else f"{file}:{line}"
    # A comment is one line of printable characters, and the last comment of its line.
    clean = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in words))
    return clean if len(clean) <= _LONGEST_ORIGIN else clean[: _LONGEST_ORIGIN - 3] + "..."


def _lines(value: Any, steps: KeyPath) -> Iterator[tuple[str, KeyPath | None]]:
    """Lines with the way to the value on each; None where a line holds only a key."""
    indent = "  " * (len(steps) - 1)
    key = f"{indent}{write_scalar(str(steps[-1]))}:" if steps else ""
    if isinstance(value, dict) and value:
        if steps:
            yield key, None
        for name, item in value.items():
            yield from _lines(item, (*steps, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield key, None
        for position, item in enumerate(value):
            yield f"{indent}  - {write_scalar(item)}", (*steps, position)
    else:
        yield f"{key} {write_scalar(value)}", steps


def _set(values: dict[str, Any], steps: KeyPath, value: Any) -> None:
    for step in steps[:-1]:
        values = values[str(step)]
    values[str(steps[-1])] = value
