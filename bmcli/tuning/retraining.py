"""Retrain a recipe many times on parts of its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import runs, stopping
from bmcli.distribution.launch import list_cores
from bmcli.recipe.load import LoadedRecipe, list_built_in, load_recipe
from bmcli.recipe.paths import parse_steps
from bmcli.runs import Run
from bmcli.tuning.training_jobs import (
    JobCallback,
    TrainingJob,
    describe_resume,
    find_unfinished,
)
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import check_overrides, find_run, load_run_recipe
from bmcli.workflows.reporting import refresh_report

if TYPE_CHECKING:
    pass


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
    return RecipeToRetrain(load_run_recipe(run, overrides), run if same_data else None)


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


def attach_to_run(run: Run, results: Mapping[str, Any], context: RetrainingContext) -> None:
    """Keeps what training anew found in the run whose recipe it is, and brings its report up to date."""
    run.write(run.validation, {**(run.record(run.validation, dict[str, Any]) or {}), **results})
    refresh_report(run, context.cache, context.log)
