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
from bmcli.commands.evaluate import bring_up_to_date, elsewhere
from bmcli.commands.train import Setting, Told, train_loaded
from bmcli.console import Console
from bmcli.distillations import Distillation, Distilled, Gain, Learner
from bmcli.errors import BmcliError, Fault, GateMissed, Interrupted, RunFailed
from bmcli.quoting import quoted
from bmcli.recipe import students
from bmcli.recipe.distill import DistillOptions, TaughtBy, TeacherOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.load import Loaded, load
from bmcli.recipe.schema import Recipe
from bmcli.run_data import data_of
from bmcli.runs import Run
from bmcli.workflows import session as sessions
from bmcli.workflows.session import prepared_again

if TYPE_CHECKING:
    import numpy as np

    from bmcli.distillation.teacher_ensemble import School
    from bmcli.evaluation.weighted_metrics import Weighted
    from bmcli.networks.network import Network
    from bmcli.specs import DataSpec, Split

Predictions = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Finished:
    """A finished distillation, where it is kept, and what it was to reach."""

    kept: Distillation
    distilled: Distilled
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


def distill(target: str, overrides: Sequence[str], setting: Setting) -> Finished:
    """Distills as the recipe says, in a new distillation.

    Raises:
        GateMissed: A teacher is worse than its gate allows.
        Interrupted: A signal came; the distillation can be gone on with.
    """
    loaded = load(target, overrides)
    try:
        students.check(loaded)
        _require_one_process(loaded.recipe)
        options = students.options_of(loaded)
        _find_all(options, setting.root)
        return _distill(distillations.create(setting.root, loaded), loaded, setting)
    except BmcliError as error:
        raise loaded.locate(error) from None


def resume(text: str, setting: Setting) -> Finished:
    """Goes on with a distillation that was stopped.

    Args:
        text: Its folder, or the name of its recipe.
    """
    found = distillations.find(setting.root, text)
    loaded = found.loaded()
    if found.result.exists():
        raise BmcliError(f"{found.shown} is finished.", suggestion="Distill the recipe again for another.")
    return _distill(found, loaded, replace(setting, root=found.root))


def _require_one_process(recipe: Recipe) -> None:
    if recipe.runtime.strategy == "multi_worker":
        raise BmcliError(
            "several networks are trained one after the other, which worker processes cannot share.",
            path="runtime.strategy",
            suggestion="Distill on one machine; then `bmcli train` the student's recipe.lock.yaml with --workers.",
        )


def _distill(distillation: Distillation, loaded: Loaded, setting: Setting) -> Finished:
    start = time.monotonic()
    options, learner = students.options_of(loaded), students.student(loaded)
    with distillation.hold(), _told_how_to_go_on(distillation):
        setting.told(f"distillation {distillation.shown}")
        distillation.set_status("running")
        _announce(options, loaded, learner, setting)
        jobs = _Jobs(distillation, setting)
        teachers = _teachers(options, loaded, learner, jobs)
        taught = students.taught(learner, options, teachers, {})
        seen = _examined(taught, options, teachers, setting)
        seeds = tuple(learner.recipe.seed + number for number in range(options.seeds))
        found = _trained(jobs, learner, options, teachers, seeds)
        result = replace(_compared(found, seen, options, loaded, setting), seconds=time.monotonic() - start)
        disk.write_record(distillation.result, disk.plain(result.to_json()))
        from bmcli.reports.distill import report

        disk.write_atomically(distillation.report, report(result).encode(), disk.PRIVATE)
        for run in found.students[-1]:
            run.write(run.origin, {"told": _origin(distillation, result)})
            bring_up_to_date(run, setting.cache, setting.told)
        distillation.set_status("done", student=found.students[-1][0].shown)
        return Finished(distillation, result, options)


def _origin(distillation: Distillation, result: Distilled) -> list[str]:
    """Where a student's run comes from, for its report."""
    told = [f"A student of the distillation {distillation.shown}, taught by {', '.join(result.teacher.runs)}."]
    if result.gain is not None:
        gain, bounds = result.gain, result.gain.interval
        around = f" (95 % interval {bounds[0]:+.4f} to {bounds[1]:+.4f})" if bounds else ""
        told.append(
            f"Over its baseline, the same network without a teacher, it gains {gain.mean:+.4f} in {gain.metric}"
            f"{around}, over {len(result.seeds)} seeds."
        )
    return [*told, f"The whole distillation is shown in {disk.shown_path(distillation.report)}."]


def _announce(options: DistillOptions, loaded: Loaded, learner: Loaded, setting: Setting) -> None:
    """Tells TensorFlow how to start for all networks together, in whichever order they come."""
    recipes = [learner.recipe, *([loaded.recipe] if options.teacher is None else [])]
    for each in options.teacher or ():
        if each.run is not None:
            recipes.append(load(str(runs.find(setting.root, each.run).lock)).recipe)
        elif each.recipe is not None:
            recipes.append(load(each.recipe).recipe)
    for recipe in recipes:
        training.announce(recipe, setting.cache)
    # Many networks in one process are many functions, each traced once, which TensorFlow takes for one traced often.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _told_how_to_go_on(distillation: Distillation) -> Iterator[None]:
    """Writes down how a distillation ended that did not come to its end."""
    how = stopping.going_on(f"bmcli distill --resume {distillation.shown}")
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


class _Jobs:
    """The trainings of a distillation, each of which is done once."""

    def __init__(self, distillation: Distillation, setting: Setting) -> None:
        self._distillation, self.setting = distillation, setting

    def done(self, job: str, make: Callable[[], Loaded]) -> Run:
        """The run of a job: what is there of it is gone on with."""
        run = self._distillation.jobs().get(job)
        if run is not None and run.status().get("state") == "done" and run.model.exists():
            return run
        self.setting.told(f"{job}:")
        if run is not None and any(run.checkpoints.glob("step-*")):
            training_command.resume(str(run.folder), (), self.setting)
            return run
        if run is not None and not run.model.exists():
            runs.discard(run)  # nothing was trained
        loaded = make()
        run = runs.create(self.setting.root, loaded.recipe.name)
        self._distillation.begin(job, run)
        train_loaded(loaded, replace(self.setting, into=run.folder))
        return run


# Teachers.


def _find_all(options: DistillOptions, root: Path) -> None:
    """Refuses teachers that are not there, before anything is trained."""
    faults: list[Fault] = []
    for place, each in enumerate(options.teacher or ()):
        try:
            _refuse_missing(each, root)
        except BmcliError as error:
            path = "distill.teacher" + (f".{place}" if len(options.teacher or ()) > 1 else "")
            faults += [replace(fault, path=path) if fault.place is None else fault for fault in error.faults]
    if faults:
        raise BmcliError(*faults)


def _refuse_missing(teacher: TeacherOptions, root: Path) -> None:
    if teacher.run is not None:
        runs.find(root, teacher.run).kept_model()
    if teacher.recipe is not None:
        load(teacher.recipe)
    if teacher.file is not None:
        distillations.require_file(Path(teacher.file))


def _teachers(options: DistillOptions, loaded: Loaded, learner: Loaded, jobs: _Jobs) -> list[TaughtBy]:
    """All teachers, those that are recipes without a run trained first."""
    found = []
    for place, each in enumerate(options.teacher or (None,)):
        run = _run_of(each, f"teacher-{place + 1}", loaded, jobs)
        _warn_of_leaks(run, learner.recipe, jobs.setting.told)
        found.append(distillations.taught_by(each or TeacherOptions(recipe=loaded.recipe.name), run))
    return found


def _run_of(teacher: TeacherOptions | None, job: str, loaded: Loaded, jobs: _Jobs) -> Run | None:
    """The run of a teacher; None if it is a file."""
    root = jobs.setting.root
    if teacher is not None and teacher.file is not None:
        return None
    if teacher is not None and teacher.run is not None:
        return runs.find(root, teacher.run)
    wanted = load(teacher.recipe) if teacher is not None and teacher.recipe else students.itself(loaded)
    for run in reversed([each for each in runs.every(root) if each.name == wanted.recipe.name]):
        if run.model.exists() and run.status().get("state") == "done" and _is_of(run, wanted.recipe):
            jobs.setting.told(f"teacher: {run.shown}")
            return run
    return jobs.done(job, lambda: wanted)


def _is_of(run: Run, recipe: Recipe) -> bool:
    """Whether a run was trained by a recipe; what it runs on is no matter."""
    try:
        run.require_lock()
        found = load(str(run.lock)).recipe
    except BmcliError:
        return False
    asked, became = (dump(each.of_training().spelled_out()) for each in (recipe, found))
    apart = ("runtime", "evaluate", "vars")
    return _fits({k: v for k, v in asked.items() if k not in apart}, became)


def _fits(asked: Any, became: Any) -> bool:
    """Whether a value is what was asked for; what was left open may have become anything."""
    if asked is None or asked == "auto":
        return True
    if isinstance(asked, dict) and isinstance(became, dict):
        return all(_fits(value, became.get(name)) for name, value in asked.items())
    if isinstance(asked, (list, tuple)) and isinstance(became, (list, tuple)):
        return len(asked) == len(became) and all(map(_fits, asked, became))
    return bool(asked == became)


def _warn_of_leaks(run: Run | None, recipe: Recipe, told: Told) -> None:
    """Tells of a teacher that may have been trained on the rows that the student is tested on."""
    if run is None:
        return
    its = load(str(run.lock)).recipe
    same = data_of(run).fingerprint == recipe.data.source.fingerprint()  # type: ignore[attr-defined]
    alike = its.data_seed == recipe.data_seed and _fits(dump(recipe.data.split), dump(its.data.split))
    if same and not alike:
        told(
            f"warning: {run.shown} was trained on another split of the same data, so that it may know the rows that "
            "the student is tested on. Give both one data.seed and data.split."
        )


@dataclass(frozen=True)
class _Seen:
    """What was found of the teachers before the first step.

    Args:
        predictions: On the rows that everything is measured on, by target.
        truth: Of these rows.
    """

    learner: Learner
    predictions: Predictions
    truth: Predictions
    asked: str


def _examined(taught: Loaded, options: DistillOptions, teachers: Sequence[TaughtBy], setting: Setting) -> _Seen:
    """Measures the teachers as one, and stops a bad one."""
    from bmcli.evaluation.agreement import reliabilities

    recipe = taught.recipe
    session = sessions.begin(taught, setting.cache)
    _check_metrics(options, recipe, session.prepared.spec)
    from bmcli.distillation.teacher_ensemble import School  # after the start, which keeps TensorFlow quiet

    assert recipe.taught is not None, "it was made for teachers"
    school = School.opened(recipe, recipe.taught, session.prepared, session.placement, setting.cache)
    spec, on = session.prepared.spec, recipe.evaluate.split
    gate_on = "validation" if spec.counts.get("validation") else on
    network = _network(recipe, spec, session.prepared.split("train"), session.placement)
    _pass_gate(options, recipe, spec, gate_on, *_told_of(school, network, spec, gate_on), setting.told)
    truth, predictions = _told_of(school, network, spec, on)
    metrics = _measured(recipe, spec, truth, predictions)
    runs_of = tuple(disk.shown_path(Path(each.run or each.model)) for each in teachers)
    assert school.asking is not None, "there are teachers"
    models = [teacher.model for teacher in school.asking.teachers]
    learner = Learner(
        "teacher", runs_of, metrics, (metrics,), sum(model.count_params() for model in models), sum(map(_size, models)),
        _latency_of_teachers(school, network, session.prepared.split(on)),
        reliabilities(truth, predictions, spec.targets),
        _confusion(recipe, spec, truth, predictions),
    )  # fmt: skip
    return _Seen(learner, predictions, truth, school.words)


def _network(recipe: Recipe, spec: DataSpec, rows: Split, placement: Any) -> Network:
    """A network of the recipe, whose objectives turn outputs into predictions."""
    return training.built(recipe, spec, rows.targets, placement)


def _told_of(school: School, network: Network, spec: DataSpec, split: str) -> tuple[Predictions, Predictions]:
    """The truth of a split, and what the teachers predict together, by target."""
    import numpy as np

    found = network.predict(school.outputs(split))
    rows = school.prepared.split(split)
    return _truth(spec, rows), {name: np.asarray(values) for name, values in found.items()}


def _truth(spec: DataSpec, rows: Split) -> Predictions:
    from bmcli.data import targets as target_kinds

    return {c.name: target_kinds.kind_of(c).decode(rows.targets[c.name], c) for c in spec.targets}


def _measured(recipe: Recipe, spec: DataSpec, truth: Predictions, predictions: Predictions) -> dict[str, float]:
    from bmcli.evaluation.metrics import measure

    return dict(measure(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles()).metrics)


def _confusion(recipe: Recipe, spec: DataSpec, truth: Predictions, predictions: Predictions) -> Any:
    from bmcli.evaluation.metrics import measure

    return measure(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles()).confusion


def _check_metrics(options: DistillOptions, recipe: Recipe, spec: DataSpec) -> None:
    """Refuses gates and a metric that the evaluation will not have, and a split without rows."""
    from bmcli.evaluation.directions import direction
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
    if options.metric != "auto" and (options.metric not in names or not direction(options.metric)):
        why = "neither more nor less is better of" if options.metric in names else "no metric"
        faults.append(Fault(f"{why} {quoted(options.metric)}.", "distill.metric",
                            suggestion=parts.did_you_mean(options.metric, names)))  # fmt: skip
    if faults:
        raise BmcliError(*faults)


def _pass_gate(
    options: DistillOptions, recipe: Recipe, spec: DataSpec, on: str, truth: Predictions, predictions: Predictions,
    told: Told,
) -> None:  # fmt: skip
    """Tells how good the teacher is, and how well its probabilities are calibrated; stops one that misses a gate."""
    from bmcli.evaluation.agreement import reliabilities
    from bmcli.evaluation.gates import missed

    metrics = _measured(recipe, spec, truth, predictions)
    first = ", ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:1])
    errors = [each.error for each in reliabilities(truth, predictions, spec.targets).values()]
    calibrated = "".join(f", calibration error {error:.3g}" for error in errors)
    told(f"teacher on {len(next(iter(truth.values()))):,} {on} rows: {first}{calibrated}")
    found = missed(options.teacher_gate, metrics)
    if found:
        raise GateMissed(
            *(f"the teacher missed its gate: {on}/{each}." for each in found),
            suggestion="Train a better teacher, or lower distill.teacher_gate.",
        )


def with_trained_teachers(loaded: Loaded, setting: Setting) -> Loaded:
    """The same recipe with its teachers as runs, for a search; those without a run are trained first.

    They are trained in a process of their own, so that this one is free to start TensorFlow otherwise.
    """
    options = students.options_of(loaded)
    _find_all(options, setting.root)
    students.check(loaded)
    kept = distillations.create(setting.root, loaded)
    # Not a fork: TensorFlow may be running here already, and would never answer there.
    spawned = multiprocessing.get_context("spawn")
    child = spawned.Process(target=_train_teachers, args=(kept.folder, setting.root, setting.cache))
    child.start()
    child.join()
    if child.exitcode:
        raise RunFailed("the teacher of the search could not be trained.", suggestion="What it said is above.")
    found = _teachers(options, loaded, students.student(loaded), _Jobs(kept, setting))
    return students.with_teachers(loaded, found)


def _train_teachers(folder: Path, root: Path, cache: Path) -> None:
    """Trains the teachers of a distillation, in a process of its own."""
    console = Console()
    setting = Setting(root, cache, console.watcher, console.say)
    try:
        kept = Distillation(folder)
        loaded = kept.loaded()
        options, learner = students.options_of(loaded), students.student(loaded)
        _announce(options, loaded, learner, setting)
        _teachers(options, loaded, learner, _Jobs(kept, setting))
    except BmcliError as error:
        console.faults(error)
        sys.exit(error.exit_code)


# Students and baselines.


@dataclass(frozen=True)
class _Runs:
    """Every run that was trained: of each generation and of the baseline, one a seed."""

    students: tuple[tuple[Run, ...], ...]
    baselines: tuple[Run, ...]
    seeds: tuple[int, ...]


def _trained(
    jobs: _Jobs, learner: Loaded, options: DistillOptions, teachers: Sequence[TaughtBy], seeds: tuple[int, ...]
) -> _Runs:
    baselines, chains = [], []
    for seed in seeds:
        # The rows stay where they are.
        values = {"seed": seed, "data.seed": learner.recipe.data_seed} if len(seeds) > 1 else {}
        if options.baseline:
            baselines.append(jobs.done(f"baseline-seed-{seed}", _baseline(learner, options, values)))
        chain: list[Run] = []
        by = list(teachers)
        for generation in range(1, options.generations + 1):
            job = f"student-{generation}-seed-{seed}"
            chain.append(jobs.done(job, _student(learner, options, by, values)))
            by = [distillations.taught_by(TeacherOptions(run=str(chain[-1].folder)), chain[-1])]
        chains.append(chain)
    return _Runs(tuple(zip(*chains, strict=True)), tuple(baselines), seeds)


def _student(
    learner: Loaded, options: DistillOptions, teachers: Sequence[TaughtBy], values: Mapping[str, Any]
) -> Callable[[], Loaded]:
    return lambda: students.taught(learner, options, teachers, values)


def _baseline(learner: Loaded, options: DistillOptions, values: Mapping[str, Any]) -> Callable[[], Loaded]:
    return lambda: students.baseline(learner, options, values)


# The comparison.


@dataclass(frozen=True)
class _Judged:
    """A network that was trained with some seeds, measured."""

    learner: Learner
    figures: tuple[Weighted, ...]
    predictions: Predictions  # of the first seed


def _judged(name: str, found: Sequence[Run], setting: Setting) -> _Judged:
    from bmcli.evaluation.agreement import reliabilities
    from bmcli.evaluation.metrics import weighted
    from bmcli.training.predictor import latency_s, predict

    figures, by_seed, first = [], [], None
    for run in found:
        recipe = load(str(run.lock), elsewhere(())).recipe
        spec = data_of(run)
        prepared = prepared_again(recipe, spec, setting.cache)
        rows, placement = prepared.split(recipe.evaluate.split), training.placed(recipe, setting.cache)
        network = training.trained(recipe, spec, rows.targets, run.model, placement)
        predictions, truth = predict(network, rows, recipe.runtime, placement), _truth(spec, rows)
        by_seed.append(_measured(recipe, spec, truth, predictions))
        figures.append(weighted(truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles()))
        if first is None:
            model = network.model
            first = (
                predictions, model.count_params(), _size(model), latency_s(network, rows),
                reliabilities(truth, predictions, spec.targets), _confusion(recipe, spec, truth, predictions),
            )  # fmt: skip
    assert first is not None, "there is a seed at least"
    metrics = _means(by_seed)
    shown = tuple(run.shown for run in found)
    return _Judged(Learner(name, shown, metrics, tuple(by_seed), *first[1:]), tuple(figures), first[0])


def _means(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that every seed has."""
    names = [name for name in by_seed[0] if all(name in each for each in by_seed)]
    return {name: sum(each[name] for each in by_seed) / len(by_seed) for name in names}


def _size(model: Any) -> int:
    return sum(weight.numpy().nbytes for weight in model.weights)


def _latency_of_teachers(school: School, network: Network, rows: Split) -> float | None:
    """Median seconds in which all teachers predict one example; None if they read other columns or raw rows."""
    from bmcli.networks.network import Network
    from bmcli.training.predictor import latency_s

    assert school.asking is not None, "there are teachers"
    teachers = school.asking.teachers
    if not all(teacher.reads_as(school.prepared.spec) for teacher in teachers):
        return None
    return sum(latency_s(Network(teacher.model, network.objectives), rows) for teacher in teachers)


def _compared(found: _Runs, seen: _Seen, options: DistillOptions, loaded: Loaded, setting: Setting) -> Distilled:
    from bmcli.evaluation.agreement import by_class, gain
    from bmcli.evaluation.directions import direction

    generations = [_judged("student", each, setting) for each in found.students]
    student = generations[-1]
    baseline = _judged("baseline", found.baselines, setting) if found.baselines else None
    last = found.students[-1][0]
    recipe, spec = load(str(last.lock)).recipe, data_of(last)
    rows = len(next(iter(seen.truth.values())))
    metric = options.metric
    if metric == "auto":
        metric = next(name for name in student.learner.metrics if direction(name))
    gained: Gain | None = None
    if baseline is not None:
        gained = gain(
            metric, seen.learner, baseline.learner, student.learner, rows, (baseline.figures, student.figures)
        )  # fmt: skip
    single = [column for column in spec.targets if column.kind == "category"]
    agreement = {
        column.name: by_class(
            seen.truth[column.name], seen.predictions[column.name], student.predictions[column.name],
            baseline.predictions[column.name] if baseline else None, column.classes,
        )
        for column in single
    }  # fmt: skip
    curves = last.rows()
    losses = _names_of_losses(curves[0]) if curves else []
    return Distilled(
        name=loaded.recipe.name, on=recipe.evaluate.split, rows=rows, seeds=found.seeds, teacher=seen.learner,
        baseline=baseline.learner if baseline else None, students=tuple(each.learner for each in generations),
        gain=gained, agreement=agreement, classes={column.name: column.classes for column in single},
        curves=tuple({name: row.get(name) for name in losses} for row in curves), asked=seen.asked, seconds=0.0,
    )  # fmt: skip


def _names_of_losses(row: Mapping[str, Any]) -> list[str]:
    """The losses that a student's epochs tell apart, the whole one and that of validation rows first."""
    terms = [name for name in row if name.startswith("train/") and name.endswith("_loss")]
    return [name for name in ("train/loss", "validation/loss", *terms) if name in row]
