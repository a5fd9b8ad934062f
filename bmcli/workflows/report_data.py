"""The report of a run: what its page is made of, and writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bmcli import disk
from bmcli.disk import conform
from bmcli.errors import ArtefactRejected, BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Prepared

if TYPE_CHECKING:
    from bmcli.data.raw_rows import RawRows
    from bmcli.evaluation.explanation_record import Explanation
    from bmcli.evaluation.predictions import Judged
    from bmcli.evaluation.result import Evaluation
    from bmcli.reports.artefacts import Artefact
    from bmcli.reports.run import Beside

Tell = Callable[[str], object]


def write(
    run: Run, recipe: Recipe, prepared: Prepared, judged: Judged, evaluation: Evaluation, parameters: int, told: Tell
) -> None:
    """Writes `report.html` of a run, with everything that is kept in it.

    Args:
        judged: The rows that are shown in detail, of one of its splits.
        evaluation: Of the same rows.
        parameters: Of the network.
        told: Hears what is damaged and left out.

    Raises:
        BmcliError: The data is not what the run was trained on.
    """
    from bmcli.reports.run import Material, report

    epochs, faults = run.read_rows()
    for fault in faults:
        told(f"warning: {fault}")
    findings = kept(run.checks, run.findings, told) or ()
    material = Material(
        name=recipe.name,
        folder=run.shown,
        written=kept(run.recipe, run.written_recipe, told) or "",
        resolved=text(run.lock),
        findings=[f"{each.get('message', '')} {each.get('suggestion', '')}" for each in findings],
        was_checked=run.checks.exists(),
        epochs=epochs,
        status=status(run, told),
        environment=kept(run.environment, run.recorded, told) or {},
        evaluations=_evaluations(run, told),
        parameters=parameters,
        size=run.model.stat().st_size,
        prepared=prepared,
        raw=_raw(recipe, prepared),
        judged=judged,
        evaluation=evaluation,
        quantiles=recipe.quantiles(),
        beside=_beside(run, told),
    )
    disk.write_atomically(run.report, report(material).encode(), disk.PRIVATE)


def _beside(run: Run, told: Tell) -> Beside:
    """What other commands left in the run; what is damaged is left out."""
    from bmcli.evaluation.decisions import Decision
    from bmcli.evaluation.folds import Folds
    from bmcli.evaluation.learning_curve import LearningCurve
    from bmcli.reports.costs import Cost
    from bmcli.reports.run import Beside

    def read(path: Path, key: str, reader: Callable[[Any], _Read]) -> _Read | None:
        found = kept(path, lambda: run.record(path, dict[str, Any]) or {}, told) or {}
        return kept(path, lambda: reader(found[key]), told) if key in found else None

    def curves(found: Any) -> list[LearningCurve]:
        return conform(dict[str, list[LearningCurve]], {"targets": found.get("targets", [])})["targets"]

    decisions = read(run.decisions, "decisions", lambda found: conform(list[Decision], found))
    costs = read(run.benchmark, "artefacts", lambda found: [Cost.from_json(each) for each in found])
    return Beside(
        origin=tuple(kept(run.origin, run.comes_from, told) or ()),
        decisions=tuple(decisions or ()),
        folds=read(run.validation, "folds", lambda found: conform(Folds, found)),
        curves=tuple(read(run.validation, "learning_curve", curves) or ()),
        explanation=explanation_of(run, told),
        artefacts=tuple(_artefacts(run, told)),
        costs=tuple(costs or ()),
        model=disk.sha256(run.model),
    )


def _artefacts(run: Run, told: Tell) -> Iterator[Artefact]:
    """The artefacts of a run, then those that were rejected."""
    from bmcli.export.card import CARD, parse
    from bmcli.reports.artefacts import Artefact

    for place in (run.exports, run.exports / "rejected"):
        for card in sorted(place.glob(f"[!.]*/{CARD}")):
            name = str(card.parent.relative_to(run.exports))
            try:
                found = Artefact.of_card(name, parse(card.parent))
            except ArtefactRejected as error:
                told(f"warning: {error}")
            else:
                yield found


_Read = TypeVar("_Read")


def kept(path: Path, reader: Callable[[], _Read], told: Tell) -> _Read | None:
    """What a file of a run holds; None, after a word about it, if it is damaged."""
    try:
        return reader()
    except BmcliError as error:
        told(f"warning: {error} {error.faults[0].suggestion}")
    except (OSError, disk.Damaged, TypeError, AttributeError) as error:
        told(f"warning: {disk.shown_path(path)}: damaged ({error}); the report leaves it out.")
    return None


def explanation_of(run: Run, told: Tell) -> Explanation | None:
    """What `bmcli explain` found; None if there is nothing, or it is damaged."""
    from bmcli.evaluation.explanation_record import Explanation

    return kept(run.explanation, lambda: run.record(run.explanation, Explanation), told)


def evaluation(run: Run, on: str, found: Mapping[str, Any], told: Tell) -> Evaluation | None:
    """What was measured on some rows; None if it is damaged."""
    from bmcli.evaluation.result import Evaluation

    def read() -> Evaluation:
        try:
            return Evaluation.from_json(found)
        except disk.Damaged as error:
            raise disk.Damaged(f"{on}: {error}") from None

    return kept(run.evaluation, read, told)


def _evaluations(run: Run, told: Tell) -> dict[str, dict[str, Any]]:
    found = kept(run.evaluation, run.evaluations, told) or {}
    return {on: each for on, each in found.items() if evaluation(run, on, each, told) is not None}


def status(run: Run, told: Tell) -> dict[str, Any]:
    """How a run ended, after a word about it if that is damaged."""
    found = run.status()
    if found.get("state") == "damaged":
        told(f"warning: {found['reason']}")
    return found


def text(path: Path) -> str:
    """A file of a run, empty if it cannot be read."""
    try:
        return disk.read_file(path).decode(errors="replace")
    except (OSError, disk.Damaged):
        return ""


def _raw(recipe: Recipe, prepared: Prepared) -> RawRows:
    """The cells of the inputs that a reader can read, as they were written."""
    from bmcli.data.raw_rows import raw_rows

    if recipe.data.source.fingerprint() != prepared.spec.fingerprint:  # type: ignore[attr-defined]
        raise BmcliError("the data changed since it was prepared.", path="data.source")
    names = tuple(column.name for column in prepared.spec.inputs if column.kind != "image")
    return raw_rows(recipe.data, recipe.targets(), recipe.data_seed, names)
