"""A recipe that `bmcli init` wrote, and the roles of its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.advice import make_command
from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.commands.init import DraftResult
    from bmcli.terminal.console import Console

MAX_COLUMNS = 100


def to_json(result: DraftResult) -> dict[str, Any]:
    return {
        "recipe": str(result.file),
        "rows": result.rows,
        "columns": [
            {"name": role.name, "role": role.role, "kind": role.kind or None, "why": role.why} for role in result.roles
        ],
        "target": next(role.name for role in result.roles if role.role == "target"),
        "split": {"options": dict(result.split.options), "why": result.split.why},
        "model": {"options": dict(result.model.options), "why": result.model.why},
        "notes": list(result.notes),
    }


def print_result(console: Console, result: DraftResult) -> None:
    rows = [[role.name, role.role, role.kind, role.why] for role in result.roles]
    if len(rows) > MAX_COLUMNS:
        more = f"... {len(rows) - MAX_COLUMNS:,} more"
        rows = [*rows[:MAX_COLUMNS], [more, "", "", "listed in the recipe unless they are plain inputs"]]
    console.print_table("", ["column", "role", "kind", "why"], rows)
    file = format_path(result.file)
    for note in result.notes:
        console.log(f"note: {note}")
    console.print_text(f"wrote {file}; train it with {make_command('train', file)}")
