"""`bmcli report`: writes the report of a run anew."""

from __future__ import annotations

from pathlib import Path

from bmcli.commands.evaluate import ReportCallback, find_run, regenerate_report
from bmcli.runs import Run


def report(target: str, split: str | None, root: Path, cache: Path, log: ReportCallback) -> Run:
    """Writes `report.html` anew from what is kept in a run; rows that were never measured are.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
        log: Hears what is damaged and left out.
    """
    run = find_run(target, root)
    regenerate_report(run, split, cache, log)
    return run
