"""`bmcli evaluate --learning-curve`: train on growing shares of the data, to see what would lower the error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli import disk, runs, training
from bmcli.errors import BmcliError
from bmcli.objectives import open_answers
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.tuning.retraining import RecipeToRetrain, RetrainingContext, attach_to_run
from bmcli.tuning.training_jobs import FinishedJob, TrainingJob, require_same_classes, run_jobs
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import RawColumnReader, make_resampling

if TYPE_CHECKING:
    from bmcli.evaluation.intervals import Resampling
    from bmcli.evaluation.learning_curve import LearningCurve

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
MIN_TRAINING_ROWS = 50  # smaller shares are skipped
_SPLITS = ("train", "validation")  # the splits on which each training is evaluated


@dataclass(frozen=True)
class LearningCurveResult:
    """Learning curves and the run that keeps them.

    Args:
        curves: One for each target.
        skipped_shares: Shares with too few rows.
    """

    run: Run
    curves: tuple[LearningCurve, ...]
    skipped_shares: tuple[float, ...]


def measure_learning_curve(source: RecipeToRetrain, context: RetrainingContext) -> LearningCurveResult:
    """Train a recipe on growing shares of its training rows; each share contains the smaller ones.

    An interrupted measurement is resumed: finished trainings are kept.

    Raises:
        BmcliError: The recipe or its data is at fault, or a training failed.
    """
    try:
        with context.resumable(_make_run_name(source.loaded.recipe), source.loaded):
            result = _train_shares(source.loaded, context)
    except BmcliError as error:
        raise source.loaded.locate(error) from None
    if source.run is not None:
        attach_to_run(source.run, result.run.read_evaluations(), context)
    return result


def _train_shares(loaded: LoadedRecipe, context: RetrainingContext) -> LearningCurveResult:
    recipe = loaded.recipe
    if recipe.data.sample is not None:
        raise BmcliError(
            "a learning curve draws its own samples of the training rows.",
            path="data.sample",
            suggestion="Leave it out: data.sample=null.",
        )
    spec = training.prepare_data(recipe, context.cache).spec
    if not spec.counts["validation"]:
        raise BmcliError(
            "a learning curve is measured on validation rows, and there are none.", path="data.split",
            suggestion="Give validation a share.",
        )  # fmt: skip
    shares = [share for share in SHARES if share * spec.counts["train"] >= MIN_TRAINING_ROWS or share == 1]
    jobs = [_make_job(share) for share in shares]
    run = context.begin_run(_make_run_name(recipe), loaded, jobs)
    finished = run_jobs(loaded, jobs, run.folder, context.count_workers(jobs), context.cache, context.on_job_end)
    require_same_classes(finished)
    resampling = make_resampling(recipe, RawColumnReader(recipe, "validation"))
    curves = tuple(_make_curve(output.name, finished, shares, resampling) for output in spec.outputs)
    from bmcli.reports.regenerate import render_learning_curves

    page = render_learning_curves(
        recipe.name, run.display_path, report_data.read_text(run.folder / "base.yaml"), curves
    )
    disk.write_atomically(run.report, page.encode(), disk.PRIVATE_MODE)
    record = {"at": runs.now(), "targets": [curve.to_json() for curve in curves]}
    run.write(run.evaluation, {"learning_curve": record})  # last, since it marks the end
    return LearningCurveResult(run, curves, tuple(share for share in SHARES if share not in shares))


def _make_run_name(recipe: Recipe) -> str:
    return f"{recipe.name}-learning-curve"


def _make_job(share: float) -> TrainingJob:
    values = {} if share == 1 else {"data.sample": share}
    return TrainingJob(f"share-{100 * share:g}", values, _SPLITS)


def _make_curve(
    name: str,
    finished: Sequence[FinishedJob],
    shares: Sequence[float],
    resampling: Resampling,
) -> LearningCurve:
    from bmcli.evaluation import learning_curve
    from bmcli.metrics.info import UNKNOWN

    trainings, metric, info = [], "", UNKNOWN
    for share, job in zip(shares, finished, strict=True):
        answers = open_answers(job.spec)[name]
        values = {}
        for split in _SPLITS:
            truth, predictions = job.truth[split][name], job.predictions[split][name]
            metric, values[split], info = answers.compute_row_metric(truth, predictions)
        trainings.append(learning_curve.RowScores(share, values["train"], values["validation"]))
    return learning_curve.compute_learning_curve(name, metric, info, trainings, resampling)
