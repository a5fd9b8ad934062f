"""A recipe that is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.validate import ValidationResult
    from bmcli.terminal.console import Console


def to_json(result: ValidationResult) -> dict[str, Any]:
    if result.network is None:
        return {"valid": True}
    network = result.network
    return {
        "valid": True,
        "rows": dict(network.rows),
        "parameters": network.parameters,
        "notes": list(network.notes),
    }


def print_result(console: Console, result: ValidationResult) -> None:
    size = "" if result.network is None else f" {result.network.parameters:,} parameters."
    for note in result.network.notes if result.network else ():
        console.log(f"note: {note}")
    console.print_text(f"{result.recipe} is valid.{size}")
