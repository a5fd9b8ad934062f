"""`bmcli distill`: distill teachers into a student, beside a baseline without teachers, and report the gain."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bmcli import disk, distillations, records
from bmcli.advice import make_command
from bmcli.distillations import Distillation, DistillationComparison
from bmcli.errors import BmcliError, GateMissed
from bmcli.number_texts import write_signed
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TeacherOptions, TrainedTeacherOptions
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.workflows.learners import TrainedRuns, compare_learners, evaluate_teachers
from bmcli.workflows.reporting import refresh_report
from bmcli.workflows.run_failures import record_end
from bmcli.workflows.teachers import TrainingJobs, announce_networks, require_teachers, resolve_teachers
from bmcli.workflows.training import TrainingContext


@dataclass(frozen=True)
class DistillationResult:
    """A finished distillation with its comparison and its options."""

    distillation: Distillation
    comparison: DistillationComparison
    options: DistillOptions

    def require_gain(self) -> None:
        """Raise GateMissed if the student gained less than the recipe requires."""
        required, gain = self.options.min_gain, self.comparison.gain
        if required is False or gain is None:
            return
        missed = f"gate missed: gain in {self.comparison.on}/{gain.metric} is {write_signed(gain.mean)}"
        if required is True:
            if gain.interval is None:
                raise GateMissed(f"{missed}, without an interval: {gain.method}.")
            low, high = gain.interval
            if low <= 0:
                raise GateMissed(
                    f"{missed}; its interval {write_signed(low)} to {write_signed(high)} does not show a gain."
                )
        elif gain.mean < required:
            raise GateMissed(f"{missed}, expected at least {required:g}.")


def distill(target: str, overrides: Sequence[str], context: TrainingContext) -> DistillationResult:
    """Run the distillation of a recipe in a new folder.

    Raises:
        GateMissed: A teacher is worse than its gate allows.
        Interrupted: A signal came; the distillation can be resumed.
    """
    loaded = load_recipe(target, overrides)
    try:
        students.check_student(loaded)
        _require_one_process(loaded.recipe)
        require_teachers(students.get_distill_options(loaded), context.root)
        return _run_distillation(distillations.create_distillation(context.root, loaded), loaded, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(target: str, context: TrainingContext) -> DistillationResult:
    """Resume an interrupted distillation.

    Args:
        target: Its folder, or the name of its recipe.
    """
    distillation = distillations.find_distillation(context.root, target)
    loaded = distillation.load_base()
    if distillation.result.exists():
        raise BmcliError(
            f"{distillation.display_path} is already completed.", suggestion="Distill the recipe again for a new one."
        )
    return _run_distillation(distillation, loaded, replace(context, root=distillation.root))


def _require_one_process(recipe: Recipe) -> None:
    if recipe.runtime.strategy == "multi_worker":
        raise BmcliError(
            "several networks are trained one after the other, which worker processes cannot share.",
            path="runtime.strategy",
            suggestion="Distill on one machine; then `bmcli train` the student's recipe.lock.yaml with --workers.",
        )


def _run_distillation(distillation: Distillation, loaded: LoadedRecipe, context: TrainingContext) -> DistillationResult:
    start = time.monotonic()
    options, student = students.get_distill_options(loaded), students.make_student(loaded)
    with distillation.acquire_lock(), _record_end(distillation):
        context.log(f"distillation {distillation.display_path}")
        distillation.set_status("running")
        # Before anything imports TensorFlow, which reads these variables at its import.
        announce_networks(options, loaded, student, context)
        jobs = TrainingJobs(distillation, context)
        teachers = resolve_teachers(options, loaded, student, jobs)
        distilled_student = students.make_distilled_student(student, options, teachers, {})
        teacher_evaluation = evaluate_teachers(distilled_student, options, teachers, context)
        seeds = tuple(student.recipe.seed + number for number in range(options.seeds))
        trained_runs = _train_students(jobs, student, options, teachers, seeds)
        comparison = compare_learners(trained_runs, teacher_evaluation, options, loaded, context)
        comparison = replace(comparison, seconds=time.monotonic() - start)
        records.write_record(distillation.result, records.to_json_value(comparison.to_json()))
        from bmcli.reports.distill import render_distillation

        disk.write_atomically(distillation.report, render_distillation(comparison).encode(), disk.PRIVATE_MODE)
        last_generation = trained_runs.students[-1]
        for run in last_generation:
            run.write(run.origin, {"sentences": _describe_origin(distillation, comparison)})
            refresh_report(run, context.cache, context.log)
        distillation.set_status("done", student=last_generation[0].display_path)
        return DistillationResult(distillation, comparison, options)


def _describe_origin(distillation: Distillation, comparison: DistillationComparison) -> list[str]:
    """Describe the distillation of a student in sentences, for the report of its run."""
    teachers = ", ".join(comparison.teacher.runs)
    sentences = [f"A student of the distillation {distillation.display_path} with the teachers {teachers}."]
    gain = comparison.gain
    if gain is not None:
        interval = ""
        if gain.interval:
            low, high = map(write_signed, gain.interval)
            interval = f" (95 % interval {low} to {high})"
        sentences.append(
            f"Over its baseline, the same network without a teacher, it gains {write_signed(gain.mean)} in "
            f"{gain.metric}{interval}, over {len(comparison.seeds)} seeds."
        )
    return [*sentences, f"The report of the distillation is {disk.format_path(distillation.report)}."]


def _record_end(distillation: Distillation) -> contextlib.AbstractContextManager[None]:
    command = make_command("distill", "--resume", distillation.display_path)
    return record_end(distillation, command, "the distillation was interrupted; finished trainings are saved.")


def _train_students(
    jobs: TrainingJobs,
    student: LoadedRecipe,
    options: DistillOptions,
    teachers: Sequence[TrainedTeacherOptions],
    seeds: Sequence[int],
) -> TrainedRuns:
    """Train a baseline and all generations of the student with each seed; one generation is the next one's teacher."""
    baselines, students_by_seed = [], []
    for seed in seeds:
        # A new seed of the training must not also change the splits: the seeds would not be comparable.
        values = {"seed": seed, "data.seed": student.recipe.data_seed} if len(seeds) > 1 else {}
        if options.baseline:
            baseline = students.make_baseline(student, options, values)
            baselines.append(jobs.run_job(f"baseline-seed-{seed}", baseline))
        generations: list[Run] = []
        current_teachers = list(teachers)
        for generation in range(1, options.generations + 1):
            recipe = students.make_distilled_student(student, options, current_teachers, values)
            generations.append(jobs.run_job(f"student-{generation}-seed-{seed}", recipe))
            teacher = TeacherOptions(run=str(generations[-1].folder))
            current_teachers = [distillations.resolve_teacher(teacher, generations[-1])]
        students_by_seed.append(generations)
    # From a list of generations for each seed to a list of seeds for each generation.
    return TrainedRuns(tuple(zip(*students_by_seed, strict=True)), tuple(baselines), tuple(seeds))
