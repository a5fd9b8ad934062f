"""`bmcli evaluate --folds`: cross-validation of a recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, runs, stopping, training
from bmcli.commands.evaluate import ReportCallback, add_device_defaults, check_overrides, find_run, refresh_report
from bmcli.distribution.launch import list_cores
from bmcli.errors import BmcliError, GateMissed
from bmcli.quoting import quoted
from bmcli.recipe.load import LoadedRecipe, list_built_in, load_recipe
from bmcli.recipe.paths import parse_steps
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from bmcli.tuning.training_jobs import (
    FinishedJob,
    JobCallback,
    TrainingJob,
    describe_resume,
    find_unfinished,
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


@dataclass(frozen=True)
class RecipeToRetrain:
    """A recipe that is to be trained anew.

    Args:
        run: Whose recipe it is, and in whose report it is shown; None if it is that of a file, or told to read
            other data.
    """

    loaded: LoadedRecipe
    run: Run | None


def find_recipe(target: str, overrides: Sequence[str], root: Path) -> RecipeToRetrain:
    """The recipe that is to be trained anew: a file, a built-in one, or that of a run.

    Raises:
        BmcliError: The recipe is at fault, or an override would make it another training than the run's.
    """
    if target.endswith((".yaml", ".yml")) or (target in list_built_in() and not (root / target).exists()):
        return RecipeToRetrain(load_recipe(target, overrides), None)
    run = find_run(target, root)
    check_overrides(overrides)
    same_data = not any(parse_steps(argument)[0][:1] == ("data",) for argument in overrides)
    return RecipeToRetrain(load_recipe(str(run.lock), add_device_defaults(overrides)), run if same_data else None)


@dataclass(frozen=True)
class RetrainingContext:
    """Where trainings work side by side, and whom they tell.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        workers: Trainings side by side; None for as many as there are cores.
        on_job_end: Hears of each training when it has ended.
        log: Takes a sentence.
    """

    root: Path
    cache: Path
    workers: int | None
    on_job_end: JobCallback
    log: ReportCallback

    def count_workers(self, jobs: Sequence[TrainingJob]) -> int:
        return min(self.workers or len(list_cores()) or 1, len(jobs))

    @contextlib.contextmanager
    def resumable(self, name: str, loaded: LoadedRecipe) -> Iterator[None]:
        """Has an interruption of the body tell how to go on with the trainings of a recipe, if some are done."""
        with stopping.resumable(lambda: describe_resume(self.root, name, loaded)):
            yield

    def begin_run(self, name: str, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> Run:
        """The folder of some trainings: a new one, or that of the same which was interrupted."""
        begun = find_unfinished(self.root, name, loaded, jobs)
        if begun is None:
            return runs.create(self.root, name)
        self.log(f"goes on with {begun.display_path}, which was interrupted; what is done there is kept")
        return begun


def make_run_name(recipe: Recipe) -> str:
    """The name of a recipe's cross-validations."""
    return f"{recipe.name}-folds"


def attach_to_run(run: Run, results: Mapping[str, Any], context: RetrainingContext) -> None:
    """Keeps what training anew found in the run whose recipe it is, and brings its report up to date."""
    run.write(run.validation, {**(run.record(run.validation, dict[str, Any]) or {}), **results})
    refresh_report(run, context.cache, context.log)


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
        attach_to_run(source.run, found.run.read_evaluations(), context)
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
                told = prediction_table.make_answer_column(true, column)
                written = written.append_column(f"{column.name}_true", told)
            write(written)
