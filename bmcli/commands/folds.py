"""`bmcli evaluate --folds`: cross-validation of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk, runs, training
from bmcli.errors import BmcliError, GateMissed
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from bmcli.tuning.retraining import RecipeToRetrain, RetrainingContext, attach_to_run
from bmcli.tuning.training_jobs import (
    FinishedJob,
    TrainingJob,
    require_same_classes,
    run_jobs,
)
from bmcli.workflows import prediction_table, report_data
from bmcli.workflows.evaluation import RawColumnReader, check_evaluation, evaluate_predictions

if TYPE_CHECKING:
    from bmcli.data.raw_rows import RawSplits
    from bmcli.evaluation.folds import CrossValidationResult, FoldResult
    from bmcli.evaluation.gates import MissedGate

TESTED_SPLIT = "test"


@dataclass(frozen=True)
class CrossValidationRun:
    """A cross-validation and the run that keeps it.

    Args:
        run: A folder with `evaluation.json`, the run of each fold, all predictions as a table, and a page.
    """

    run: Run
    predictions: Path
    folds: CrossValidationResult
    missed_gates: tuple[MissedGate, ...]

    def require_gates(self) -> None:
        """Raises GateMissed if the mean of a metric is beyond its limit."""
        if self.missed_gates:
            raise GateMissed(*(f"gate missed: folds/{missed}." for missed in self.missed_gates))


def make_run_name(recipe: Recipe) -> str:
    """The name of a recipe's cross-validations."""
    return f"{recipe.name}-folds"


def cross_validate(source: RecipeToRetrain, context: RetrainingContext) -> CrossValidationRun:
    """Trains a recipe on every fold of its training and validation rows, and tests each on the rest.

    One that was interrupted goes on: folds that are done are kept.

    Raises:
        BmcliError: The recipe or its data is at fault, or a fold failed.
    """
    try:
        with context.resumable(make_run_name(source.loaded.recipe), source.loaded):
            found = _train_folds(source.loaded, context)
    except BmcliError as error:
        raise source.loaded.locate(error) from None
    if source.run is not None:
        attach_to_run(source.run, found.run.evaluations(), context)
    return found


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
        if not any(run.folder.glob("fold-*/metrics.jsonl")):
            runs.discard(run)  # nothing was trained
        raise
    spec = require_same_classes(finished)
    folds = _evaluate_folds(recipe, spec, finished, raw)
    predictions = run.folder / "predictions.csv"
    predictions.unlink(missing_ok=True)  # of one that was interrupted just before its end
    _write_predictions(predictions, recipe, spec, finished, raw)
    from bmcli.evaluation.gates import find_missed_gates
    from bmcli.reports.regenerate import render_folds

    page = render_folds(recipe.name, run.display_path, report_data.read_text(run.folder / "base.yaml"), folds)
    disk.write_atomically(run.report, page.encode(), disk.PRIVATE_MODE)
    run.write(run.evaluation, {"folds": {"at": runs.now(), **folds.to_json()}})  # the last: it tells the end
    means = {**{name: mean.mean for name, mean in folds.means.items()}, **_select_group_metrics(folds)}
    return CrossValidationRun(run, predictions, folds, find_missed_gates(recipe.evaluate.gates, means))


def _read_tested_rows(recipe: Recipe, count: int) -> RawSplits:
    """Raw columns, and the rows that each fold tests, under its number."""
    from bmcli.data.raw_rows import read_raw_folds

    return read_raw_folds(recipe.data, recipe.targets(), recipe.data_seed, count)


def _evaluate_folds(
    recipe: Recipe, spec: DataSpec, finished: Sequence[FinishedJob], raw: RawSplits
) -> CrossValidationResult:
    import numpy as np

    from bmcli.evaluation import folds

    every = np.concatenate([raw.indices[each.job.name] for each in finished])
    names = [column.name for column in spec.targets]
    truth, predictions = (
        {name: np.concatenate([getattr(each, which)[TESTED_SPLIT][name] for each in finished]) for name in names}
        for which in ("truth", "predictions")
    )
    cells = RawColumnReader(recipe, "folds", replace(raw, indices={"folds": every}).of("folds"))
    together = evaluate_predictions(recipe, _add_thresholds(spec, finished), truth, predictions, cells)
    return folds.summarize_folds(
        _describe_splitting(recipe, spec), [_evaluate_fold(recipe, each) for each in finished], together
    )


def _add_thresholds(spec: DataSpec, finished: Sequence[FinishedJob]) -> DataSpec:
    """The spec of all tested rows, each with the threshold that was chosen without it."""
    import numpy as np

    def column(target: Column) -> Column:
        if "threshold" not in target.state:
            return target
        each = [
            np.full(len(f.truth[TESTED_SPLIT][target.name]), f.spec.target(target.name).state["threshold"])
            for f in finished
        ]
        return replace(target, state={**target.state, "threshold": np.concatenate(each)})

    return replace(spec, targets=tuple(map(column, spec.targets)))


def _evaluate_fold(recipe: Recipe, finished: FinishedJob) -> FoldResult:
    from bmcli.evaluation import folds
    from bmcli.evaluation.metrics import measure

    found = measure(
        finished.truth[TESTED_SPLIT],
        finished.predictions[TESTED_SPLIT],
        finished.spec.targets,
        recipe.evaluate.top_k,
        recipe.quantiles(),
    )
    trained, number = finished.spec.counts["train"], int(finished.job.name.partition("-")[2])
    return folds.FoldResult(number, trained, found.count, found.metrics, finished.epochs, finished.seconds)


def _select_group_metrics(folds: CrossValidationResult) -> Mapping[str, float]:
    """Metrics between groups, which take all rows together."""
    return {name: value for name, value in folds.together.metrics.items() if name.startswith("fairness/")}


def _describe_splitting(recipe: Recipe, spec: DataSpec) -> str:
    split = recipe.data.split
    if split.time:
        return f"in the order of {quoted(split.time)}, each fold after the rows that it was trained on"
    way = (
        f"by {quoted(split.group)}, the rows of each together"
        if split.group
        else "by what rows hold"
        if split.hash
        else ""
    )
    kept = f"with the proportions of {quoted(spec.stratified)}" if spec.stratified else ""
    return ", ".join(filter(None, (way or "by chance", kept)))


def _write_predictions(
    path: Path, recipe: Recipe, spec: DataSpec, finished: Sequence[FinishedJob], raw: RawSplits
) -> None:
    """Every tested row: its number in the source from 1, its fold, the truth and what was predicted."""
    import numpy as np

    total = sum(len(raw.indices[each.job.name]) for each in finished)
    with prediction_table.open_writer(path, "csv", total) as write:
        for each in finished:
            rows = raw.indices[each.job.name] + 1
            kept = {"row": rows, "fold": np.full(len(rows), int(each.job.name.partition("-")[2]))}
            written = prediction_table.make_table(
                kept, each.predictions[TESTED_SPLIT], each.spec.targets, recipe.quantiles()
            )
            for column in spec.targets:
                true = each.truth[TESTED_SPLIT][column.name]
                told = prediction_table.make_decoded_column(true, column)
                written = written.append_column(f"{column.name}_true", told)
            write(written)
