"""The report of a run: what its page is made of, and writing it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bmcli import disk
from bmcli.errors import ArtefactRejected, BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Prepared

if TYPE_CHECKING:
    from bmcli.data.raw import RawRows
    from bmcli.evaluation.explained import Explanation
    from bmcli.evaluation.judged import Judged
    from bmcli.evaluation.result import Evaluation
    from bmcli.reports.artefacts import Artefact
    from bmcli.reports.run import Beside


def write(
    run: Run, recipe: Recipe, prepared: Prepared, judged: Judged, evaluation: Evaluation, parameters: int
) -> None:
    """Writes `report.html` of a run, with everything that is kept in it.

    Args:
        judged: The rows that are shown in detail, of one of its splits.
        evaluation: Of the same rows.
        parameters: Of the network.

    Raises:
        BmcliError: The data is not what the run was trained on.
    """
    from bmcli.reports.run import Material, report

    material = Material(
        name=recipe.name,
        folder=run.shown,
        written=text(run.recipe),
        resolved=text(run.lock),
        findings=[f"{each.get('message', '')} {each.get('suggestion', '')}" for each in run.findings()],
        was_checked=run.checks.exists(),
        epochs=run.rows(),
        status=run.status(),
        environment=run.recorded(),
        evaluations=run.evaluations(),
        parameters=parameters,
        size=run.model.stat().st_size,
        prepared=prepared,
        raw=_raw(recipe, prepared),
        judged=judged,
        evaluation=evaluation,
        quantiles=recipe.quantiles(),
        beside=_beside(run),
    )
    disk.write_atomically(run.report, report(material).encode(), disk.PRIVATE)


def _beside(run: Run) -> Beside:
    """What other commands left in the run; what is damaged, or of an older version, is left out."""
    from bmcli.evaluation.decisions import Decision
    from bmcli.evaluation.folds import Folds
    from bmcli.evaluation.learning_curve import LearningCurve
    from bmcli.reports.costs import Cost
    from bmcli.reports.run import Beside

    validated = run.validated()
    curves = _read(lambda: [LearningCurve.from_json(each) for each in validated["learning_curve"]["targets"]])
    decisions = _read(lambda: [Decision.from_json(each) for each in run.decided()["decisions"]])
    costs = _read(lambda: [Cost.from_json(each) for each in run.benchmarked()["artefacts"]])
    return Beside(
        origin=tuple(run.comes_from()),
        decisions=tuple(decisions or ()),
        folds=_read(lambda: Folds.from_json(validated["folds"])),
        curves=tuple(curves or ()),
        explanation=explanation_of(run),
        artefacts=tuple(_artefacts(run)),
        costs=tuple(costs or ()),
        model=_digest(run.model),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _artefacts(run: Run) -> Iterator[Artefact]:
    """The artefacts of a run, then those that were rejected."""
    from bmcli.export.card import CARD, parse
    from bmcli.reports.artefacts import Artefact

    for place in (run.exports, run.exports / "rejected"):
        for card in sorted(place.glob(f"[!.]*/{CARD}")):
            name = card.parent.relative_to(run.exports)
            with contextlib.suppress(ArtefactRejected):
                yield Artefact.of_card(str(name), parse(card.parent))


_Read = TypeVar("_Read")


def _read(reader: Callable[[], _Read]) -> _Read | None:
    try:
        return reader()
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def explanation_of(run: Run) -> Explanation | None:
    """What `bmcli explain` found; None if there is nothing, or it is damaged or of an older version."""
    from bmcli.evaluation.explained import Explanation

    return _read(lambda: Explanation.from_json(run.explained()))


def text(path: Path) -> str:
    """A file of a run, empty if it is gone."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _raw(recipe: Recipe, prepared: Prepared) -> RawRows:
    """The cells of the inputs that a reader can read, as they were written."""
    from bmcli.data.raw import raw_rows

    if recipe.data.source.fingerprint() != prepared.spec.fingerprint:  # type: ignore[attr-defined]
        raise BmcliError("the data changed since it was prepared.", path="data.source")
    names = tuple(column.name for column in prepared.spec.inputs if column.kind != "image")
    return raw_rows(recipe.data, recipe.targets(), recipe.data_seed, names)
