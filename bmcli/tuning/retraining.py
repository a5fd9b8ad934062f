"""Retrain a recipe several times on parts of its data, for cross-validation and learning curves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class RecipeToRetrain:
    """A recipe to retrain.

    Args:
        run: Run whose recipe it is, and whose report shows the result; None for a recipe of a file or on other data.
    """

    loaded: LoadedRecipe
    run: Run | None


def find_recipe(target: str, overrides: Sequence[str], root: Path) -> RecipeToRetrain:
    """Find the recipe to retrain: a file, a built-in one, or that of a run.

    Raises:
        BmcliError: The recipe is at fault, or an override changes the training of the run.
    """
    if target.endswith((".yaml", ".yml")) or (target in list_built_in() and not (root / target).exists()):
        return RecipeToRetrain(load_recipe(target, overrides), None)
    run = find_run(target, root)
    check_overrides(overrides)
    # The report of a run must not show results on other data.
    same_data = not any(parse_steps(argument)[0][:1] == ("data",) for argument in overrides)
    return RecipeToRetrain(load_run_recipe(run, overrides), run if same_data else None)


@dataclass(frozen=True)
class RetrainingContext:
    """Folders and workers of several trainings, and where their messages go.

    Args:
        root: Folder of all runs.
        cache: Folder of prepared data and of measurements of this machine.
        workers: Number of trainings at a time; None for the number of cores.
        on_job_end: Takes each training when it has ended.
        log: Takes messages.
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
        """Add advice how to resume to an interruption of the body, if some trainings of the recipe are finished."""
        with stopping.resumable(lambda: describe_resume(self.root, name, loaded)):
            yield

    def begin_run(self, name: str, loaded: LoadedRecipe, jobs: Sequence[TrainingJob]) -> Run:
        """Return the run of some trainings: an interrupted one of the same recipe and jobs, or a new one."""
        unfinished = find_unfinished(self.root, name, loaded, jobs)
        if unfinished is None:
            return runs.create(self.root, name)
        self.log(f"resuming {unfinished.display_path}, which was interrupted; finished trainings are kept")
        return unfinished


def attach_to_run(run: Run, results: Mapping[str, Any], context: RetrainingContext) -> None:
    """Write the results of retraining into the run of the recipe, and update its report."""
    run.write(run.validation, {**(run.record(run.validation, dict[str, Any]) or {}), **results})
    refresh_report(run, context.cache, context.log)
