"""`bmcli show`: a recipe or a run with everything resolved, and where each value comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli import parts, runs
from bmcli.errors import BmcliError
from bmcli.recipe import nodes
from bmcli.recipe.fields import dump
from bmcli.recipe.load import find, load, split_path
from bmcli.recipe.nodes import Node, write_scalar
from bmcli.recipe.render import render


@dataclass(frozen=True)
class Shown:
    """What to print, and the same as a JSON object."""

    text: str
    value: dict[str, Any]


def show(target: str, overrides: Sequence[str], why: str | None, root: Path) -> Shown:
    """A resolved recipe, or the answer to where one of its values comes from.

    Args:
        target: A recipe, a run directory, or a run's name.
        why: Dotted path of a value.
    """
    text = _resolved(target, overrides, root)
    tree = nodes.parse(text, "resolved recipe", Path.cwd())
    if why is None:
        return Shown(text, tree.plain())
    return _explain(text, tree, why)


def _resolved(target: str, overrides: Sequence[str], root: Path) -> str:
    """The rendered recipe; a run has kept its own."""
    try:
        find(target)
    except BmcliError as no_recipe:
        if runs.folder_of(root, target) is None:
            raise no_recipe from None
        return runs.find(root, target).lock.read_text(encoding="utf-8")
    loaded = load(target, overrides)
    return render(loaded.recipe.spelled_out(), loaded.tree)


def _explain(text: str, tree: Node, why: str) -> Shown:
    steps = split_path(why)
    node = tree.find(steps)
    if node is None:
        above, way = tree.nearest(steps)
        known = list(above.value) if isinstance(above.value, dict) else []
        raise BmcliError(f"no value '{why}' in the recipe.", suggestion=parts.did_you_mean(str(steps[len(way)]), known))
    if isinstance(node.value, dict) and node.value:
        raise BmcliError(f"'{why}' is a section.", suggestion="Name one of its values: " + ", ".join(node.value) + ".")
    line = text.splitlines()[node.place.line - 1]
    origin = line.rpartition("  # ")[2]
    value = write_scalar(dump(node.plain()))
    return Shown(f"{why} = {value}, from {origin}", {"path": why, "value": node.plain(), "origin": origin})
