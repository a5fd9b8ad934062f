"""`bmcli evaluate --folds`: cross-validate a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk, runs, training
from bmcli.errors import BmcliError, GateMissed
from bmcli.objectives import open_answers
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.tuning.retraining import RecipeToRetrain, RetrainingContext, attach_to_run
from bmcli.tuning.training_jobs import (
    FinishedJob,
    TrainingJob,
    require_same_classes,
    run_jobs,
)
from bmcli.workflows import prediction_table, report_data, unseen
from bmcli.workflows.evaluation import RawColumnReader, check_evaluation, evaluate_predictions, read_row_weights

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers
    from bmcli.data.raw_rows import RawSplits
    from bmcli.evaluation.folds import CrossValidationResult, FoldResult
    from bmcli.evaluation.gates import MissedGate

TESTED_SPLIT = "test"


@dataclass(frozen=True)
class CrossValidationRun:
    """A finished cross-validation and the run that keeps it.

    Args:
        run: Folder of `evaluation.json`, the run of each fold, a table of all predictions, and a report.
    """

    run: Run
    predictions: Path
    folds: CrossValidationResult
    missed_gates: tuple[MissedGate, ...]

    def require_gates(self) -> None:
        """Raise GateMissed if the mean of a metric is beyond its limit."""
        if self.missed_gates:
            raise GateMissed(*(f"gate missed: folds/{missed}." for missed in self.missed_gates))


def make_run_name(recipe: Recipe) -> str:
    """Name the runs of the cross-validations of a recipe."""
    return f"{recipe.name}-folds"


def cross_validate(source: RecipeToRetrain, context: RetrainingContext) -> CrossValidationRun:
    """Train a recipe once for each fold of its training and validation rows, and test each training on its fold.

    An interrupted cross-validation is resumed: finished folds are kept.

    Raises:
        BmcliError: The recipe or its data is at fault, or a fold failed.
    """
    loaded = source.loaded.with_origin("data.split.fold", "evaluate.folds")
    try:
        with context.resumable(make_run_name(loaded.recipe), loaded):
            validation = _train_folds(loaded, context)
    except BmcliError as error:
        raise loaded.locate(error) from None
    if source.run is not None:
        attach_to_run(source.run, validation.run.read_evaluations(), context)
    return validation


def _train_folds(loaded: LoadedRecipe, context: RetrainingContext) -> CrossValidationRun:
    recipe = loaded.recipe
    count = recipe.evaluate.folds
    assert count is not None
    raw = _read_tested_rows(recipe, count)
    jobs = [
        TrainingJob(f"fold-{n}", {"data.split.fold": {"number": n, "of": count}}, (TESTED_SPLIT,))
        for n in range(1, count + 1)
    ]
    first = training.prepare_data(loaded.with_values(jobs[0].values).recipe, context.cache)
    check_evaluation(recipe, first.spec)
    run = context.begin_run(make_run_name(recipe), loaded, jobs)
    try:
        finished = run_jobs(loaded, jobs, run.folder, context.count_workers(jobs), context.cache, context.on_job_end)
    except (BmcliError, KeyboardInterrupt):
        if not any(run.folder.glob("fold-*/metrics.jsonl")):  # no fold finished an epoch
            runs.discard(run)
        raise
    spec = require_same_classes(finished)
    folds = _evaluate_folds(recipe, spec, finished, raw)
    predictions = run.folder / "predictions.csv"
    predictions.unlink(missing_ok=True)  # left by a process that was interrupted just before its end
    _write_predictions(predictions, recipe, spec, finished, raw)
    from bmcli.evaluation.gates import find_missed_gates
    from bmcli.reports.regenerate import render_folds

    page = render_folds(recipe.name, run.display_path, report_data.read_text(run.folder / "base.yaml"), folds)
    disk.write_atomically(run.report, page.encode(), disk.PRIVATE_MODE)
    run.write(run.evaluation, {"folds": {"at": runs.now(), **folds.to_json()}})  # last, since it marks the end
    # Metrics between groups are computed on the rows of all folds together, so they have no mean over folds.
    group_metrics = {name: value for name, value in folds.pooled.metrics.items() if name.startswith("fairness/")}
    means = {**{name: mean.mean for name, mean in folds.means.items()}, **group_metrics}
    if unseen.GATE in recipe.evaluate.gates:
        means[unseen.GATE] = max(_compute_unseen_share(fold, raw) for fold in finished)
    return CrossValidationRun(run, predictions, folds, find_missed_gates(recipe.evaluate.gates, means))


def _compute_unseen_share(finished: FinishedJob, raw: RawSplits) -> float:
    """Compute the largest share of unseen cells of a column of single values in the tested rows of a fold."""
    rows, spec = raw.select_split(finished.job.name), finished.spec
    single_valued = replace(spec, inputs=tuple(column for column in spec.inputs if column.name in rows.columns))
    return unseen.compute_largest_share(unseen.count_unseen(single_valued, rows.columns, None), len(rows))


def _read_tested_rows(recipe: Recipe, count: int) -> RawSplits:
    """Read raw columns, with the tested rows of each fold under its name."""
    from bmcli.data.raw_rows import read_raw_folds

    return read_raw_folds(recipe.data, recipe.targets(), recipe.data_seed, count)


def _evaluate_folds(
    recipe: Recipe, spec: DataSpec, finished: Sequence[FinishedJob], raw: RawSplits
) -> CrossValidationResult:
    import numpy as np

    from bmcli.evaluation import folds
    from bmcli.evaluation.metrics import list_metrics

    tested_rows = np.concatenate([raw.indices[fold.job.name] for fold in finished])
    names = [output.name for output in spec.outputs]
    truth, predictions = (
        {name: np.concatenate([getattr(fold, arrays)[TESTED_SPLIT][name] for fold in finished]) for name in names}
        for arrays in ("truth", "predictions")
    )
    raw_columns = RawColumnReader(recipe, "folds", replace(raw, indices={"folds": tested_rows}).select_split("folds"))
    answers, row_weights = _pool_answers(finished), read_row_weights(recipe, raw_columns)
    together = evaluate_predictions(recipe, spec, answers, truth, predictions, raw_columns, row_weights)
    weights: Sequence[np.ndarray | None] = [None] * len(finished)
    if row_weights is not None:
        ends = np.cumsum([len(raw.indices[fold.job.name]) for fold in finished])
        weights = np.split(row_weights, ends[:-1])
    return folds.summarize_folds(
        _describe_splitting(recipe, spec),
        [
            _evaluate_fold(recipe, fold, finished[0].spec, row_weights)
            for fold, row_weights in zip(finished, weights, strict=True)
        ],
        together,
        list_metrics(answers, recipe.evaluate.top_k, has_row_weights=row_weights is not None),
    )


def _pool_answers(finished: Sequence[FinishedJob]) -> dict[str, Answers]:
    """Make the answers of all tested rows, each of which the network of another fold predicted."""
    return {
        name: each.pool([(fold.spec.output(name), len(fold.truth[TESTED_SPLIT][name])) for fold in finished])
        for name, each in open_answers(finished[0].spec).items()
    }


def _evaluate_fold(
    recipe: Recipe, finished: FinishedJob, first: DataSpec, row_weights: np.ndarray | None
) -> FoldResult:
    """Measure the predictions of a fold, with the positive classes of the first one, which may differ by chance."""
    from bmcli.evaluation import folds
    from bmcli.evaluation.metrics import measure

    evaluation = measure(
        finished.truth[TESTED_SPLIT],
        finished.predictions[TESTED_SPLIT],
        {name: each.align_positive(first.output(name)) for name, each in open_answers(finished.spec).items()},
        recipe.evaluate.top_k,
        row_weights,
    )
    return folds.FoldResult(
        _get_fold_number(finished),
        finished.spec.counts["train"],
        evaluation.count,
        evaluation.metrics,
        finished.epochs,
        finished.seconds,
    )


def _get_fold_number(finished: FinishedJob) -> int:
    return int(finished.job.name.partition("-")[2])


def _describe_splitting(recipe: Recipe, spec: DataSpec) -> str:
    split = recipe.data.split
    if split.time:
        return f"in the order of {quoted(split.time)}, each fold after its training rows"
    if split.group:
        method = f"by {quoted(split.group)}, the rows of each group together"
    else:
        method = "by a hash of the rows" if split.hash else "at random"
    return f"{method}, stratified by {quoted(spec.stratified_by)}" if spec.stratified_by else method


def _write_predictions(
    path: Path, recipe: Recipe, spec: DataSpec, finished: Sequence[FinishedJob], raw: RawSplits
) -> None:
    """Write a table of all tested rows: number in the source, from 1; fold; predictions; truth."""
    import numpy as np

    total = sum(len(raw.indices[fold.job.name]) for fold in finished)
    with prediction_table.open_writer(path, "csv", total) as write:
        for fold in finished:
            rows = raw.indices[fold.job.name] + 1
            row_columns = {"row": rows, "fold": np.full(len(rows), _get_fold_number(fold))}
            answers = open_answers(fold.spec)
            truth = fold.truth[TESTED_SPLIT]
            write(prediction_table.make_table(row_columns, fold.predictions[TESTED_SPLIT], answers, truth))
