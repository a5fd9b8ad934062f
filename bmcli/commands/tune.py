"""`bmcli tune`: searches for better values of a recipe, and hands back a recipe, a run and a report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bmcli import disk, distillations, runs, stopping
from bmcli.commands import distill as distilling
from bmcli.commands import train
from bmcli.commands.evaluate import EvaluationResult, evaluate
from bmcli.errors import BmcliError, Interrupted
from bmcli.messages import write_message
from bmcli.recipe.load import LoadedRecipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.render import render_recipe
from bmcli.recipe.space import load_search
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.training.progress import LineProgress
from bmcli.trials import SearchObjective, SearchResult
from bmcli.tuning import study as studies
from bmcli.tuning.pool import WorkerPool
from bmcli.tuning.study import Study
from bmcli.workflows import session as sessions
from bmcli.workflows.evaluation import check_evaluation

if TYPE_CHECKING:
    from bmcli.tuning.search import Search, SearchCallback, SearchWinner

# What may be another when a search goes on: how much is searched, not what.
CHANGEABLE = ("tune.trials", "tune.workers", "tune.stop", "tune.confirm")

SearchProgressFactory = Callable[
    [SearchResult, int | None, float | None], contextlib.AbstractContextManager["SearchCallback"]
]


@dataclass(frozen=True)
class SearchContext:
    """Where a search works, and whom it tells.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        make_progress: Makes a display from the search so far, the trials it is to have if that is known, and its
            limit of time in seconds.
        log: Takes a sentence.
    """

    root: Path
    cache: Path
    make_progress: SearchProgressFactory
    log: Callable[[str], None]


@dataclass(frozen=True)
class TuningResult:
    """A finished search, what was measured of its winner's run, and where everything is.

    Args:
        measured: None if the data has no rows to measure on.
    """

    study: Study
    searched: SearchResult
    measured: EvaluationResult | None


def tune(target: str, overrides: Sequence[str], context: SearchContext) -> TuningResult:
    """Searches where the recipe says, in a new study.

    Raises:
        RunFailed: Nothing could be measured.
        Interrupted: A signal came; the search can be gone on with.
    """
    loaded = load_search(target, overrides)
    try:
        _require_search(loaded)
        if loaded.recipe.distill is not None:
            loaded = distilling.train_missing_teachers(loaded, _make_training_context(context))
        objectives, spec = _resolve_objectives(loaded, context)
        study = studies.create_study(context.root, loaded, objectives, spec.fingerprint)
        return _run_search(study, loaded, objectives, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(search: str, overrides: Sequence[str], context: SearchContext, target: str | None = None) -> TuningResult:
    """Goes on with a search that was stopped, or with a finished one that may have more trials now.

    Args:
        search: The study's folder, or the name of its recipe.
        target: A recipe, to go on only if it is still the same.
    """
    study = studies.find_study(context.root, search)
    study.require_recipes()
    loaded = load_search(str(study.search) if target is None else target, overrides)
    try:
        _require_search(loaded)
        objectives, spec = _resolve_objectives(loaded, context)
        _require_same_search(study, studies.describe_search(loaded.recipe, objectives, spec.fingerprint))
        _require_unfinished(study, loaded, objectives)
        study.reopen()
        return _run_search(study, loaded, objectives, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def join(search: str, workers: int, context: SearchContext) -> None:
    """Trains trials of a search whose chief is another process, perhaps on another machine, until it is over."""
    study = studies.find_study(context.root, search)
    if study.is_over:
        raise BmcliError(
            f"{study.display_path} is over.", suggestion=f"Go on with it: `bmcli tune --resume {study.display_path}`."
        )
    context.log(f"{workers} workers join {study.display_path}")
    with WorkerPool(study, workers, context.cache) as pool:
        pool.run_until_over()


def _require_search(loaded: LoadedRecipe) -> None:
    if loaded.recipe.tune is None:
        raise BmcliError(
            "the recipe does not say what to search.",
            suggestion="Write tune: {space: {train.optimizer.learning_rate: {log: [1e-4, 1e-2]}}}.",
        )


def _resolve_objectives(loaded: LoadedRecipe, context: SearchContext) -> tuple[tuple[SearchObjective, ...], DataSpec]:
    """What is searched for and in which data; what no trial could do is a fault now.

    The chief trains nothing, so that it leaves all GPUs to the workers.
    """
    with _hide_gpus():
        learner = distillations.resolve_student(loaded)
        recipe = learner.recipe.without_tune().on_one_device()
        session = sessions.start_session(
            replace(learner, recipe=recipe), context.cache, lambda spec: check_evaluation(recipe, spec)
        )
        directions = session.build_trainer(None).selection.directions
    objectives = tuple(_make_objective(name, directions) for name in loaded.recipe.search_objectives())
    return objectives, session.prepared.spec


def _make_training_context(context: SearchContext) -> train.TrainingContext:
    """The same for a training before the search."""

    def told(text: str, level: int = 0) -> None:
        if level == 0:
            context.log(text)

    return train.TrainingContext(context.root, context.cache, lambda title: LineProgress(write_message), told)


def _make_objective(name: str, directions: Mapping[str, Literal["min", "max"] | None]) -> SearchObjective:
    if not name.startswith("validation/"):
        return SearchObjective(name, "min")
    if name not in directions:
        known = [metric for metric in directions if metric.startswith("validation/")]
        hint = f"Measured are: {', '.join(known)}." if known else "Give data.split a share for validation."
        raise BmcliError(f"'{name}' is not measured while training.", path="tune.objective", suggestion=hint)
    direction = directions[name]
    if direction is None:
        raise BmcliError(f"neither more nor less of '{name}' is better.", path="tune.objective")
    return SearchObjective(name, direction)


@contextlib.contextmanager
def _hide_gpus() -> Iterator[None]:
    """Hides GPUs from a TensorFlow that is imported inside, and from none that is started later."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _require_same_search(study: Study, current: Mapping[str, Any]) -> None:
    """Refuses to go on with a search of something else."""
    from bmcli.tuning.search import find_differences

    found = [
        each for each in find_differences(study.read_start_record(), current) if not _is_changeable(each.split(":")[0])
    ]
    if found:
        raise BmcliError(
            f"{study.display_path} was begun with something else: {'; '.join(found)}.",
            suggestion=f"Start a new search. What may change: {', '.join(CHANGEABLE)}.",
        )


def _is_changeable(path: str) -> bool:
    return any(path == f"recipe.{allowed}" or path.startswith(f"recipe.{allowed}.") for allowed in CHANGEABLE)


def _run_search(
    study: Study, loaded: LoadedRecipe, objectives: tuple[SearchObjective, ...], context: SearchContext
) -> TuningResult:
    options = loaded.recipe.tune
    assert options is not None, "the recipe says what is searched"
    context.log(f"search {study.display_path}")
    with study.acquire_lock(), _record_interruption(study):
        with WorkerPool(study, options.workers, context.cache) as pool:
            from bmcli.tuning.search import Search

            with contextlib.closing(Search(study, loaded, objectives, pool.restart_dead_workers)) as search:
                study.set_status("running")
                with context.make_progress(search.searched(), options.max_trials, options.stop.time) as watcher:
                    winner = search.run(watcher)
                study.finish()
                tuned = _publish_winner(study, search, winner, context)
        study.set_status("done", winner=winner.trial.task.name, run=tuned.searched.run)
        return tuned


def _require_unfinished(study: Study, loaded: LoadedRecipe, objectives: tuple[SearchObjective, ...]) -> None:
    """Refuses to go on with a search that has handed over all there is; the report is the last that it writes."""
    if not study.report.exists():
        return
    from bmcli.tuning.search import Search

    with contextlib.closing(Search(study, loaded, objectives, lambda: None)) as search:
        if search.is_over:
            trials = 2 * len(search.searched().trials)
            raise BmcliError(
                f"{study.display_path} is already completed.",
                suggestion=f"To continue, set a larger limit, such as tune.trials={trials}.",
            )
    study.report.unlink()


def _publish_winner(study: Study, search: Search, winner: SearchWinner, context: SearchContext) -> TuningResult:
    """The winner as a run among the others, measured once; and the files that tell of the search."""
    from bmcli.reports.trials_csv import render_trials_csv
    from bmcli.reports.tune import render_search

    best = study.load_candidate(winner.trial.task.values)
    disk.write_atomically(study.best, render_recipe(best.recipe, best.tree).encode(), disk.PRIVATE_MODE)
    run = runs.create(context.root, best.recipe.name)
    shutil.copytree(study.run(winner.task.name).folder, run.folder, dirs_exist_ok=True)
    run.write(run.origin, {"told": _describe_origin(study, search.searched(), winner)})
    measured = _evaluate_run(run, context)
    searched = replace(
        search.searched(),
        run=run.display_path,
        test={} if measured is None else measured.metrics(),
    )
    disk.write_atomically(study.table, render_trials_csv(searched).encode())
    disk.write_atomically(study.report, render_search(searched).encode(), disk.PRIVATE_MODE)
    return TuningResult(study, searched, measured)


def _describe_origin(study: Study, search: SearchResult, winner: SearchWinner) -> list[str]:
    """Where the winner's run comes from, for its report."""
    name, first = winner.trial.task.name, search.first
    told = [
        f"The winner of the search {study.display_path}: {len(search.trials):,} trials of "
        f"{', '.join(search.parameters)}.",
        *(f"{path} = {write_scalar(value)}" for path, value in winner.trial.task.values.items()),
    ]
    measured = winner.trial.measured(first)
    if measured is not None:
        told.append(f"The search measured {first.name} {measured:.4f}, the best of its trials, which chance favoured.")
    for each in search.confirmed:
        if each.trial == name:
            told.append(f"Trained again with {len(each.values)} fresh seeds it reached {each.mean:.4f} on average.")
    return [*told, f"The whole search is shown in {disk.format_path(study.report)}."]


def _evaluate_run(run: Run, context: SearchContext) -> EvaluationResult | None:
    """What the evaluation finds that the recipe asks for; None if there are no rows for it."""
    loaded = load_search(str(run.lock))
    if not read_data_spec(run).counts.get(loaded.recipe.evaluate.split):
        return None
    return evaluate(str(run.folder), (), None, None, context.root, context.cache, context.log)


@contextlib.contextmanager
def _record_interruption(study: Study) -> Iterator[None]:
    """Writes down how a search ended that did not come to its end."""
    how = stopping.format_resume_advice(f"bmcli tune --resume {study.display_path}")
    try:
        with stopping.resumable(lambda: how, lambda sentence: study.set_status("interrupted")):
            yield
    except Interrupted:
        with contextlib.suppress(OSError):
            study.set_status("interrupted")
        raise Interrupted("the search was interrupted; its trials are saved.", suggestion=how) from None
    except Exception as error:
        with contextlib.suppress(OSError):
            study.set_status("failed", reason=str(error))
        raise
