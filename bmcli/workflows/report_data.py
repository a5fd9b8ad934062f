"""Collect the data of the report of a run, and write the report; damaged files are left out after a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bmcli import disk
from bmcli import inputs as input_kinds
from bmcli.data.sources import get_source
from bmcli.errors import BmcliError
from bmcli.recipe.schema import Recipe
from bmcli.records import validate_as
from bmcli.runs import Run
from bmcli.specs import PreparedData
from bmcli.workflows.callbacks import ReportCallback

if TYPE_CHECKING:
    from bmcli.data.raw_rows import RawSplits
    from bmcli.evaluation.explanation_record import Explanation
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.result import Evaluation
    from bmcli.reports.artefacts import ArtefactSummary
    from bmcli.reports.run import RelatedResults


def write_report(
    run: Run,
    recipe: Recipe,
    prepared: PreparedData,
    predicted_rows: Predictions,
    evaluation: Evaluation,
    parameters: int,
    log: ReportCallback,
) -> None:
    """Write `report.html` of a run, with everything that is kept in it.

    Args:
        predicted_rows: Rows of one split, which the report shows in detail.
        evaluation: Of the same rows.
        parameters: Number of parameters of the network.
        log: Takes warnings about damaged files, which are left out.

    Raises:
        BmcliError: The data has changed since the run was trained.
    """
    from bmcli.reports.run import RunReportData, render_run_report

    epochs, faults = run.read_epochs_checked()
    for fault in faults:
        log(f"warning: {fault}")
    findings = read_undamaged(run.checks, run.read_findings, log) or ()
    data = RunReportData(
        name=recipe.name,
        folder=run.display_path,
        recipe_text=read_undamaged(run.recipe, run.read_recipe, log) or "",
        resolved_recipe=read_text(run.lock),
        findings=[f"{finding.get('message', '')} {finding.get('suggestion', '')}" for finding in findings],
        data_was_checked=run.checks.exists(),
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
        related=_read_related_results(run, log),
    )
    disk.write_atomically(run.report, render_run_report(data).encode(), disk.PRIVATE_MODE)


def _read_related_results(run: Run, log: ReportCallback) -> RelatedResults:
    """Read the results of other commands from the run; damaged ones are left out."""
    from bmcli.answers.decisions import Decision
    from bmcli.evaluation.folds import CrossValidationResult
    from bmcli.evaluation.learning_curve import LearningCurve
    from bmcli.reports.costs import Cost
    from bmcli.reports.run import RelatedResults

    def read(path: Path, key: str, parse: Callable[[Any], _Result]) -> _Result | None:
        record = read_undamaged(path, lambda: run.record(path, dict[str, Any]) or {}, log) or {}
        return read_undamaged(path, lambda: parse(record[key]), log) if key in record else None

    def parse_curves(record: Any) -> list[LearningCurve]:
        return validate_as(dict[str, list[LearningCurve]], {"targets": record.get("targets", [])})["targets"]

    decisions = read(run.decisions, "decisions", lambda values: validate_as(list[Decision], values))
    costs = read(run.benchmark, "artefacts", lambda values: [Cost.from_json(value) for value in values])
    return RelatedResults(
        origin=tuple(read_undamaged(run.origin, run.read_origin, log) or ()),
        decisions=tuple(decisions or ()),
        folds=read(run.validation, "folds", lambda record: validate_as(CrossValidationResult, record)),
        curves=tuple(read(run.validation, "learning_curve", parse_curves) or ()),
        explanation=read_explanation(run, log),
        artefacts=tuple(_read_artefacts(run, log)),
        costs=tuple(costs or ()),
        model_sha256=disk.compute_sha256(run.model),
    )


def _read_artefacts(run: Run, log: ReportCallback) -> Iterator[ArtefactSummary]:
    """Read the cards of the artefacts of a run, then of those that were rejected."""
    from bmcli.export.card import parse
    from bmcli.reports.artefacts import ArtefactSummary

    rejected = run.exports / "rejected"
    for parent in (run.exports, rejected):
        for folder in sorted(parent.glob("[!.]*/")):  # folders with a dot are not complete yet
            if folder == rejected:
                continue
            try:
                summary = ArtefactSummary.from_card(str(folder.relative_to(run.exports)), parse(folder))
            except BmcliError as error:  # the card is damaged or missing
                log(f"warning: {error} The report leaves this artefact out.")
            else:
                yield summary


_Result = TypeVar("_Result")


def read_undamaged(path: Path, read: Callable[[], _Result], log: ReportCallback) -> _Result | None:
    """Read a file of a run; None, after a warning, if it is damaged."""
    try:
        return read()
    except BmcliError as error:
        log(f"warning: {error} {error.faults[0].suggestion}")
    # The last two come from values of another type than the parser expects.
    except (OSError, disk.DamagedFile, TypeError, AttributeError) as error:
        log(f"warning: {disk.format_path(path)}: damaged ({error}); the report leaves it out.")
    return None


def read_explanation(run: Run, log: ReportCallback) -> Explanation | None:
    """Read the result of `bmcli explain`; None if there is none, and after a warning if it is damaged."""
    from bmcli.evaluation.explanation_record import Explanation

    return read_undamaged(run.explanation, lambda: run.record(run.explanation, Explanation), log)


def parse_evaluation(run: Run, split: str, values: Mapping[str, Any], log: ReportCallback) -> Evaluation | None:
    """Parse the evaluation on a split; None, after a warning, if it is damaged."""
    from bmcli.evaluation.result import Evaluation

    def read() -> Evaluation:
        try:
            return Evaluation.from_json(values)
        except disk.DamagedFile as error:
            raise disk.DamagedFile(f"{split}: {error}") from None

    return read_undamaged(run.evaluation, read, log)


def _read_evaluations(run: Run, log: ReportCallback) -> dict[str, dict[str, Any]]:
    evaluations = read_undamaged(run.evaluation, run.read_evaluations, log) or {}
    return {
        split: values for split, values in evaluations.items() if parse_evaluation(run, split, values, log) is not None
    }


def read_status(run: Run, log: ReportCallback) -> dict[str, Any]:
    """Read the status of a run, with a warning if it is damaged."""
    status = run.status()
    if status.get("state") == "damaged":
        log(f"warning: {status['reason']}")
    return status


def read_text(path: Path) -> str:
    """Read a text file of a run; empty if it cannot be read."""
    try:
        return disk.read_file(path).decode(errors="replace")
    except (OSError, disk.DamagedFile):
        return ""


def _read_raw_rows(recipe: Recipe, prepared: PreparedData) -> RawSplits:
    """Read the inputs before encoding, without pictures."""
    from bmcli.data.raw_rows import read_raw_splits

    if get_source(recipe.data).fingerprint() != prepared.spec.fingerprint:
        raise BmcliError(
            "the data changed since it was prepared.", path="data.source", suggestion="Start the command again."
        )
    names = tuple(column.name for column in prepared.spec.inputs if input_kinds.get_traits(column).display != "picture")
    return read_raw_splits(recipe.data, recipe.targets(), recipe.data_seed, names)
