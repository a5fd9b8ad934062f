"""A list of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.advice import make_command
from bmcli.messages import format_duration

if TYPE_CHECKING:
    from bmcli.commands.runs import RunList
    from bmcli.terminal.console import Console


def to_json(result: RunList) -> dict[str, Any]:
    return {"runs": [vars(run) for run in result.runs]}


def print_result(console: Console, result: RunList) -> None:
    rows = [
        [f"{run.name}/{run.id}", run.started, run.model, run.state, run.epochs, run.headline, _format_time(run.seconds)]
        for run in result.runs
    ]
    console.print_table("", ["run", "started", "model", "state", "epochs", "metric", "time"], rows)
    for run in result.runs:
        if run.fault:
            console.log(f"warning: {run.fault}")
    if not result.runs:
        console.log(f"no runs in {result.root} yet; {make_command('train', 'digits')} creates one.")


def _format_time(seconds: float | str) -> str:
    """Format the seconds of a training; an empty text for those that are unknown."""
    if isinstance(seconds, str):
        return seconds
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)
