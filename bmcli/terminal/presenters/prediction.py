"""A prediction that was written; its messages go to standard error, since the predictions may be on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path

if TYPE_CHECKING:
    from bmcli.commands.predict import PredictionResult
    from bmcli.terminal.console import Console


def to_json(result: PredictionResult) -> dict[str, Any]:
    kind, folder = result.origin
    return {
        kind: str(folder),
        "output": str(result.output),
        "columns": list(result.columns),
        "rows": result.rows,
        "lines": result.lines,
        "skipped": result.skipped,
        "unseen": dict(result.unseen),
        "left_out": list(result.left_out),
        "formulas": result.formulas,
        "notes": list(result.notes),
        "seconds": round(result.seconds, 3),
    }


def print_result(console: Console, result: PredictionResult) -> None:
    for warning in result.warnings:
        console.log(warning)
    for note in result.notes:
        console.log(f"note: {note}")
    where = "standard output" if result.output is None else format_path(result.output)
    speed = result.rows / max(result.seconds, 1e-9)
    skipped = f", {result.skipped:,} skipped, which could not be read" if result.skipped else ""
    lines = "" if result.lines == result.rows else f" in {result.lines:,} lines"
    if result.left_out:
        from bmcli.data.sources import describe_left_out

        console.log(f"note: {describe_left_out(result.left_out)}")
    console.log(f"{result.rows:,} rows to {where}{lines}{skipped}; {result.seconds:.1f} s, {speed:,.0f} rows/s")
    if result.formulas:
        console.log(
            f"note: {result.formulas:,} texts of the output begin like formulas, which a spreadsheet would run; for a "
            "file to open in one, add --spreadsheet-safe."
        )
