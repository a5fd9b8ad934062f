"""`bmcli runs`: what was trained so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bmcli import parts, runs
from bmcli.errors import BmcliError
from bmcli.runs import Run


def describe_runs(root: Path, name: str | None) -> list[dict[str, Any]]:
    """The runs below a folder, oldest first, as plain values."""
    found = runs.list_runs(root)
    if name is not None:
        names = {run.name for run in found}
        if name not in names:
            raise BmcliError(f"no runs of '{name}' in {root}.", suggestion=parts.did_you_mean(name, names))
        found = [run for run in found if run.name == name]
    return [_describe_run(run) for run in found]


def _describe_run(run: Run) -> dict[str, Any]:
    status = run.status()
    epochs, faults = (status["epochs"], []) if "epochs" in status else _trained(run)
    damaged = [status["reason"]] if status.get("state") == "damaged" else []
    metrics = status.get("metrics", {})
    return {
        "name": run.name,
        "id": run.folder.name,
        "path": str(run.folder),
        "state": status.get("state", "unknown"),
        "epochs": epochs,
        "fault": " ".join([*damaged, *faults]) or None,
        "headline": _format_headline(metrics),
        "seconds": status.get("seconds", ""),
        "metrics": metrics,
    }


def _trained(run: Run) -> tuple[int, list[str]]:
    """How many epochs a run wrote down, and what is damaged of them."""
    rows, faults = run.read_epochs_checked()
    return len(rows), faults


def _format_headline(metrics: dict[str, float | None]) -> str:
    """The figure a reader looks for first: accuracy or error on the test rows, else the first there is."""
    wanted = ("test/accuracy", "test/rmse", "validation/accuracy", "validation/rmse", *metrics)
    name = next((name for name in wanted if name in metrics), None)
    value = metrics[name] if name else None
    return "" if value is None else f"{name} {value:.4f}"
