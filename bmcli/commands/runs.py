"""`bmcli runs`: list the runs of a folder."""

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
    """Describe the runs below a folder, or those of one recipe, oldest first."""
    listed = runs.list_runs(root)
    if name is not None:
        names = {run.name for run in listed}
        if name not in names:
            raise BmcliError(f"no runs of '{name}' in {root}.", suggestion=parts.did_you_mean(name, names))
        listed = [run for run in listed if run.name == name]
    return RunList(root, tuple(map(_describe_run, listed)))


def _describe_run(run: Run) -> RunSummary:
    status = run.status()
    # The status has the number of epochs only after the end of a training.
    rows, faults = ([], []) if "epochs" in status else run.read_epochs_checked()
    epochs = status.get("epochs", len(rows))
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


def _format_headline(metrics: dict[str, float | None]) -> str:
    """Format the most important metric: accuracy or RMSE on test rows, then on validation rows, else the first."""
    preferred = ("test/accuracy", "test/rmse", "validation/accuracy", "validation/rmse", *metrics)
    name = next((name for name in preferred if name in metrics), None)
    value = metrics[name] if name else None
    return "" if value is None else f"{name} {value:.4f}"
