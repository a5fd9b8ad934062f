"""`bmcli report`: writes the report of a run anew."""

from __future__ import annotations

from pathlib import Path

from bmcli.commands.evaluate import evaluate, find_run
from bmcli.runs import Run


def report(target: str, split: str | None, root: Path, cache: Path) -> Run:
    """Measures a run again and writes its `report.html`.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
    """
    evaluate(target, (), split, None, root, cache)
    return find_run(target, root)
