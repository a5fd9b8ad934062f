"""The report of a run: what its page is made of, and writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bmcli import disk
from bmcli.errors import ArtefactRejected, BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.records import validate_as
from bmcli.runs import Run
from bmcli.specs import PreparedData

if TYPE_CHECKING:
    from bmcli.data.raw_rows import RawSplits
    from bmcli.evaluation.explanation_record import Explanation
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.result import Evaluation
    from bmcli.reports.artefacts import ArtefactSummary
    from bmcli.reports.run import RelatedResults

ReportCallback = Callable[[str], object]


def write_report(
    run: Run,
    recipe: Recipe,
    prepared: PreparedData,
    predicted_rows: Predictions,
    evaluation: Evaluation,
    parameters: int,
    log: ReportCallback,
) -> None:
    """Writes `report.html` of a run, with everything that is kept in it.

    Args:
        predicted_rows: The rows that are shown in detail, of one of its splits.
        evaluation: Of the same rows.
        parameters: Of the network.
        log: Hears what is damaged and left out.

    Raises:
        BmcliError: The data is not what the run was trained on.
    """
    from bmcli.reports.run import RunReportData, render_run_report

    epochs, faults = run.read_epochs_checked()
    for fault in faults:
        log(f"warning: {fault}")
    findings = read_undamaged(run.checks, run.read_findings, log) or ()
    material = RunReportData(
        name=recipe.name,
        folder=run.display_path,
        written=read_undamaged(run.recipe, run.read_recipe, log) or "",
        resolved=read_text(run.lock),
        findings=[f"{each.get('message', '')} {each.get('suggestion', '')}" for each in findings],
        was_checked=run.checks.exists(),
        epochs=epochs,
        status=read_status(run, log),
        environment=read_undamaged(run.environment, run.read_environment, log) or {},
        evaluations=_read_evaluations(run, log),
        parameters=parameters,
        size=run.model.stat().st_size,
        prepared=prepared,
        raw=_read_raw_rows(recipe, prepared),
        predicted_rows=predicted_rows,
        evaluation=evaluation,
        quantiles=recipe.quantiles(),
        related=_read_related_results(run, log),
    )
    disk.write_atomically(run.report, render_run_report(material).encode(), disk.PRIVATE_MODE)


def _read_related_results(run: Run, log: ReportCallback) -> RelatedResults:
    """What other commands left in the run; what is damaged is left out."""
    from bmcli.evaluation.decisions import Decision
    from bmcli.evaluation.folds import CrossValidationResult
    from bmcli.evaluation.learning_curve import LearningCurve
    from bmcli.reports.costs import Cost
    from bmcli.reports.run import RelatedResults

    def read(path: Path, key: str, reader: Callable[[Any], _Result]) -> _Result | None:
        found = read_undamaged(path, lambda: run.record(path, dict[str, Any]) or {}, log) or {}
        return read_undamaged(path, lambda: reader(found[key]), log) if key in found else None

    def curves(found: Any) -> list[LearningCurve]:
        return validate_as(dict[str, list[LearningCurve]], {"targets": found.get("targets", [])})["targets"]

    decisions = read(run.decisions, "decisions", lambda found: validate_as(list[Decision], found))
    costs = read(run.benchmark, "artefacts", lambda found: [Cost.from_json(each) for each in found])
    return RelatedResults(
        origin=tuple(read_undamaged(run.origin, run.read_origin, log) or ()),
        decisions=tuple(decisions or ()),
        folds=read(run.validation, "folds", lambda found: validate_as(CrossValidationResult, found)),
        curves=tuple(read(run.validation, "learning_curve", curves) or ()),
        explanation=read_explanation(run, log),
        artefacts=tuple(_read_artefacts(run, log)),
        costs=tuple(costs or ()),
        model=disk.compute_sha256(run.model),
    )


def _read_artefacts(run: Run, log: ReportCallback) -> Iterator[ArtefactSummary]:
    """The artefacts of a run, then those that were rejected."""
    from bmcli.export.card import CARD, parse
    from bmcli.reports.artefacts import ArtefactSummary

    for place in (run.exports, run.exports / "rejected"):
        for card in sorted(place.glob(f"[!.]*/{CARD}")):
            name = str(card.parent.relative_to(run.exports))
            try:
                found = ArtefactSummary.from_card(name, parse(card.parent))
            except ArtefactRejected as error:
                log(f"warning: {error}")
            else:
                yield found


_Result = TypeVar("_Result")


def read_undamaged(path: Path, reader: Callable[[], _Result], told: ReportCallback) -> _Result | None:
    """What a file of a run holds; None, after a word about it, if it is damaged."""
    try:
        return reader()
    except BmcliError as error:
        told(f"warning: {error} {error.faults[0].suggestion}")
    except (OSError, disk.DamagedFile, TypeError, AttributeError) as error:
        told(f"warning: {disk.format_path(path)}: damaged ({error}); the report leaves it out.")
    return None


def read_explanation(run: Run, log: ReportCallback) -> Explanation | None:
    """What `bmcli explain` found; None if there is nothing, or it is damaged."""
    from bmcli.evaluation.explanation_record import Explanation

    return read_undamaged(run.explanation, lambda: run.record(run.explanation, Explanation), log)


def parse_evaluation(run: Run, split: str, values: Mapping[str, Any], log: ReportCallback) -> Evaluation | None:
    """What was measured on some rows; None if it is damaged."""
    from bmcli.evaluation.result import Evaluation

    def read() -> Evaluation:
        try:
            return Evaluation.from_json(values)
        except disk.DamagedFile as error:
            raise disk.DamagedFile(f"{split}: {error}") from None

    return read_undamaged(run.evaluation, read, log)


def _read_evaluations(run: Run, log: ReportCallback) -> dict[str, dict[str, Any]]:
    found = read_undamaged(run.evaluation, run.read_evaluations, log) or {}
    return {on: each for on, each in found.items() if parse_evaluation(run, on, each, log) is not None}


def read_status(run: Run, told: ReportCallback) -> dict[str, Any]:
    """How a run ended, after a word about it if that is damaged."""
    found = run.status()
    if found.get("state") == "damaged":
        told(f"warning: {found['reason']}")
    return found


def read_text(path: Path) -> str:
    """A file of a run, empty if it cannot be read."""
    try:
        return disk.read_file(path).decode(errors="replace")
    except (OSError, disk.DamagedFile):
        return ""


def _read_raw_rows(recipe: Recipe, prepared: PreparedData) -> RawSplits:
    """The cells of the inputs that a reader can read, as they were written."""
    from bmcli.data.raw_rows import read_raw_splits

    if recipe.data.source.fingerprint() != prepared.spec.fingerprint:  # type: ignore[attr-defined]
        raise BmcliError("the data changed since it was prepared.", path="data.source")
    names = tuple(column.name for column in prepared.spec.inputs if column.kind != "image")
    return read_raw_splits(recipe.data, recipe.targets(), recipe.data_seed, names)
