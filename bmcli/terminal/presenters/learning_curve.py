"""Learning curves, and whether more data or a larger model would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.terminal.formats import format_interval

if TYPE_CHECKING:
    from bmcli.commands.learning_curve import LearningCurveResult
    from bmcli.terminal.console import Console


def to_json(result: LearningCurveResult) -> dict[str, Any]:
    return {"run": str(result.run.folder), "learning_curve": [curve.to_json() for curve in result.curves]}


def print_result(console: Console, result: LearningCurveResult) -> None:
    for curve in result.curves:
        rows = [
            [
                f"{point.share:.0%}",
                point.rows,
                point.train,
                format_interval(point.train_interval),
                point.validation,
                format_interval(point.validation_interval),
            ]
            for point in curve.points
        ]
        console.print_text("")
        columns = ["share", "rows", f"train/{curve.metric}", "interval", f"validation/{curve.metric}", "interval"]
        console.print_table(curve.target, columns, rows)
        console.print_text(curve.summary)
    if result.skipped_shares:
        console.log(f"too few rows for {', '.join(f'{share:.0%}' for share in result.skipped_shares)}")
    console.print_text(f"\nwrote {format_path(result.run.report)}")
