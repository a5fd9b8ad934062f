"""A report that was regenerated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.runs import Run
    from bmcli.terminal.console import Console


def to_json(result: Run) -> dict[str, Any]:
    return {"report": str(result.report)}


def print_result(console: Console, result: Run) -> None:
    console.print_text(f"wrote {format_path(result.report)}")
