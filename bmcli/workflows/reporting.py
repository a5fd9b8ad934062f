"""Write the report of a run after an evaluation, or regenerate it from the files of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk
from bmcli.advice import make_command
from bmcli.errors import BmcliError, Fault
from bmcli.recipe.load import LoadedRecipe
from bmcli.runs import Run
from bmcli.workflows import report_data
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.evaluation import check_evaluation
from bmcli.workflows.opening import OpenedRun, load_run_recipe, open_run
from bmcli.workflows.run_evaluation import EvaluationResult, evaluate_split, predict_rows, read_evaluation

if TYPE_CHECKING:
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.result import Evaluation


def evaluate_and_report(
    loaded: LoadedRecipe, run: Run, split: str, cache: Path, log: ReportCallback
) -> EvaluationResult:
    """Open a run, evaluate it on one of its splits, and write its report.

    Args:
        loaded: Recipe of the run, perhaps with changes to its section `evaluate`.
    """
    opened = open_run(loaded, run, cache)
    check_evaluation(loaded.recipe, opened.prepared.spec)
    result = evaluate_split(opened, split)
    if result.run is not None:
        report_evaluation(opened, result, log)
    return result


def report_evaluation(opened: OpenedRun, result: EvaluationResult, log: ReportCallback) -> None:
    """Write the report of a run with the rows of an evaluation in detail.

    Args:
        log: Takes warnings about damaged files, which are left out.
    """
    _write_report(opened, result.predicted_rows, result.evaluation, log)


def report_split(opened: OpenedRun, split: str, log: ReportCallback) -> None:
    """Write the report of a run with the rows of a split in detail; evaluate it first if that was never done."""
    evaluation, rows = read_evaluation(opened.run, split, log), opened.prepared.split(split)
    if evaluation is None or evaluation.count != len(rows):
        report_evaluation(opened, evaluate_split(opened, split), log)
        return
    spec = opened.prepared.spec
    predicted = predict_rows(opened.recipe, opened.network, spec, rows, split, opened.placement)
    _write_report(opened, predicted, evaluation, log)


def report_training(opened: OpenedRun, result: EvaluationResult, log: ReportCallback) -> Fault | None:
    """Write the report of a run that was just trained and is complete without it.

    Data that changed during the training is a warning, since the run itself is good.

    Returns:
        The reason if the file system refused the report.
    """
    advice = f"{make_command('report', opened.run.display_path)} writes the page again."
    try:
        report_evaluation(opened, result, log)
    except BmcliError as error:
        log(f"no report was written: {error} {advice}")
    except OSError as error:
        reason = disk.find_write_failure(error) or f"no report was written: {error}."
        return Fault(f"{reason} The run is done and kept.", suggestion=f"{disk.suggest_remedy(error)} {advice}".strip())
    return None


def refresh_report(run: Run, cache: Path, log: ReportCallback) -> None:
    """Regenerate the report of a run if it has one; a failure is only a warning, since the old report remains."""
    if not run.report.exists():
        return  # the run was never evaluated
    try:
        regenerate_report(run, None, cache, log)
    except (BmcliError, OSError) as error:
        log(f"the report was not updated: {error} To try again: {make_command('report', run.display_path)}.")


def regenerate_report(run: Run, split: str | None, cache: Path, log: ReportCallback) -> None:
    """Regenerate the report of a run from its files; rows that were never evaluated are evaluated now.

    Args:
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
        log: Takes warnings about damaged files, which are left out.
    """
    loaded = load_run_recipe(run)
    try:
        report_split(open_run(loaded, run, cache), split or loaded.recipe.evaluate.split, log)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _write_report(opened: OpenedRun, predicted: Predictions, evaluation: Evaluation, log: ReportCallback) -> None:
    parameters = opened.network.model.count_params()
    report_data.write_report(opened.run, opened.recipe, opened.prepared, predicted, evaluation, parameters, log)
