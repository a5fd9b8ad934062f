"""`bmcli runs`: list the runs of a folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bmcli import disk, parts, runs
from bmcli.disk import DamagedFile
from bmcli.errors import BmcliError
from bmcli.runs import Run


@dataclass(frozen=True)
class RunSummary:
    """A run as its records describe it.

    Args:
        started: Date and time of its start, as `2026-01-31 12:00`; empty if its folder was renamed.
        model: Kind of its model; empty if its resolved recipe cannot be read.
        fault: Damage of its records, as a sentence.
        headline: Name and value of its most important metric; empty if it has none.
        seconds: Of training; empty if that is unknown.
    """

    name: str
    id: str
    path: str
    started: str
    model: str
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
        started=_read_start(run),
        model=_read_model_kind(run),
        state=status.get("state", "unknown"),
        epochs=epochs,
        fault=" ".join([*damaged, *faults]) or None,
        headline=_format_headline(metrics),
        seconds=status.get("seconds", ""),
        metrics=metrics,
    )


def _read_start(run: Run) -> str:
    """Read when a run was started from the name of its folder."""
    with contextlib.suppress(ValueError):
        return f"{datetime.strptime(run.folder.name[:15], '%Y%m%d-%H%M%S'):%Y-%m-%d %H:%M}"
    return ""


# Checking hundreds of recipes would take seconds. The resolved ones are written by bmcli, with a line for each key.
_MODEL_KIND = re.compile(r"^model:\n(?:  .*\n)*?  kind: (\w+)", re.MULTILINE)


def _read_model_kind(run: Run) -> str:
    with contextlib.suppress(OSError, DamagedFile):
        found = _MODEL_KIND.search(disk.read_file(run.lock).decode("utf-8", "replace"))
        return found[1] if found else ""
    return ""


def _format_headline(metrics: dict[str, float | None]) -> str:
    """Format the most important metric: of test rows, else of validation rows; accuracy or RMSE, else the first."""
    for split in ("test/", "validation/", ""):
        for name in (f"{split}accuracy", f"{split}rmse", *(each for each in metrics if each.startswith(split))):
            if (value := metrics.get(name)) is not None:
                return f"{name} {value:.4f}"
    return ""
