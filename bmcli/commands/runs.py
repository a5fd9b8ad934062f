"""`bmcli runs`: what was trained so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bmcli import parts, runs
from bmcli.errors import BmcliError
from bmcli.runs import Run


@dataclass(frozen=True)
class RunSummary:
    """A run as its records describe it.

    Args:
        fault: Damage of its records, as a sentence.
        headline: Name and value of its most important metric; empty if it has none.
        seconds: Of training; empty if that is unknown.
    """

    name: str
    id: str
    path: str
    state: str
    epochs: int
    fault: str | None
    headline: str
    seconds: float | str
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class RunList:
    """The runs below a folder, oldest first."""

    root: Path
    runs: tuple[RunSummary, ...]


def describe_runs(root: Path, name: str | None) -> RunList:
    """Describe the runs below a folder, or those of one recipe."""
    found = runs.list_runs(root)
    if name is not None:
        names = {run.name for run in found}
        if name not in names:
            raise BmcliError(f"no runs of '{name}' in {root}.", suggestion=parts.did_you_mean(name, names))
        found = [run for run in found if run.name == name]
    return RunList(root, tuple(map(_describe_run, found)))


def _describe_run(run: Run) -> RunSummary:
    status = run.status()
    epochs, faults = (status["epochs"], []) if "epochs" in status else _trained(run)
    damaged = [status["reason"]] if status.get("state") == "damaged" else []
    metrics = status.get("metrics", {})
    return RunSummary(
        name=run.name,
        id=run.folder.name,
        path=str(run.folder),
        state=status.get("state", "unknown"),
        epochs=epochs,
        fault=" ".join([*damaged, *faults]) or None,
        headline=_format_headline(metrics),
        seconds=status.get("seconds", ""),
        metrics=metrics,
    )


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
