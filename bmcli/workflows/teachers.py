"""Find or train the teachers of a distillation."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bmcli import distillations, runs, training
from bmcli.data.sources import get_source
from bmcli.distillations import Distillation
from bmcli.errors import BmcliError, Fault, RunFailed
from bmcli.messages import write_faults, write_message
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TeacherOptions, TrainedTeacherOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.training.progress import LineProgress
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.learners import check_teachers
from bmcli.workflows.training import TrainingContext, resume_run, train_recipe


class TrainingJobs:
    """Trainings of a distillation by name; each is done once, also if the distillation is interrupted between."""

    def __init__(self, distillation: Distillation, context: TrainingContext) -> None:
        self._distillation, self.context = distillation, context

    def run_job(self, job: str, loaded: LoadedRecipe) -> Run:
        """Return the finished run of a job; train it, or resume it, if it is not finished."""
        run = self._distillation.jobs().get(job)
        if run is not None and run.status().get("state") == "done" and run.model.exists():
            return run
        self.context.log(f"{job}:")
        if run is not None and any(run.checkpoints.glob("step-*")):
            resume_run(run, (), self.context)
            return run
        if run is not None and not run.model.exists():
            runs.discard(run)  # nothing was trained
        run = runs.create(self.context.root, loaded.recipe.name)
        self._distillation.add_job(job, run)
        try:
            train_recipe(loaded, replace(self.context, run_folder=run.folder))
        except BmcliError as error:
            raise loaded.locate(error) from None
        return run


def require_teachers(options: DistillOptions, root: Path) -> None:
    """Refuse teachers that do not exist, before anything is trained."""
    teachers = options.teacher or ()
    faults: list[Fault] = []
    for position, teacher in enumerate(teachers):
        try:
            _require_teacher(teacher, root)
        except BmcliError as error:
            path = f"distill.teacher.{position}" if len(teachers) > 1 else "distill.teacher"
            faults += [replace(fault, path=path) if fault.place is None else fault for fault in error.faults]
    if faults:
        raise BmcliError(*faults)


def _require_teacher(teacher: TeacherOptions, root: Path) -> None:
    if teacher.run is not None:
        runs.find(root, teacher.run).require_model()
    if teacher.recipe is not None:
        load_recipe(teacher.recipe)
    if teacher.file is not None:
        distillations.require_file(Path(teacher.file))


def resolve_teachers(
    options: DistillOptions, loaded: LoadedRecipe, student: LoadedRecipe, jobs: TrainingJobs
) -> list[TrainedTeacherOptions]:
    """Resolve all teachers to trained networks; recipes without a run are trained first."""
    trained = []
    for number, teacher in enumerate(options.teacher or (None,), start=1):
        run = _find_or_train_teacher(teacher, f"teacher-{number}", loaded, jobs)
        if run is not None:
            _warn_of_leaks(run, student.recipe, jobs.context.log)
        trained.append(distillations.resolve_teacher(teacher or TeacherOptions(recipe=loaded.recipe.name), run))
    return trained


def _find_or_train_teacher(
    teacher: TeacherOptions | None, job: str, loaded: LoadedRecipe, jobs: TrainingJobs
) -> Run | None:
    """Return the run of a teacher; None if it is a file."""
    root = jobs.context.root
    if teacher is not None and teacher.file is not None:
        return None
    if teacher is not None and teacher.run is not None:
        return runs.find(root, teacher.run)
    named = teacher.recipe if teacher is not None else None
    recipe = load_recipe(named) if named else students.make_own_teacher(loaded)
    for run in reversed([run for run in runs.list_runs(root) if run.name == recipe.recipe.name]):
        if run.model.exists() and run.status().get("state") == "done" and _was_trained_by(run, recipe.recipe):
            jobs.context.log(f"teacher: {run.display_path}")
            return run
    return jobs.run_job(job, recipe)


def _was_trained_by(run: Run, recipe: Recipe) -> bool:
    """Whether a run was trained by a recipe, on whichever devices."""
    try:
        run.require_lock()
        lock = load_recipe(str(run.lock)).recipe
    except BmcliError:
        return False
    requested, resolved = (dump(each.for_training().with_default_objectives()) for each in (recipe, lock))
    ignored = ("runtime", "evaluate", "vars")
    return _matches({name: value for name, value in requested.items() if name not in ignored}, resolved)


def _matches(requested: Any, resolved: Any) -> bool:
    """Whether a resolved value is the requested one; `auto` and null match every value."""
    if requested is None or requested == "auto":
        return True
    if isinstance(requested, dict) and isinstance(resolved, dict):
        return all(_matches(value, resolved.get(name)) for name, value in requested.items())
    if isinstance(requested, (list, tuple)) and isinstance(resolved, (list, tuple)):
        return len(requested) == len(resolved) and all(map(_matches, requested, resolved))
    return bool(requested == resolved)


def have_same_split(student: Recipe, teacher: Recipe) -> bool:
    """Whether two recipes split the same data alike.

    Args:
        teacher: Recipe of a run, with resolved values.
    """
    split, teacher_split = dump(student.data.split), dump(teacher.data.split)
    if split["stratify"] == "auto":
        split["stratify"] = teacher_split["stratify"]  # the run has the column that `auto` became
    # Compared exactly: a share that is left out has a default, so it does not match every share.
    return student.data_seed == teacher.data_seed and bool(split == teacher_split)


def _warn_of_leaks(teacher: Run, student: Recipe, log: ReportCallback) -> None:
    """Warn of a teacher that may have been trained on rows that the student is tested on."""
    recipe = load_recipe(str(teacher.lock)).recipe
    same_data = read_data_spec(teacher).fingerprint == get_source(student.data).fingerprint()
    if same_data and not have_same_split(student, recipe):
        log(
            f"warning: {teacher.display_path} was trained on another split of the same data, so it may have seen test "
            "rows of the student. Give both the same data.seed and data.split."
        )


def announce_networks(
    options: DistillOptions, loaded: LoadedRecipe, student: LoadedRecipe, context: TrainingContext
) -> None:
    """Set the environment of TensorFlow for all networks of a distillation, which share this process."""
    recipes = [student.recipe, *([loaded.recipe] if options.teacher is None else [])]
    for teacher in options.teacher or ():
        if teacher.run is not None:
            recipes.append(load_recipe(str(runs.find(context.root, teacher.run).lock)).recipe)
        elif teacher.recipe is not None:
            recipes.append(load_recipe(teacher.recipe).recipe)
    for recipe in recipes:
        training.set_environment_variables(recipe, context.cache)
    # Each network has its own compiled functions, each traced once. TensorFlow counts the traces of all of them and
    # warns that one function is retraced too often.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def train_missing_teachers(loaded: LoadedRecipe, context: TrainingContext) -> LoadedRecipe:
    """Replace the teachers in the recipe of a search by trained ones; recipes without a run are trained first.

    They are trained in another process, so that this one can still start TensorFlow without GPUs.

    Raises:
        RunFailed: A teacher could not be trained, or does not fit the student.
    """
    options = students.get_distill_options(loaded)
    require_teachers(options, context.root)
    students.check_student(loaded)
    distillation = distillations.create_distillation(context.root, loaded)
    # TensorFlow may be running here already; its threads do not survive a fork, and the child would hang.
    spawning = multiprocessing.get_context("spawn")
    arguments = (distillation.folder, context.root, context.cache)
    child = spawning.Process(target=_train_teachers_in_process, args=arguments)
    with _hide_working_directory():
        child.start()
    child.join()
    if child.exitcode:
        raise RunFailed("the teacher of the search cannot be used.", suggestion="The reason is printed above.")
    jobs = TrainingJobs(distillation, context)
    teachers = resolve_teachers(options, loaded, students.make_student(loaded), jobs)
    return students.with_teachers(loaded, teachers)


@contextlib.contextmanager
def _hide_working_directory() -> Iterator[None]:
    """Keep a process that is spawned in the body from importing modules of the working directory, as -P does."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _train_teachers_in_process(folder: Path, root: Path, cache: Path) -> None:
    """Train and check the teachers of a distillation; the main function of a spawned process."""
    context = TrainingContext(root, cache, lambda title: LineProgress(write_message), write_message)
    try:
        distillation = Distillation(folder)
        loaded = distillation.load_base()
        options, student = students.get_distill_options(loaded), students.make_student(loaded)
        announce_networks(options, loaded, student, context)
        teachers = resolve_teachers(options, loaded, student, TrainingJobs(distillation, context))
        # Every trial would fail with teachers that do not fit, and learn nothing from bad ones.
        check_teachers(students.make_distilled_student(student, options, teachers, {}), options, context)
    except BmcliError as error:
        write_faults(error)
        sys.exit(error.exit_code)
