"""The list of built-in recipes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.recipes import BuiltInRecipe
    from bmcli.terminal.console import Console


def to_json(result: Sequence[BuiltInRecipe]) -> dict[str, Any]:
    return {"recipes": [vars(each) for each in result]}


def print_result(console: Console, result: Sequence[BuiltInRecipe]) -> None:
    for folder, recipes in groupby(result, key=lambda each: each.folder):
        console.print_table("", [folder, "description"], [[each.name, each.headline] for each in recipes])
