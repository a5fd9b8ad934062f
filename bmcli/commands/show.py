"""`bmcli show`: show the resolved recipe of a recipe or a run, with the origin of each value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmcli import parts, run_folders, runs
from bmcli.errors import BmcliError
from bmcli.recipe import nodes
from bmcli.recipe.fields import dump
from bmcli.recipe.load import find_recipe, load_recipe
from bmcli.recipe.nodes import Node, write_scalar
from bmcli.recipe.paths import split_path
from bmcli.recipe.render import render_recipe


@dataclass(frozen=True)
class ResolvedRecipe:
    """A resolved recipe or one of its values, as text and as a JSON object."""

    text: str
    value: dict[str, Any]


def show(target: str, overrides: Sequence[str], why: str | None, root: Path) -> ResolvedRecipe:
    """Resolve a recipe, or look up one of its values and its origin.

    Args:
        target: A recipe, a run directory, or a run's name.
        why: Dotted path of a value to look up; None for the whole recipe.
    """
    text = _render_resolved(target, overrides, root)
    tree = nodes.parse_tree(text, "resolved recipe", Path.cwd())
    if why is None:
        return ResolvedRecipe(text, tree.plain())
    return _explain_value(text, tree, why)


def _render_resolved(target: str, overrides: Sequence[str], root: Path) -> str:
    """Render a resolved recipe; that of a run is its lock."""
    try:
        find_recipe(target)
    except BmcliError as no_recipe:
        if run_folders.find_folder(root, target) is None:
            raise no_recipe from None
        return runs.find(root, target).lock.read_text(encoding="utf-8")
    loaded = load_recipe(target, overrides)
    return render_recipe(loaded.recipe.with_default_objectives(), loaded.tree)


def _explain_value(text: str, tree: Node, why: str) -> ResolvedRecipe:
    steps = split_path(why)
    node = tree.find(steps)
    if node is None:
        section, existing_steps = tree.nearest(steps)
        known = list(section.value) if isinstance(section.value, dict) else []
        missing = str(steps[len(existing_steps)])
        raise BmcliError(f"no value '{why}' in the recipe.", suggestion=parts.did_you_mean(missing, known))
    if isinstance(node.value, dict) and node.value:
        raise BmcliError(f"'{why}' is a section.", suggestion="Name one of its values: " + ", ".join(node.value) + ".")
    # A rendered recipe has the origin of each value in a comment at the end of its line.
    line = text.splitlines()[node.place.line - 1]
    origin = line.rpartition("  # ")[2]
    value = write_scalar(dump(node.plain()))
    return ResolvedRecipe(f"{why} = {value}, from {origin}", {"path": why, "value": node.plain(), "origin": origin})
