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
from bmcli.commands.evaluate import Measured, evaluate
from bmcli.console import Console, Watcher
from bmcli.errors import BmcliError, Interrupted
from bmcli.recipe.load import Loaded
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.render import render
from bmcli.recipe.space import load_search
from bmcli.run_data import data_of
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.trials import Objective, Searched
from bmcli.tuning import study as studies
from bmcli.tuning.pool import Pool
from bmcli.tuning.study import Study
from bmcli.workflows import session as sessions
from bmcli.workflows.evaluation import check_evaluation

if TYPE_CHECKING:
    from bmcli.tuning.search import Search, Winner
    from bmcli.tuning.search import Watcher as SearchWatcher

# What may be another when a search goes on: how much is searched, not what.
CHANGEABLE = ("tune.trials", "tune.workers", "tune.stop", "tune.confirm")

Watch = Callable[[Searched, int | None, float | None], contextlib.AbstractContextManager["SearchWatcher"]]


@dataclass(frozen=True)
class Setting:
    """Where a search works, and whom it tells.

    Args:
        root: Folder of all runs.
        cache: Prepared data and measurements of this machine.
        watch: Makes a display from the search so far, the trials it is to have if that is known, and its limit of time
            in seconds.
        told: Takes a sentence.
    """

    root: Path
    cache: Path
    watch: Watch
    told: Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """A finished search, what was measured of its winner's run, and where everything is.

    Args:
        measured: None if the data has no rows to measure on.
    """

    study: Study
    searched: Searched
    measured: Measured | None


def tune(target: str, overrides: Sequence[str], setting: Setting) -> Tuned:
    """Searches where the recipe says, in a new study.

    Raises:
        RunFailed: Nothing could be measured.
        Interrupted: A signal came; the search can be gone on with.
    """
    loaded = load_search(target, overrides)
    try:
        _require_search(loaded)
        if loaded.recipe.distill is not None:
            loaded = distilling.with_trained_teachers(loaded, _training(setting))
        objectives, spec = _looked_into(loaded, setting)
        study = studies.create(setting.root, loaded, objectives, spec.fingerprint)
        return _tune(study, loaded, objectives, setting)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(text: str, overrides: Sequence[str], setting: Setting, target: str | None = None) -> Tuned:
    """Goes on with a search that was stopped, or with a finished one that may have more trials now.

    Args:
        text: The study's folder, or the name of its recipe.
        target: A recipe, to go on only if it is still the same.
    """
    study = studies.find(setting.root, text)
    study.require_recipes()
    loaded = load_search(str(study.search) if target is None else target, overrides)
    try:
        _require_search(loaded)
        objectives, spec = _looked_into(loaded, setting)
        _require_same(study, studies.described(loaded.recipe, objectives, spec.fingerprint))
        _require_work(study, loaded, objectives)
        study.reopen()
        return _tune(study, loaded, objectives, setting)
    except BmcliError as error:
        raise loaded.locate(error) from None


def join(text: str, workers: int, setting: Setting) -> None:
    """Trains trials of a search whose chief is another process, perhaps on another machine, until it is over."""
    study = studies.find(setting.root, text)
    if study.is_over:
        raise BmcliError(f"{study.shown} is over.", suggestion=f"Go on with it: `bmcli tune --resume {study.shown}`.")
    setting.told(f"{workers} workers join {study.shown}")
    with Pool(study, workers, setting.cache) as pool:
        pool.stay()


def _require_search(loaded: Loaded) -> None:
    if loaded.recipe.tune is None:
        raise BmcliError(
            "the recipe does not say what to search.",
            suggestion="Write tune: {space: {train.optimizer.learning_rate: {log: [1e-4, 1e-2]}}}.",
        )


def _looked_into(loaded: Loaded, setting: Setting) -> tuple[tuple[Objective, ...], DataSpec]:
    """What is searched for and in which data; what no trial could do is a fault now.

    The chief trains nothing, so that it leaves all GPUs to the workers.
    """
    with _without_gpus():
        learner = distillations.learner(loaded)
        recipe = learner.recipe.without_search().on_one_device()
        session = sessions.begin(
            replace(learner, recipe=recipe), setting.cache, lambda spec: check_evaluation(recipe, spec)
        )
        directions = session.trainer(None).selection.directions
    objectives = tuple(_objective(name, directions) for name in loaded.recipe.search_objectives())
    return objectives, session.prepared.spec


def _training(setting: Setting) -> train.Setting:
    """The same for a training before the search."""

    def told(text: str, level: int = 0) -> None:
        if level == 0:
            setting.told(text)

    return train.Setting(setting.root, setting.cache, lambda title: Watcher(Console()), told)


def _objective(name: str, directions: Mapping[str, Literal["min", "max"] | None]) -> Objective:
    if not name.startswith("validation/"):
        return Objective(name, "min")
    if name not in directions:
        known = [metric for metric in directions if metric.startswith("validation/")]
        hint = f"Measured are: {', '.join(known)}." if known else "Give data.split a share for validation."
        raise BmcliError(f"'{name}' is not measured while training.", path="tune.objective", suggestion=hint)
    direction = directions[name]
    if direction is None:
        raise BmcliError(f"neither more nor less of '{name}' is better.", path="tune.objective")
    return Objective(name, direction)


@contextlib.contextmanager
def _without_gpus() -> Iterator[None]:
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


def _require_same(study: Study, now: Mapping[str, Any]) -> None:
    """Refuses to go on with a search of something else."""
    from bmcli.tuning.search import differences

    found = [each for each in differences(study.begun(), now) if not _may_change(each.split(":")[0])]
    if found:
        raise BmcliError(
            f"{study.shown} was begun with something else: {'; '.join(found)}.",
            suggestion=f"Start a new search. What may change: {', '.join(CHANGEABLE)}.",
        )


def _may_change(path: str) -> bool:
    return any(path == f"recipe.{allowed}" or path.startswith(f"recipe.{allowed}.") for allowed in CHANGEABLE)


def _tune(study: Study, loaded: Loaded, objectives: tuple[Objective, ...], setting: Setting) -> Tuned:
    options = loaded.recipe.tune
    assert options is not None, "the recipe says what is searched"
    setting.told(f"search {study.shown}")
    with study.hold(), _told_how_to_go_on(study):
        with Pool(study, options.workers, setting.cache) as pool:
            from bmcli.tuning.search import Search

            with contextlib.closing(Search(study, loaded, objectives, pool.tend)) as search:
                study.set_status("running")
                with setting.watch(search.searched(), options.most_trials, options.stop.time) as watcher:
                    winner = search.run(watcher)
                study.finish()
                tuned = _handed_over(study, search, winner, setting)
        study.set_status("done", winner=winner.trial.task.name, run=tuned.searched.run)
        return tuned


def _require_work(study: Study, loaded: Loaded, objectives: tuple[Objective, ...]) -> None:
    """Refuses to go on with a search that has handed over all there is; the report is the last that it writes."""
    if not study.report.exists():
        return
    from bmcli.tuning.search import Search

    with contextlib.closing(Search(study, loaded, objectives, lambda: None)) as search:
        if search.is_over:
            trials = 2 * len(search.searched().trials)
            raise BmcliError(
                f"{study.shown} is finished.", suggestion=f"It goes on if it may, e.g. with tune.trials={trials}."
            )
    study.report.unlink()


def _handed_over(study: Study, search: Search, winner: Winner, setting: Setting) -> Tuned:
    """The winner as a run among the others, measured once; and the files that tell of the search."""
    from bmcli.reports.trials_csv import table
    from bmcli.reports.tune import report

    best = study.candidate(winner.trial.task.values)
    disk.write_atomically(study.best, render(best.recipe, best.tree).encode(), disk.PRIVATE)
    run = runs.create(setting.root, best.recipe.name)
    shutil.copytree(study.run(winner.task.name).folder, run.folder, dirs_exist_ok=True)
    run.write(run.origin, {"told": _origin(study, search.searched(), winner)})
    measured = _measured(run, setting)
    searched = replace(
        search.searched(),
        run=run.shown,
        test={} if measured is None else measured.metrics(),
    )
    disk.write_atomically(study.table, table(searched).encode())
    disk.write_atomically(study.report, report(searched).encode(), disk.PRIVATE)
    return Tuned(study, searched, measured)


def _origin(study: Study, searched: Searched, winner: Winner) -> list[str]:
    """Where the winner's run comes from, for its report."""
    name, first = winner.trial.task.name, searched.first
    told = [
        f"The winner of the search {study.shown}: {len(searched.trials):,} trials of {', '.join(searched.parameters)}.",
        *(f"{path} = {write_scalar(value)}" for path, value in winner.trial.task.values.items()),
    ]
    measured = winner.trial.measured(first)
    if measured is not None:
        told.append(f"The search measured {first.name} {measured:.4f}, the best of its trials, which chance favoured.")
    for each in searched.confirmed:
        if each.trial == name:
            told.append(f"Trained again with {len(each.values)} fresh seeds it reached {each.mean:.4f} on average.")
    return [*told, f"The whole search is shown in {disk.shown_path(study.report)}."]


def _measured(run: Run, setting: Setting) -> Measured | None:
    """What the evaluation finds that the recipe asks for; None if there are no rows for it."""
    loaded = load_search(str(run.lock))
    if not data_of(run).counts.get(loaded.recipe.evaluate.split):
        return None
    return evaluate(str(run.folder), (), None, None, setting.root, setting.cache, setting.told)


@contextlib.contextmanager
def _told_how_to_go_on(study: Study) -> Iterator[None]:
    """Writes down how a search ended that did not come to its end."""
    how = stopping.going_on(f"bmcli tune --resume {study.shown}")
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
