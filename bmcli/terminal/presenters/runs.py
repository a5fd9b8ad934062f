"""A list of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmcli.commands.runs import RunList
    from bmcli.terminal.console import Console


def to_json(result: RunList) -> dict[str, Any]:
    return {"runs": [vars(run) for run in result.runs]}


def print_result(console: Console, result: RunList) -> None:
    rows = [[run.name, run.id, run.state, run.epochs, run.headline, run.seconds] for run in result.runs]
    console.print_table("", ["recipe", "run", "state", "epochs", "metric", "seconds"], rows)
    for run in result.runs:
        if run.fault:
            console.log(f"warning: {run.fault}")
    if not result.runs:
        console.log(f"no runs in {result.root} yet; `bmcli train digits` creates one.")
