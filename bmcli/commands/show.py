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
from bmcli.recipe.load import find_recipe, load_recipe
from bmcli.recipe.nodes import Node, write_scalar
from bmcli.recipe.paths import split_path
from bmcli.recipe.render import render_recipe


@dataclass(frozen=True)
class ResolvedRecipe:
    """What to print, and the same as a JSON object."""

    text: str
    value: dict[str, Any]


def show(target: str, overrides: Sequence[str], why: str | None, root: Path) -> ResolvedRecipe:
    """A resolved recipe, or the answer to where one of its values comes from.

    Args:
        target: A recipe, a run directory, or a run's name.
        why: Dotted path of a value.
    """
    text = _render_resolved(target, overrides, root)
    tree = nodes.parse_tree(text, "resolved recipe", Path.cwd())
    if why is None:
        return ResolvedRecipe(text, tree.plain())
    return _explain_value(text, tree, why)


def _render_resolved(target: str, overrides: Sequence[str], root: Path) -> str:
    """The rendered recipe; a run has kept its own."""
    try:
        find_recipe(target)
    except BmcliError as no_recipe:
        if runs.find_folder(root, target) is None:
            raise no_recipe from None
        return runs.find(root, target).lock.read_text(encoding="utf-8")
    loaded = load_recipe(target, overrides)
    return render_recipe(loaded.recipe.with_default_objectives(), loaded.tree)


def _explain_value(text: str, tree: Node, why: str) -> ResolvedRecipe:
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
    return ResolvedRecipe(f"{why} = {value}, from {origin}", {"path": why, "value": node.plain(), "origin": origin})
