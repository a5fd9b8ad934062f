"""The list of the kinds of a room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.kinds import ListedRoom
    from bmcli.terminal.console import Console


def to_json(result: ListedRoom) -> dict[str, Any]:
    return {"room": result.room, "kinds": [vars(each) for each in result.kinds]}


def print_result(console: Console, result: ListedRoom) -> None:
    has_plugins = any(each.plugin for each in result.kinds)
    head = [result.room, "description", *(["plug-in"] if has_plugins else [])]
    rows = [[each.kind, each.headline, *([each.plugin] if has_plugins else [])] for each in result.kinds]
    console.print_table("", head, rows)
