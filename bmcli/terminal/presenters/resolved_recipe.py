"""A resolved recipe, or the origin of one of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.show import ResolvedRecipe
    from bmcli.terminal.console import Console


def to_json(result: ResolvedRecipe) -> dict[str, Any]:
    return result.value


def print_result(console: Console, result: ResolvedRecipe) -> None:
    console.print_text(result.text.rstrip("\n"))
