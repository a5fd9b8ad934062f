"""`bmcli distill`: has a student learn from teachers, beside a baseline that does not, and tells what it gained."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, distillations, parts, runs, stopping, training
from bmcli.commands import train as training_command
from bmcli.commands.evaluate import add_device_defaults, refresh_report
from bmcli.commands.train import ReportCallback, TrainingContext, train_recipe
from bmcli.distillations import Distillation, DistillationComparison, DistillationGain, NetworkResult
from bmcli.errors import BmcliError, Fault, GateMissed, Interrupted, RunFailed
from bmcli.messages import write_faults, write_message
from bmcli.quoting import quoted
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TeacherOptions, TrainedTeacherOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.training.progress import LineProgress
from bmcli.workflows import session as sessions
from bmcli.workflows.session import prepare_again

if TYPE_CHECKING:
    import numpy as np

    from bmcli.distillation.teacher_ensemble import TeacherEnsemble
    from bmcli.evaluation.weighted_metrics import WeightedMetrics
    from bmcli.networks.network import Network
    from bmcli.specs import DataSpec, Split

Predictions = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class DistillationResult:
    """A finished distillation, where it is kept, and what it was to reach."""

    distillation: Distillation
    distilled: DistillationComparison
    options: DistillOptions

    def require_gain(self) -> None:
        """Raises GateMissed if the student gained less than the recipe asks for."""
        wanted, found = self.options.require_gain, self.distilled.gain
        if wanted is False or found is None:
            return
        told = f"gate missed: gain in {self.distilled.on}/{found.metric} is {found.mean:+.4g}"
        if wanted is True:
            if found.interval is None:
                raise GateMissed(f"{told}, without an interval: {found.method}.")
            if found.interval[0] <= 0:
                low, high = found.interval
                raise GateMissed(f"{told}; its interval {low:+.4g} to {high:+.4g} does not show a gain.")
        elif found.mean < wanted:
            raise GateMissed(f"{told}, expected at least {wanted:g}.")


def distill(target: str, overrides: Sequence[str], context: TrainingContext) -> DistillationResult:
    """Distills as the recipe says, in a new distillation.

    Raises:
        GateMissed: A teacher is worse than its gate allows.
        Interrupted: A signal came; the distillation can be gone on with.
    """
    loaded = load_recipe(target, overrides)
    try:
        students.check_student(loaded)
        _require_one_process(loaded.recipe)
        options = students.get_distill_options(loaded)
        _require_teachers(options, context.root)
        return _run_distillation(distillations.create_distillation(context.root, loaded), loaded, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(target: str, context: TrainingContext) -> DistillationResult:
    """Goes on with a distillation that was stopped.

    Args:
        target: Its folder, or the name of its recipe.
    """
    found = distillations.find_distillation(context.root, target)
    loaded = found.loaded()
    if found.result.exists():
        raise BmcliError(
            f"{found.display_path} is already completed.", suggestion="Distill the recipe again for a new one."
        )
    return _run_distillation(found, loaded, replace(context, root=found.root))


def _require_one_process(recipe: Recipe) -> None:
    if recipe.runtime.strategy == "multi_worker":
        raise BmcliError(
            "several networks are trained one after the other, which worker processes cannot share.",
            path="runtime.strategy",
            suggestion="Distill on one machine; then `bmcli train` the student's recipe.lock.yaml with --workers.",
        )


def _run_distillation(distillation: Distillation, loaded: LoadedRecipe, context: TrainingContext) -> DistillationResult:
    start = time.monotonic()
    options, learner = students.get_distill_options(loaded), students.make_student(loaded)
    with distillation.acquire_lock(), _record_interruption(distillation):
        context.log(f"distillation {distillation.display_path}")
        distillation.set_status("running")
        _announce_networks(options, loaded, learner, context)
        jobs = _TrainingJobs(distillation, context)
        teachers = _resolve_teachers(options, loaded, learner, jobs)
        taught = students.make_distilled_student(learner, options, teachers, {})
        seen = _evaluate_teachers(taught, options, teachers, context)
        seeds = tuple(learner.recipe.seed + number for number in range(options.seeds))
        found = _train_students(jobs, learner, options, teachers, seeds)
        result = replace(_compare_learners(found, seen, options, loaded, context), seconds=time.monotonic() - start)
        disk.write_record(distillation.result, disk.to_json_value(result.to_json()))
        from bmcli.reports.distill import render_distillation

        disk.write_atomically(distillation.report, render_distillation(result).encode(), disk.PRIVATE_MODE)
        for run in found.students[-1]:
            run.write(run.origin, {"told": _describe_origin(distillation, result)})
            refresh_report(run, context.cache, context.log)
        distillation.set_status("done", student=found.students[-1][0].display_path)
        return DistillationResult(distillation, result, options)


def _describe_origin(distillation: Distillation, result: DistillationComparison) -> list[str]:
    """Where a student's run comes from, for its report."""
    told = [f"A student of the distillation {distillation.display_path}, taught by {', '.join(result.teacher.runs)}."]
    if result.gain is not None:
        gain, bounds = result.gain, result.gain.interval
        around = f" (95 % interval {bounds[0]:+.4f} to {bounds[1]:+.4f})" if bounds else ""
        told.append(
            f"Over its baseline, the same network without a teacher, it gains {gain.mean:+.4f} in {gain.metric}"
            f"{around}, over {len(result.seeds)} seeds."
        )
    return [*told, f"The whole distillation is shown in {disk.format_path(distillation.report)}."]


def _announce_networks(
    options: DistillOptions, loaded: LoadedRecipe, learner: LoadedRecipe, context: TrainingContext
) -> None:
    """Tells TensorFlow how to start for all networks together, in whichever order they come."""
    recipes = [learner.recipe, *([loaded.recipe] if options.teacher is None else [])]
    for each in options.teacher or ():
        if each.run is not None:
            recipes.append(load_recipe(str(runs.find(context.root, each.run).lock)).recipe)
        elif each.recipe is not None:
            recipes.append(load_recipe(each.recipe).recipe)
    for recipe in recipes:
        training.set_environment_variables(recipe, context.cache)
    # Many networks in one process are many functions, each traced once, which TensorFlow takes for one traced often.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _record_interruption(distillation: Distillation) -> Iterator[None]:
    """Writes down how a distillation ended that did not come to its end."""
    how = stopping.format_resume_advice(f"bmcli distill --resume {distillation.display_path}")
    try:
        with stopping.resumable(lambda: how, lambda sentence: distillation.set_status("interrupted")):
            yield
    except Interrupted:
        with contextlib.suppress(OSError):
            distillation.set_status("interrupted")
        raise Interrupted("the distillation was interrupted; what was trained is saved.", suggestion=how) from None
    except Exception as error:
        with contextlib.suppress(OSError):
            distillation.set_status("failed", reason=str(error))
        raise


class _TrainingJobs:
    """The trainings of a distillation, each of which is done once."""

    def __init__(self, distillation: Distillation, context: TrainingContext) -> None:
        self._distillation, self.context = distillation, context

    def run_job(self, job: str, make: Callable[[], LoadedRecipe]) -> Run:
        """The run of a job: what is there of it is gone on with."""
        run = self._distillation.jobs().get(job)
        if run is not None and run.status().get("state") == "done" and run.model.exists():
            return run
        self.context.log(f"{job}:")
        if run is not None and any(run.checkpoints.glob("step-*")):
            training_command.resume(str(run.folder), (), self.context)
            return run
        if run is not None and not run.model.exists():
            runs.discard(run)  # nothing was trained
        loaded = make()
        run = runs.create(self.context.root, loaded.recipe.name)
        self._distillation.begin(job, run)
        train_recipe(loaded, replace(self.context, run_folder=run.folder))
        return run


# Teachers.


def _require_teachers(options: DistillOptions, root: Path) -> None:
    """Refuses teachers that are not there, before anything is trained."""
    faults: list[Fault] = []
    for place, each in enumerate(options.teacher or ()):
        try:
            _require_teacher(each, root)
        except BmcliError as error:
            path = "distill.teacher" + (f".{place}" if len(options.teacher or ()) > 1 else "")
            faults += [replace(fault, path=path) if fault.place is None else fault for fault in error.faults]
    if faults:
        raise BmcliError(*faults)


def _require_teacher(teacher: TeacherOptions, root: Path) -> None:
    if teacher.run is not None:
        runs.find(root, teacher.run).kept_model()
    if teacher.recipe is not None:
        load_recipe(teacher.recipe)
    if teacher.file is not None:
        distillations.require_file(Path(teacher.file))


def _resolve_teachers(
    options: DistillOptions, loaded: LoadedRecipe, learner: LoadedRecipe, jobs: _TrainingJobs
) -> list[TrainedTeacherOptions]:
    """All teachers, those that are recipes without a run trained first."""
    found = []
    for place, each in enumerate(options.teacher or (None,)):
        run = _find_or_train_teacher(each, f"teacher-{place + 1}", loaded, jobs)
        _warn_of_leaks(run, learner.recipe, jobs.context.log)
        found.append(distillations.resolve_teacher(each or TeacherOptions(recipe=loaded.recipe.name), run))
    return found


def _find_or_train_teacher(
    teacher: TeacherOptions | None, job: str, loaded: LoadedRecipe, jobs: _TrainingJobs
) -> Run | None:
    """The run of a teacher; None if it is a file."""
    root = jobs.context.root
    if teacher is not None and teacher.file is not None:
        return None
    if teacher is not None and teacher.run is not None:
        return runs.find(root, teacher.run)
    wanted = (
        load_recipe(teacher.recipe) if teacher is not None and teacher.recipe else students.make_own_teacher(loaded)
    )
    for run in reversed([each for each in runs.list_runs(root) if each.name == wanted.recipe.name]):
        if run.model.exists() and run.status().get("state") == "done" and _was_trained_by(run, wanted.recipe):
            jobs.context.log(f"teacher: {run.display_path}")
            return run
    return jobs.run_job(job, lambda: wanted)


def _was_trained_by(run: Run, recipe: Recipe) -> bool:
    """Whether a run was trained by a recipe; what it runs on is no matter."""
    try:
        run.require_lock()
        found = load_recipe(str(run.lock)).recipe
    except BmcliError:
        return False
    asked, became = (dump(each.for_training().with_default_objectives()) for each in (recipe, found))
    apart = ("runtime", "evaluate", "vars")
    return _matches({k: v for k, v in asked.items() if k not in apart}, became)


def _matches(requested: Any, resolved: Any) -> bool:
    """Whether a value is what was asked for; what was left open may have become anything."""
    if requested is None or requested == "auto":
        return True
    if isinstance(requested, dict) and isinstance(resolved, dict):
        return all(_matches(value, resolved.get(name)) for name, value in requested.items())
    if isinstance(requested, (list, tuple)) and isinstance(resolved, (list, tuple)):
        return len(requested) == len(resolved) and all(map(_matches, requested, resolved))
    return bool(requested == resolved)


def _warn_of_leaks(run: Run | None, recipe: Recipe, log: ReportCallback) -> None:
    """Tells of a teacher that may have been trained on the rows that the student is tested on."""
    if run is None:
        return
    its = load_recipe(str(run.lock)).recipe
    same = read_data_spec(run).fingerprint == recipe.data.source.fingerprint()  # type: ignore[attr-defined]
    alike = its.data_seed == recipe.data_seed and _matches(dump(recipe.data.split), dump(its.data.split))
    if same and not alike:
        log(
            f"warning: {run.display_path} was trained on another split of the same data, so that it "
            "may know the rows that "
            "the student is tested on. Give both one data.seed and data.split."
        )


@dataclass(frozen=True)
class _TeacherEvaluation:
    """What was found of the teachers before the first step.

    Args:
        predictions: On the rows that everything is measured on, by target.
        truth: Of these rows.
    """

    learner: NetworkResult
    predictions: Predictions
    truth: Predictions
    asked: str


def _evaluate_teachers(
    taught: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], context: TrainingContext
) -> _TeacherEvaluation:
    """Measures the teachers as one, and stops a bad one."""
    from bmcli.evaluation.agreement import compute_reliability

    recipe = taught.recipe
    session = sessions.start_session(taught, context.cache)
    _check_metrics(options, recipe, session.prepared.spec)
    from bmcli.distillation.teacher_ensemble import TeacherEnsemble  # after the start, which keeps TensorFlow quiet

    assert recipe.taught is not None, "it was made for teachers"
    school = TeacherEnsemble.load_teachers(recipe, recipe.taught, session.prepared, session.placement, context.cache)
    spec, on = session.prepared.spec, recipe.evaluate.split
    gate_on = "validation" if spec.counts.get("validation") else on
    network = _build_network(recipe, spec, session.prepared.split("train"), session.placement)
    _check_teacher_gate(
        options, recipe, spec, gate_on, *_predict_with_teachers(school, network, spec, gate_on), context.log
    )
    truth, predictions = _predict_with_teachers(school, network, spec, on)
    metrics = _compute_metrics(recipe, spec, truth, predictions)
    runs_of = tuple(disk.format_path(Path(each.run or each.model)) for each in teachers)
    assert school.predictor is not None, "there are teachers"
    models = [teacher.model for teacher in school.predictor.teachers]
    learner = NetworkResult(
        "teacher",
        runs_of,
        metrics,
        (metrics,),
        sum(model.count_params() for model in models),
        sum(map(_count_bytes, models)),
        _measure_teacher_latency(school, network, session.prepared.split(on)),
        compute_reliability(truth, predictions, spec.targets),
        _compute_confusion(recipe, spec, truth, predictions),
    )
    return _TeacherEvaluation(learner, predictions, truth, school.note)


def _build_network(recipe: Recipe, spec: DataSpec, rows: Split, placement: Any) -> Network:
    """A network of the recipe, whose objectives turn outputs into predictions."""
    return training.build_network(recipe, spec, rows.targets, placement)


def _predict_with_teachers(
    school: TeacherEnsemble, network: Network, spec: DataSpec, split: str
) -> tuple[Predictions, Predictions]:
    """The truth of a split, and what the teachers predict together, by target."""
    import numpy as np

    found = network.predict(school.predict_outputs(split))
    rows = school.prepared.split(split)
    return _decode_targets(spec, rows), {name: np.asarray(values) for name, values in found.items()}


def _decode_targets(spec: DataSpec, rows: Split) -> Predictions:
    from bmcli.data import targets as target_kinds

    return {c.name: target_kinds.kind_of(c).decode(rows.targets[c.name], c) for c in spec.targets}


def _compute_metrics(recipe: Recipe, spec: DataSpec, truth: Predictions, predictions: Predictions) -> dict[str, float]:
    from bmcli.evaluation.metrics import measure

    return dict(measure(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles()).metrics)


def _compute_confusion(recipe: Recipe, spec: DataSpec, truth: Predictions, predictions: Predictions) -> Any:
    from bmcli.evaluation.metrics import measure

    return measure(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles()).confusion


def _check_metrics(options: DistillOptions, recipe: Recipe, spec: DataSpec) -> None:
    """Refuses gates and a metric that the evaluation will not have, and a split without rows."""
    from bmcli.evaluation.directions import get_direction
    from bmcli.evaluation.metrics import metric_names

    on = recipe.evaluate.split
    if not spec.counts.get(on):
        raise BmcliError(
            f"there are no {on} rows to compare student and baseline on.", path="evaluate.split",
            suggestion=f"Give data.split a share for {on}, or name another split.",
        )  # fmt: skip
    names = metric_names(spec.targets, recipe.evaluate.top_k, recipe.quantiles())
    faults = [
        Fault(f"no metric {quoted(name)} for these targets.", f"distill.teacher_gate.{name}",
              suggestion=parts.did_you_mean(name, names))
        for name in options.teacher_gate if name not in names
    ]  # fmt: skip
    if options.metric != "auto" and (options.metric not in names or not get_direction(options.metric)):
        why = "neither more nor less is better of" if options.metric in names else "no metric"
        faults.append(Fault(f"{why} {quoted(options.metric)}.", "distill.metric",
                            suggestion=parts.did_you_mean(options.metric, names)))  # fmt: skip
    if faults:
        raise BmcliError(*faults)


def _check_teacher_gate(
    options: DistillOptions, recipe: Recipe, spec: DataSpec, split: str, truth: Predictions, predictions: Predictions,
    log: ReportCallback,
) -> None:  # fmt: skip
    """Tells how good the teacher is, and how well its probabilities are calibrated; stops one that misses a gate."""
    from bmcli.evaluation.agreement import compute_reliability
    from bmcli.evaluation.gates import find_missed_gates

    metrics = _compute_metrics(recipe, spec, truth, predictions)
    first = ", ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:1])
    errors = [each.error for each in compute_reliability(truth, predictions, spec.targets).values()]
    calibrated = "".join(f", calibration error {error:.3g}" for error in errors)
    log(f"teacher on {len(next(iter(truth.values()))):,} {split} rows: {first}{calibrated}")
    found = find_missed_gates(options.teacher_gate, metrics)
    if found:
        raise GateMissed(
            *(f"the teacher missed its gate: {split}/{each}." for each in found),
            suggestion="Train a better teacher, or lower distill.teacher_gate.",
        )


def train_missing_teachers(loaded: LoadedRecipe, context: TrainingContext) -> LoadedRecipe:
    """The same recipe with its teachers as runs, for a search; those without a run are trained first.

    They are trained in a process of their own, so that this one is free to start TensorFlow otherwise.
    """
    options = students.get_distill_options(loaded)
    _require_teachers(options, context.root)
    students.check_student(loaded)
    kept = distillations.create_distillation(context.root, loaded)
    # Not a fork: TensorFlow may be running here already, and would never answer there.
    spawned = multiprocessing.get_context("spawn")
    child = spawned.Process(target=_train_teachers_in_process, args=(kept.folder, context.root, context.cache))
    child.start()
    child.join()
    if child.exitcode:
        raise RunFailed("the teacher of the search could not be trained.", suggestion="What it said is above.")
    found = _resolve_teachers(options, loaded, students.make_student(loaded), _TrainingJobs(kept, context))
    return students.with_teachers(loaded, found)


def _train_teachers_in_process(folder: Path, root: Path, cache: Path) -> None:
    """Trains the teachers of a distillation, in a process of its own."""
    setting = TrainingContext(root, cache, lambda title: LineProgress(write_message), write_message)
    try:
        kept = Distillation(folder)
        loaded = kept.loaded()
        options, learner = students.get_distill_options(loaded), students.make_student(loaded)
        _announce_networks(options, loaded, learner, setting)
        _resolve_teachers(options, loaded, learner, _TrainingJobs(kept, setting))
    except BmcliError as error:
        write_faults(error)
        sys.exit(error.exit_code)


# Students and baselines.


@dataclass(frozen=True)
class _TrainedRuns:
    """Every run that was trained: of each generation and of the baseline, one a seed."""

    students: tuple[tuple[Run, ...], ...]
    baselines: tuple[Run, ...]
    seeds: tuple[int, ...]


def _train_students(
    jobs: _TrainingJobs,
    learner: LoadedRecipe,
    options: DistillOptions,
    teachers: Sequence[TrainedTeacherOptions],
    seeds: tuple[int, ...],
) -> _TrainedRuns:
    baselines, chains = [], []
    for seed in seeds:
        # The rows stay where they are.
        values = {"seed": seed, "data.seed": learner.recipe.data_seed} if len(seeds) > 1 else {}
        if options.baseline:
            baselines.append(jobs.run_job(f"baseline-seed-{seed}", _make_baseline_recipe(learner, options, values)))
        chain: list[Run] = []
        by = list(teachers)
        for generation in range(1, options.generations + 1):
            job = f"student-{generation}-seed-{seed}"
            chain.append(jobs.run_job(job, _make_student_recipe(learner, options, by, values)))
            by = [distillations.resolve_teacher(TeacherOptions(run=str(chain[-1].folder)), chain[-1])]
        chains.append(chain)
    return _TrainedRuns(tuple(zip(*chains, strict=True)), tuple(baselines), seeds)


def _make_student_recipe(
    learner: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], values: Mapping[str, Any]
) -> Callable[[], LoadedRecipe]:
    return lambda: students.make_distilled_student(learner, options, teachers, values)


def _make_baseline_recipe(
    learner: LoadedRecipe, options: DistillOptions, values: Mapping[str, Any]
) -> Callable[[], LoadedRecipe]:
    return lambda: students.make_baseline(learner, options, values)


# The comparison.


@dataclass(frozen=True)
class _EvaluatedLearner:
    """A network that was trained with some seeds, measured."""

    learner: NetworkResult
    figures: tuple[WeightedMetrics, ...]
    predictions: Predictions  # of the first seed


def _evaluate_learner(name: str, trained_runs: Sequence[Run], context: TrainingContext) -> _EvaluatedLearner:
    from bmcli.evaluation.agreement import compute_reliability
    from bmcli.evaluation.metrics import make_weighted_metrics
    from bmcli.training.predictor import measure_latency_s, predict

    figures, by_seed, first = [], [], None
    for run in trained_runs:
        recipe = load_recipe(str(run.lock), add_device_defaults(())).recipe
        spec = read_data_spec(run)
        prepared = prepare_again(recipe, spec, context.cache)
        rows, placement = prepared.split(recipe.evaluate.split), training.place_on_devices(recipe, context.cache)
        network = training.load_trained_network(recipe, spec, rows.targets, run.model, placement)
        predictions, truth = predict(network, rows, recipe.runtime, placement), _decode_targets(spec, rows)
        by_seed.append(_compute_metrics(recipe, spec, truth, predictions))
        figures.append(
            make_weighted_metrics(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles())
        )
        if first is None:
            model = network.model
            first = (
                predictions,
                model.count_params(),
                _count_bytes(model),
                measure_latency_s(network, rows),
                compute_reliability(truth, predictions, spec.targets),
                _compute_confusion(recipe, spec, truth, predictions),
            )
    assert first is not None, "there is a seed at least"
    metrics = _average_metrics(by_seed)
    shown = tuple(run.display_path for run in trained_runs)
    return _EvaluatedLearner(NetworkResult(name, shown, metrics, tuple(by_seed), *first[1:]), tuple(figures), first[0])


def _average_metrics(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that every seed has."""
    names = [name for name in by_seed[0] if all(name in each for each in by_seed)]
    return {name: sum(each[name] for each in by_seed) / len(by_seed) for name in names}


def _count_bytes(model: Any) -> int:
    return sum(weight.numpy().nbytes for weight in model.weights)


def _measure_teacher_latency(school: TeacherEnsemble, network: Network, rows: Split) -> float | None:
    """Median seconds in which all teachers predict one example; None if they read other columns or raw rows."""
    from bmcli.networks.network import Network
    from bmcli.training.predictor import measure_latency_s

    assert school.predictor is not None, "there are teachers"
    teachers = school.predictor.teachers
    if not all(teacher.accepts_inputs_of(school.prepared.spec) for teacher in teachers):
        return None
    return sum(measure_latency_s(Network(teacher.model, network.objectives), rows) for teacher in teachers)


def _compare_learners(
    trained_runs: _TrainedRuns,
    teachers: _TeacherEvaluation,
    options: DistillOptions,
    loaded: LoadedRecipe,
    context: TrainingContext,
) -> DistillationComparison:
    from bmcli.evaluation.agreement import compute_agreement_by_class, compute_gain
    from bmcli.evaluation.directions import get_direction

    generations = [_evaluate_learner("student", each, context) for each in trained_runs.students]
    student = generations[-1]
    baseline = _evaluate_learner("baseline", trained_runs.baselines, context) if trained_runs.baselines else None
    last = trained_runs.students[-1][0]
    recipe, spec = load_recipe(str(last.lock)).recipe, read_data_spec(last)
    rows = len(next(iter(teachers.truth.values())))
    metric = options.metric
    if metric == "auto":
        metric = next(name for name in student.learner.metrics if get_direction(name))
    gained: DistillationGain | None = None
    if baseline is not None:
        gained = compute_gain(
            metric, teachers.learner, baseline.learner, student.learner, rows, (baseline.figures, student.figures)
        )  # fmt: skip
    single = [column for column in spec.targets if column.kind == "category"]
    agreement = {
        column.name: compute_agreement_by_class(
            teachers.truth[column.name], teachers.predictions[column.name], student.predictions[column.name],
            baseline.predictions[column.name] if baseline else None, column.classes,
        )
        for column in single
    }  # fmt: skip
    curves = last.rows()
    losses = _list_loss_names(curves[0]) if curves else []
    return DistillationComparison(
        name=loaded.recipe.name,
        on=recipe.evaluate.split,
        rows=rows,
        seeds=trained_runs.seeds,
        teacher=teachers.learner,
        baseline=baseline.learner if baseline else None,
        students=tuple(each.learner for each in generations),
        gain=gained,
        agreement=agreement,
        classes={column.name: column.classes for column in single},
        curves=tuple({name: row.get(name) for name in losses} for row in curves),
        asked=teachers.asked,
        seconds=0.0,
    )


def _list_loss_names(row: Mapping[str, Any]) -> list[str]:
    """The losses that a student's epochs tell apart, the whole one and that of validation rows first."""
    terms = [name for name in row if name.startswith("train/") and name.endswith("_loss")]
    return [name for name in ("train/loss", "validation/loss", *terms) if name in row]
