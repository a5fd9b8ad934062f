"""The report of a run: what its page is made of, and writing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk
from bmcli.errors import BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Prepared

if TYPE_CHECKING:
    from bmcli.commands.evaluate import Measured
    from bmcli.data.raw import RawRows
    from bmcli.evaluation.explained import Explanation


def write(run: Run, recipe: Recipe, prepared: Prepared, measured: Measured, parameters: int) -> None:
    """Writes `report.html` of a run that was measured on one of its splits.

    Args:
        parameters: Of the network.

    Raises:
        BmcliError: The data is not what the run was trained on.
    """
    from bmcli.reports.run import Material, report

    material = Material(
        name=recipe.name,
        folder=run.shown,
        written=_text(run.recipe),
        resolved=_text(run.lock),
        findings=[f"{each.get('message', '')} {each.get('suggestion', '')}" for each in run.findings()],
        epochs=run.rows(),
        status=run.status(),
        environment=run.recorded(),
        evaluations=run.evaluations(),
        parameters=parameters,
        size=run.model.stat().st_size,
        prepared=prepared,
        raw=_raw(recipe, prepared),
        judged=measured.judged,
        evaluation=measured.evaluation,
        quantiles=recipe.quantiles(),
        explanation=explanation_of(run),
    )
    disk.write_atomically(run.report, report(material).encode())


def explanation_of(run: Run) -> Explanation | None:
    """What `bmcli explain` found; None if there is nothing, or it is damaged or of an older version."""
    from bmcli.evaluation.explained import Explanation

    try:
        return Explanation.from_json(run.explained())
    except (KeyError, TypeError, ValueError):
        return None


def _text(path: Path) -> str:
    """A file of a run, empty if it is gone."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _raw(recipe: Recipe, prepared: Prepared) -> RawRows:
    """The cells of the inputs that a reader can read, as they were written."""
    from bmcli.data.raw import raw_rows

    if recipe.data.source.fingerprint() != prepared.spec.fingerprint:  # type: ignore[attr-defined]
        raise BmcliError("the data changed since it was prepared.", path="data.source")
    names = tuple(column.name for column in prepared.spec.inputs if column.kind != "image")
    return raw_rows(recipe.data, recipe.targets(), recipe.data_seed, names)
