"""Write a recipe as YAML with every default, and a comment with the origin of each value."""

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
_MAX_COMPLETE_INPUTS = 200


def render_recipe(recipe: Recipe, tree: Node, auto_values: Mapping[str, Any] | None = None) -> str:
    """Render the resolved recipe, with the origin of each line; loading it gives the same recipe.

    Args:
        auto_values: Measured values, by dotted path, that replace `auto`.
    """
    values = dump(recipe)
    if recipe.data.inputs is not None and len(recipe.data.inputs) > _MAX_COMPLETE_INPUTS:
        # With all their defaults, thousands of inputs would exceed the maximum size of a recipe.
        values["data"]["inputs"] = {name: _dump_without_defaults(kind) for name, kind in recipe.data.inputs.items()}
    for section in ("tune", "distill", "distillation"):
        if values[section] is None:
            del values[section]
    if not recipe.plugins:
        del values["plugins"]
    if values["model"].get("from", "") is None:
        del values["model"]["from"]
    measured = {split_path(path): value for path, value in (auto_values or {}).items()}
    for steps, value in measured.items():
        _set_value(values, steps, dump(value))
    lines = [
        (text, "" if steps is None else "auto" if _is_within(steps, measured) else format_origin(tree, steps))
        for text, steps in _render_lines(escape_dollars(values), ())
    ]
    width = min(_WIDTH, max(len(text) for text, _ in lines))
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def _is_within(steps: tuple[Any, ...], found: Mapping[tuple[Any, ...], Any]) -> bool:
    """Whether a place is one of those that were found, or inside of one."""
    return any(steps[:length] in found for length in range(1, len(steps) + 1))


def _dump_without_defaults(kind: Kind) -> Any:
    """Dump the options of a part that differ from their defaults; only its name if none does."""
    written = kind.model_dump(exclude_defaults=True)
    options = {name: dump(value) for name, value in written.items() if name != "kind"}
    return {"kind": kind.kind, **options} if options else kind.kind


def format_origin(tree: Node, steps: KeyPath) -> str:
    """Format the origin of a value: `recipe.yaml:12`, `command line: train.epochs=3`, or `default`."""
    node, existing = tree.nearest(steps)
    is_name_of_kind = isinstance(node.value, str) and steps == (*existing, "kind")
    if existing != steps and not is_name_of_kind:
        return "default"
    # A list or mapping on one line can be merged from several files.
    places = {node.place.file: node.place}
    for scalar in node.scalars():
        places.setdefault(scalar.place.file, scalar.place)
    return ", ".join(_format_place(place.file, place.line, place.text) for place in places.values())


def render_base(loaded: LoadedRecipe) -> str:
    """Render the recipe that candidates override as one file: bases and overrides merged, without `tune`.

    A candidate that overrides this file gives the same recipe as one that overrides the original, in any folder.
    `render_recipe` cannot be used for it: its variables are filled in, so that a candidate could not change them, and
    its default kinds are written out, which changes how overrides merge.
    """
    return "".join(f"{text}\n" for text, _ in _render_lines(dump(loaded.make_base_tree().plain()), ()))


def _format_place(file: str, line: int, text: str) -> str:
    words = file if file == "distill" else f"{file}: {text}" if file in ("command line", "search") else f"{file}:{line}"
    # Override texts are foreign: a line break would end the comment, and inject YAML.
    clean = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in words))
    return clean if len(clean) <= _LONGEST_ORIGIN else clean[: _LONGEST_ORIGIN - 3] + "..."


def _render_lines(value: Any, steps: KeyPath) -> Iterator[tuple[str, KeyPath | None]]:
    """Yield lines of YAML, each with the path of its value, or None if it has only a key."""
    indent = "  " * (len(steps) - 1)
    key = f"{indent}{write_scalar(str(steps[-1]))}:" if steps else ""
    if isinstance(value, dict) and value:
        if steps:
            yield key, None
        for name, item in value.items():
            yield from _render_lines(item, (*steps, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield key, None
        for position, item in enumerate(value):
            yield f"{indent}  - {write_scalar(item)}", (*steps, position)
    else:
        yield f"{key} {write_scalar(value)}", steps


def _set_value(values: dict[str, Any], steps: KeyPath, value: Any) -> None:
    for step in steps[:-1]:
        values = values[str(step)]
    values[str(steps[-1])] = value
