"""`bmcli report`: regenerate the report of a run."""

from __future__ import annotations

from pathlib import Path

from bmcli.runs import Run
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import find_run
from bmcli.workflows.reporting import regenerate_report


def report(target: str, split: str | None, root: Path, cache: Path, log: ReportCallback) -> Run:
    """Regenerate `report.html` from the files of a run; rows that were never evaluated are evaluated now.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
        log: Takes warnings about damaged files, which are left out.
    """
    run = find_run(target, root)
    regenerate_report(run, split, cache, log)
    return run
