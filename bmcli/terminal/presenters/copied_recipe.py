"""The files of a built-in recipe that were copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.terminal.console import Console


def to_json(result: Sequence[Path]) -> dict[str, Any]:
    return {"written": [str(path) for path in result]}


def print_result(console: Console, result: Sequence[Path]) -> None:
    console.print_text("\n".join(f"wrote {format_path(path)}" for path in result))
