"""A recipe that is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.validate import ValidationResult
    from bmcli.terminal.console import Console


def to_json(result: ValidationResult) -> dict[str, Any]:
    if result.network is None:
        return {"valid": True}
    return {"valid": True, "rows": dict(result.network.rows), "parameters": result.network.parameters}


def print_result(console: Console, result: ValidationResult) -> None:
    size = "" if result.network is None else f" {result.network.parameters:,} parameters."
    console.print_text(f"{result.recipe} is valid.{size}")
