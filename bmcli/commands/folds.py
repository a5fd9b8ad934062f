"""`bmcli evaluate --folds`: cross-validation of a recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, runs, stopping, training
from bmcli.commands.evaluate import Tell, bring_up_to_date, check_overrides, elsewhere, find_run
from bmcli.distribution.launch import available_cores
from bmcli.errors import BmcliError, GateMissed
from bmcli.quoting import quoted
from bmcli.recipe.check import read_steps
from bmcli.recipe.load import Loaded, built_in, load
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from bmcli.tuning.training_jobs import Finished, Job, Told, how_to_go_on, run_all, same_classes, unfinished
from bmcli.workflows import prediction_table, report_data
from bmcli.workflows.evaluation import Cells, check_evaluation, judge

if TYPE_CHECKING:
    from bmcli.data.raw_rows import RawRows
    from bmcli.evaluation.folds import Fold, Folds
    from bmcli.evaluation.gates import MissedGate

TESTED = "test"


@dataclass(frozen=True)
class CrossValidated:
    """A cross-validation and where it is kept.

    Args:
        run: A folder with `evaluation.json`, the run of each fold, all predictions as a table, and a page.
    """

    run: Run
    predictions: Path
    folds: Folds
    missed: tuple[MissedGate, ...]

    def require_gates(self) -> None:
        """Raises GateMissed if the mean of a metric is beyond its limit."""
        if self.missed:
            raise GateMissed(*(f"gate missed: folds/{missed}." for missed in self.missed))


@dataclass(frozen=True)
class Anew:
    """A recipe that is to be trained anew.

    Args:
        run: Whose recipe it is, and in whose report it is shown; None if it is that of a file, or told to read
            other data.
    """

    loaded: Loaded
    run: Run | None


def recipe_of(target: str, overrides: Sequence[str], root: Path) -> Anew:
    """The recipe that is to be trained anew: a file, a built-in one, or that of a run.

    Raises:
        BmcliError: The recipe is at fault, or an override would make it another training than the run's.
    """
    if target.endswith((".yaml", ".yml")) or (target in built_in() and not (root / target).exists()):
        return Anew(load(target, overrides), None)
    run = find_run(target, root)
    check_overrides(overrides)
    same_data = not any(read_steps(argument)[0][:1] == ("data",) for argument in overrides)
    return Anew(load(str(run.lock), elsewhere(overrides)), run if same_data else None)


@dataclass(frozen=True)
class Setting:
    """Where trainings work side by side, and whom they tell.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        workers: Trainings side by side; None for as many as there are cores.
        trained: Hears of each training when it has ended.
        told: Takes a sentence.
    """

    root: Path
    cache: Path
    workers: int | None
    trained: Told
    told: Tell

    def side_by_side(self, jobs: Sequence[Job]) -> int:
        return min(self.workers or len(available_cores()) or 1, len(jobs))

    @contextlib.contextmanager
    def resumable(self, name: str, loaded: Loaded) -> Iterator[None]:
        """Has an interruption of the body tell how to go on with the trainings of a recipe, if some are done."""
        with stopping.resumable(lambda: how_to_go_on(self.root, name, loaded)):
            yield

    def begin(self, name: str, loaded: Loaded, jobs: Sequence[Job]) -> Run:
        """The folder of some trainings: a new one, or that of the same which was interrupted."""
        begun = unfinished(self.root, name, loaded, jobs)
        if begun is None:
            return runs.create(self.root, name)
        self.told(f"goes on with {begun.shown}, which was interrupted; what is done there is kept")
        return begun


def folder_of(recipe: Recipe) -> str:
    """The name of a recipe's cross-validations."""
    return f"{recipe.name}-folds"


def add_to(run: Run, found: Mapping[str, Any], setting: Setting) -> None:
    """Keeps what training anew found in the run whose recipe it is, and brings its report up to date."""
    run.write(run.validation, {**(run.record(run.validation, dict[str, Any]) or {}), **found})
    bring_up_to_date(run, setting.cache, setting.told)


def cross_validate(anew: Anew, setting: Setting) -> CrossValidated:
    """Trains a recipe on every fold of its training and validation rows, and tests each on the rest.

    One that was interrupted goes on: folds that are done are kept.

    Raises:
        BmcliError: The recipe or its data is at fault, or a fold failed.
    """
    try:
        with setting.resumable(folder_of(anew.loaded.recipe), anew.loaded):
            found = _cross_validate(anew.loaded, setting)
    except BmcliError as error:
        raise anew.loaded.locate(error) from None
    if anew.run is not None:
        add_to(anew.run, found.run.evaluations(), setting)
    return found


def _cross_validate(loaded: Loaded, setting: Setting) -> CrossValidated:
    recipe = loaded.recipe
    count = recipe.evaluate.folds
    assert count is not None
    raw = _tested_rows(recipe, count)
    jobs = [Job(f"fold-{n}", {"data.split.fold": {"number": n, "of": count}}, (TESTED,)) for n in range(1, count + 1)]
    first = training.prepared(loaded.with_values(jobs[0].values).recipe, setting.cache)
    check_evaluation(recipe, first.spec)
    run = setting.begin(folder_of(recipe), loaded, jobs)
    try:
        finished = run_all(loaded, jobs, run.folder, setting.side_by_side(jobs), setting.cache, setting.trained)
    except (BmcliError, KeyboardInterrupt):
        if not any(run.folder.glob("fold-*/metrics.jsonl")):
            runs.discard(run)  # nothing was trained
        raise
    spec = same_classes(finished)
    folds = _judged(recipe, spec, finished, raw)
    predictions = run.folder / "predictions.csv"
    predictions.unlink(missing_ok=True)  # of one that was interrupted just before its end
    _write_table(predictions, recipe, spec, finished, raw)
    from bmcli.evaluation.gates import missed
    from bmcli.reports.regenerate import of_folds

    page = of_folds(recipe.name, run.shown, report_data.text(run.folder / "base.yaml"), folds)
    disk.write_atomically(run.report, page.encode(), disk.PRIVATE)
    run.write(run.evaluation, {"folds": {"at": runs.now(), **folds.to_json()}})  # the last: it tells the end
    means = {**{name: mean.mean for name, mean in folds.means.items()}, **_of_groups(folds)}
    return CrossValidated(run, predictions, folds, missed(recipe.evaluate.gates, means))


def _tested_rows(recipe: Recipe, count: int) -> RawRows:
    """Raw columns, and the rows that each fold tests, under its number."""
    from bmcli.data.raw_rows import raw_folds

    return raw_folds(recipe.data, recipe.targets(), recipe.data_seed, count)


def _judged(recipe: Recipe, spec: DataSpec, finished: Sequence[Finished], raw: RawRows) -> Folds:
    import numpy as np

    from bmcli.evaluation import folds

    every = np.concatenate([raw.indices[each.job.name] for each in finished])
    names = [column.name for column in spec.targets]
    truth, predictions = (
        {name: np.concatenate([getattr(each, which)[TESTED][name] for each in finished]) for name in names}
        for which in ("truth", "predictions")
    )
    cells = Cells(recipe, "folds", replace(raw, indices={"folds": every}).of("folds"))
    together = judge(recipe, _with_thresholds(spec, finished), truth, predictions, cells)
    return folds.summary(_dealt(recipe, spec), [_fold(recipe, each) for each in finished], together)


def _with_thresholds(spec: DataSpec, finished: Sequence[Finished]) -> DataSpec:
    """The spec of all tested rows, each with the threshold that was chosen without it."""
    import numpy as np

    def column(target: Column) -> Column:
        if "threshold" not in target.state:
            return target
        each = [
            np.full(len(f.truth[TESTED][target.name]), f.spec.target(target.name).state["threshold"]) for f in finished
        ]
        return replace(target, state={**target.state, "threshold": np.concatenate(each)})

    return replace(spec, targets=tuple(map(column, spec.targets)))


def _fold(recipe: Recipe, finished: Finished) -> Fold:
    from bmcli.evaluation import folds
    from bmcli.evaluation.metrics import measure

    found = measure(
        finished.truth[TESTED],
        finished.predictions[TESTED],
        finished.spec.targets,
        recipe.evaluate.top_k,
        recipe.quantiles(),
    )
    trained, number = finished.spec.counts["train"], int(finished.job.name.partition("-")[2])
    return folds.Fold(number, trained, found.count, found.metrics, finished.epochs, finished.seconds)


def _of_groups(folds: Folds) -> Mapping[str, float]:
    """Metrics between groups, which take all rows together."""
    return {name: value for name, value in folds.together.metrics.items() if name.startswith("fairness/")}


def _dealt(recipe: Recipe, spec: DataSpec) -> str:
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


def _write_table(path: Path, recipe: Recipe, spec: DataSpec, finished: Sequence[Finished], raw: RawRows) -> None:
    """Every tested row: its number in the source from 1, its fold, the truth and what was predicted."""
    import numpy as np

    total = sum(len(raw.indices[each.job.name]) for each in finished)
    with prediction_table.opened(path, "csv", total) as write:
        for each in finished:
            rows = raw.indices[each.job.name] + 1
            kept = {"row": rows, "fold": np.full(len(rows), int(each.job.name.partition("-")[2]))}
            written = prediction_table.table(kept, each.predictions[TESTED], each.spec.targets, recipe.quantiles())
            for column in spec.targets:
                true = each.truth[TESTED][column.name]
                told = prediction_table.told(true, column)
                written = written.append_column(f"{column.name}_true", told)
            write(written)
