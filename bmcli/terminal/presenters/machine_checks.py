"""The checks of `bmcli doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.doctor import Check
    from bmcli.terminal.console import Console


def to_json(result: Sequence[Check]) -> dict[str, Any]:
    return {"checks": [vars(check) for check in result]}


def print_result(console: Console, result: Sequence[Check]) -> None:
    rows = [[check.mark, check.name, check.found, check.advice] for check in result]
    console.print_table("", ["", "check", "found", "advice"], rows)
