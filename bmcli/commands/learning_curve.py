"""`bmcli evaluate --learning-curve`: whether more data or a larger model would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli import disk, runs, training
from bmcli.commands.folds import Anew, Setting, add_to
from bmcli.errors import BmcliError
from bmcli.recipe.load import Loaded
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from bmcli.tuning.training_jobs import Finished, Job, run_all, same_classes
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import Cells, resampling

if TYPE_CHECKING:
    from bmcli.evaluation.intervals import Resampling
    from bmcli.evaluation.learning_curve import LearningCurve

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
FEWEST = 50  # training rows of a share
LEARNED, LEFT = "train", "validation"


@dataclass(frozen=True)
class Learned:
    """Learning curves and where they are kept.

    Args:
        curves: Of each target.
        left_out: Shares with too few rows.
    """

    run: Run
    curves: tuple[LearningCurve, ...]
    left_out: tuple[float, ...]


def learning_curve(anew: Anew, setting: Setting) -> Learned:
    """Trains a recipe on growing shares of its training rows, a smaller one part of every larger one.

    One that was interrupted goes on: trainings that are done are kept.

    Raises:
        BmcliError: The recipe or its data is at fault, or a training failed.
    """
    try:
        with setting.resumable(_folder_of(anew.loaded.recipe), anew.loaded):
            found = _learning_curve(anew.loaded, setting)
    except BmcliError as error:
        raise anew.loaded.locate(error) from None
    if anew.run is not None:
        add_to(anew.run, found.run.evaluations(), setting)
    return found


def _learning_curve(loaded: Loaded, setting: Setting) -> Learned:
    recipe = loaded.recipe
    if recipe.data.sample is not None:
        raise BmcliError(
            "a learning curve draws samples of its own.",
            path="data.sample",
            suggestion="Leave it out: data.sample=null.",
        )
    spec = training.prepared(recipe, setting.cache).spec
    if not spec.counts[LEFT]:
        raise BmcliError(
            "a learning curve compares on validation rows, and there are none.", path="data.split",
            suggestion="Give validation a share.",
        )  # fmt: skip
    shares = [share for share in SHARES if share * spec.counts[LEARNED] >= FEWEST or share == 1]
    jobs = [_job(share) for share in shares]
    run = setting.begin(_folder_of(recipe), loaded, jobs)
    finished = run_all(loaded, jobs, run.folder, setting.side_by_side(jobs), setting.cache, setting.trained)
    same_classes(finished)
    how = resampling(recipe, Cells(recipe, LEFT))
    curves = tuple(_curve(recipe, spec, column, finished, shares, how) for column in spec.targets)
    from bmcli.reports.regenerate import of_curves

    page = of_curves(recipe.name, run.shown, report_data.text(run.folder / "base.yaml"), curves)
    disk.write_atomically(run.report, page.encode(), disk.PRIVATE)
    found = {"at": runs.now(), "targets": [each.to_json() for each in curves]}
    run.write(run.evaluation, {"learning_curve": found})  # the last: it tells the end
    return Learned(run, curves, tuple(share for share in SHARES if share not in shares))


def _folder_of(recipe: Recipe) -> str:
    return f"{recipe.name}-learning-curve"


def _job(share: float) -> Job:
    values = {} if share == 1 else {"data.sample": share}
    return Job(f"share-{100 * share:g}", values, (LEARNED, LEFT))


def _curve(
    recipe: Recipe,
    spec: DataSpec,
    column: Column,
    finished: Sequence[Finished],
    shares: Sequence[float],
    how: Resampling,
) -> LearningCurve:
    from bmcli.evaluation import learning_curve, metrics

    quantiles = recipe.quantiles().get(column.name, ())
    trainings, metric = [], ""
    for share, each in zip(shares, finished, strict=True):
        values = {}
        for split in (LEARNED, LEFT):
            own = each.spec.target(column.name)
            given = each.truth[split][column.name], each.predictions[split][column.name]
            metric, values[split] = metrics.of_rows(own, *given, quantiles)
        trainings.append(learning_curve.Trained(share, values[LEARNED], values[LEFT]))
    return learning_curve.curve(column.name, metric, trainings, how)
