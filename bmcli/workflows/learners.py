"""Evaluate teachers, students and baselines of a distillation, and compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, parts, training
from bmcli.distillations import DistillationComparison, NetworkResult
from bmcli.errors import BmcliError, Fault, GateMissed
from bmcli.number_texts import write_number
from bmcli.objectives import open_answers
from bmcli.quoting import quoted
from bmcli.recipe.distill import DistillOptions, TrainedTeacherOptions
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import load_run_recipe
from bmcli.workflows.run_evaluation import decode_targets
from bmcli.workflows.session import Session, prepare_again, start_session
from bmcli.workflows.training import TrainingContext

if TYPE_CHECKING:
    import numpy as np

    from bmcli.distillation.teacher_ensemble import TeacherEnsemble
    from bmcli.evaluation.result import Evaluation
    from bmcli.metrics.weighted_metrics import WeightedMetrics
    from bmcli.networks.network import Network
    from bmcli.specs import DataSpec, Split

Predictions = Mapping[str, "np.ndarray"]
"""Values of each target by its name, `(rows, ...)`."""


@dataclass(frozen=True)
class TeacherEvaluation:
    """Evaluation of the teachers before the student is trained.

    Args:
        predictions: Of the ensemble, on the rows of the comparison.
        truth: Targets of the same rows.
        note: How the student gets the outputs of its teachers, as a sentence.
    """

    result: NetworkResult
    predictions: Predictions
    truth: Predictions
    note: str


@dataclass(frozen=True)
class TrainedRuns:
    """Runs of a distillation, one for each seed.

    Args:
        students: By generation.
        baselines: Empty without a baseline.
    """

    students: tuple[tuple[Run, ...], ...]
    baselines: tuple[Run, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _LearnerEvaluation:
    """Evaluation of one network that was trained with several seeds.

    Args:
        weighted_metrics: Of each seed, from which the interval of a difference is drawn.
        predictions: Of the first seed.
    """

    result: NetworkResult
    weighted_metrics: tuple[WeightedMetrics, ...]
    predictions: Predictions


def evaluate_teachers(
    loaded: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], context: TrainingContext
) -> TeacherEvaluation:
    """Evaluate the ensemble of teachers.

    Args:
        loaded: Recipe of the distilled student.

    Raises:
        BmcliError: A gate or the metric of the comparison is none of the targets, or there are no rows, or a teacher
            does not fit the student.
        GateMissed: The teachers are worse than `distill.teacher_gate` allows.
    """
    try:
        return _evaluate_teachers(loaded, options, teachers, context)
    except BmcliError as error:
        raise loaded.locate(error) from None


def check_teachers(loaded: LoadedRecipe, options: DistillOptions, context: TrainingContext) -> None:
    """Open teachers as a student does, and measure them on the validation rows, if there are any.

    Args:
        loaded: Recipe of the distilled student.

    Raises:
        BmcliError: A teacher does not fit the student, or a gate is none of the targets.
        GateMissed: The teachers are worse than `distill.teacher_gate` allows.
    """
    try:
        session = start_session(loaded, context.cache)
        _check_metrics(options, loaded.recipe, session.prepared.spec)
        _open_teachers(session, options, context.log)
    except BmcliError as error:
        raise loaded.locate(error) from None


def _open_teachers(session: Session, options: DistillOptions, log: ReportCallback) -> tuple[TeacherEnsemble, Network]:
    """Open the ensemble, and check it on validation rows, or on the rows of the evaluation, where there are some.

    Returns:
        The ensemble, and the student's network, whose objectives turn its outputs into predictions.
    """
    from bmcli.distillation.teacher_ensemble import TeacherEnsemble  # imports TensorFlow, which the session starts

    recipe, prepared = session.loaded.recipe, session.prepared
    assert recipe.distillation is not None, "the recipe is that of a distilled student"
    ensemble = TeacherEnsemble.load_teachers(recipe, recipe.distillation, prepared, session.placement, session.cache)
    assert ensemble.predictor is not None, "there are teachers"
    for teacher in ensemble.predictor.teachers:
        for note in teacher.notes:
            log(f"note: {note}.")
    network = training.build_network(recipe, prepared.spec, prepared.split("train").targets, session.placement)
    split = next((each for each in ("validation", recipe.evaluate.split) if prepared.spec.counts.get(each)), None)
    if split is not None:
        _check_teacher_gate(options, recipe, prepared.spec, split, *_predict(ensemble, network, split), log)
    return ensemble, network


def _evaluate_teachers(
    loaded: LoadedRecipe, options: DistillOptions, teachers: Sequence[TrainedTeacherOptions], context: TrainingContext
) -> TeacherEvaluation:
    from bmcli.evaluation.agreement import compute_reliability

    recipe = loaded.recipe
    session = start_session(loaded, context.cache)
    prepared, spec, split = session.prepared, session.prepared.spec, recipe.evaluate.split
    if not spec.counts.get(split):
        raise BmcliError(
            f"there are no {split} rows to compare student and baseline on.", path="evaluate.split",
            suggestion=f"Give data.split a share for {split}, or name another split.",
        )  # fmt: skip
    _check_metrics(options, recipe, spec)
    ensemble, network = _open_teachers(session, options, context.log)
    assert ensemble.predictor is not None, "there are teachers"
    truth, predictions = _predict(ensemble, network, split)
    evaluation = _evaluate(recipe, spec, truth, predictions)
    metrics = dict(evaluation.metrics)
    models = [teacher.model for teacher in ensemble.predictor.teachers]
    result = NetworkResult(
        "teacher",
        tuple(disk.format_path(Path(teacher.run or teacher.model)) for teacher in teachers),
        metrics,
        (metrics,),
        sum(model.count_params() for model in models),
        sum(map(_count_bytes, models)),
        _measure_teacher_latency_s(ensemble, network, prepared.split(split)),
        compute_reliability(truth, predictions, open_answers(spec)),
        evaluation.confusion,
    )
    return TeacherEvaluation(result, predictions, truth, ensemble.note)


def _predict(ensemble: TeacherEnsemble, network: Network, split: str) -> tuple[Predictions, Predictions]:
    """Return the truth of a split and the predictions of the ensemble."""
    import numpy as np

    rows = ensemble.prepared.split(split)
    predictions = network.predict(ensemble.predict_outputs(split), rows.inputs)
    truth = decode_targets(ensemble.prepared.spec, rows)
    return truth, {name: np.asarray(values) for name, values in predictions.items()}


def _evaluate(recipe: Recipe, spec: DataSpec, truth: Predictions, predictions: Predictions) -> Evaluation:
    from bmcli.evaluation.metrics import measure

    return measure(truth, predictions, open_answers(spec), recipe.evaluate.top_k)


def _check_metrics(options: DistillOptions, recipe: Recipe, spec: DataSpec) -> None:
    """Refuse gates and a metric that the evaluation will not have."""
    from bmcli.evaluation.metrics import list_metrics

    names = list_metrics(open_answers(spec), recipe.evaluate.top_k)
    faults = [
        Fault(f"no metric {quoted(name)} for these targets.", f"distill.teacher_gate.{name}",
              suggestion=parts.did_you_mean(name, names))
        for name in options.teacher_gate if name not in names
    ]  # fmt: skip
    if options.metric != "auto" and (options.metric not in names or not names[options.metric].direction):
        metric = quoted(options.metric)
        message = f"neither more nor less of {metric} is better." if options.metric in names else f"no metric {metric}."
        faults.append(Fault(message, "distill.metric",
                            suggestion=parts.did_you_mean(options.metric, names)))  # fmt: skip
    if faults:
        raise BmcliError(*faults)


def _check_teacher_gate(
    options: DistillOptions, recipe: Recipe, spec: DataSpec, split: str, truth: Predictions, predictions: Predictions,
    log: ReportCallback,
) -> None:  # fmt: skip
    """Log the first metric and the calibration of the ensemble; refuse it if it misses a gate.

    Also warn of an ensemble that is no better than a constant.
    """
    from bmcli.evaluation.agreement import compute_reliability
    from bmcli.evaluation.baseline import compare_with_baselines
    from bmcli.evaluation.gates import find_missed_gates

    evaluation = _evaluate(recipe, spec, truth, predictions)
    metrics = evaluation.metrics
    first = ", ".join(f"{name} {write_number(value)}" for name, value in list(metrics.items())[:1])
    errors = [each.error for each in compute_reliability(truth, predictions, open_answers(spec)).values()]
    calibration = "".join(f", calibration error {error:.3g}" for error in errors)
    log(f"teacher on {len(next(iter(truth.values()))):,} {split} rows: {first}{calibration}")
    for each in compare_with_baselines(evaluation, truth, open_answers(spec), recipe.evaluate.top_k).baselines:
        if not each.is_beaten:
            log(
                f"warning: the teacher's {each.metric} of {metrics[each.metric]:.4g} is no better than the "
                f"{each.metrics[each.metric]:.4g} of a baseline that ignores the inputs, {each.prediction}, so its "
                "student learns nothing from it. Give a teacher that was trained on these targets; with "
                "distill.teacher_gate, such a teacher ends the distillation."
            )
    missed_gates = find_missed_gates(options.teacher_gate, metrics)
    if missed_gates:
        raise GateMissed(
            *(f"the teacher missed its gate: {split}/{gate}." for gate in missed_gates),
            suggestion="Train a better teacher, or lower distill.teacher_gate.",
        )


def compare_learners(
    trained_runs: TrainedRuns,
    teachers: TeacherEvaluation,
    options: DistillOptions,
    loaded: LoadedRecipe,
    context: TrainingContext,
) -> DistillationComparison:
    """Evaluate students and baselines, and compare the last generation with teachers and baseline.

    Args:
        loaded: Recipe of the distillation.
    """
    from bmcli.evaluation.agreement import compute_agreement_by_class, compute_gain
    from bmcli.evaluation.metrics import list_metrics, list_positive_classes

    generations = [_evaluate_learner("student", runs, context) for runs in trained_runs.students]
    student = generations[-1]
    baseline = _evaluate_learner("baseline", trained_runs.baselines, context) if trained_runs.baselines else None
    last = trained_runs.students[-1][0]
    recipe, spec = load_recipe(str(last.lock)).recipe, read_data_spec(last)
    answers = open_answers(spec)
    rows = len(next(iter(teachers.truth.values())))
    metric = options.metric
    if metric == "auto":
        info = list_metrics(answers, recipe.evaluate.top_k)
        metric = next(name for name in student.result.metrics if info[name].direction)
    gain = None
    if baseline is not None:
        weighted_metrics = (baseline.weighted_metrics, student.weighted_metrics)
        gain = compute_gain(metric, teachers.result, baseline.result, student.result, rows, weighted_metrics)
    classified = {name: each.output.names for name, each in answers.items() if each.has_one_class}
    agreement = {
        name: compute_agreement_by_class(
            teachers.truth[name], teachers.predictions[name], student.predictions[name],
            baseline.predictions[name] if baseline else None, classes,
        )
        for name, classes in classified.items()
    }  # fmt: skip
    epochs = last.read_epochs()
    losses = _list_loss_names(epochs[0]) if epochs else []
    return DistillationComparison(
        name=loaded.recipe.name,
        on=recipe.evaluate.split,
        rows=rows,
        seeds=trained_runs.seeds,
        teacher=teachers.result,
        baseline=baseline.result if baseline else None,
        students=tuple(generation.result for generation in generations),
        gain=gain,
        agreement=agreement,
        classes=classified,
        positive=list_positive_classes(answers),
        curves=tuple({name: epoch.get(name) for name in losses} for epoch in epochs),
        teacher_note=teachers.note,
        seconds=0.0,  # the caller measures the whole distillation
    )


def _evaluate_learner(name: str, runs: Sequence[Run], context: TrainingContext) -> _LearnerEvaluation:
    """Evaluate the runs of one network, one for each seed; size, latency and details are those of the first."""
    from bmcli.evaluation.agreement import compute_reliability
    from bmcli.evaluation.metrics import make_weighted_metrics
    from bmcli.training.predictor import measure_latency_s, predict

    weighted_metrics, metrics_by_seed, first = [], [], None
    for run in runs:
        recipe, spec = load_run_recipe(run).recipe, read_data_spec(run)
        prepared = prepare_again(recipe, spec, context.cache)
        rows, placement = prepared.split(recipe.evaluate.split), training.place_on_devices(recipe, context.cache)
        network = training.load_trained_network(recipe, spec, rows.targets, run.model, placement)
        predictions, truth = predict(network, rows, recipe.runtime, placement), decode_targets(spec, rows)
        evaluation = _evaluate(recipe, spec, truth, predictions)
        metrics_by_seed.append(dict(evaluation.metrics))
        weighted_metrics.append(make_weighted_metrics(truth, predictions, open_answers(spec), recipe.evaluate.top_k))
        if first is None:
            first = (
                predictions,
                (
                    network.model.count_params(),
                    _count_bytes(network.model),
                    measure_latency_s(network, rows),
                    compute_reliability(truth, predictions, open_answers(spec)),
                    evaluation.confusion,
                ),
            )
    assert first is not None, "there is at least one seed"
    paths, metrics = tuple(run.display_path for run in runs), _average_metrics(metrics_by_seed)
    result = NetworkResult(name, paths, metrics, tuple(metrics_by_seed), *first[1])
    return _LearnerEvaluation(result, tuple(weighted_metrics), first[0])


def _average_metrics(metrics_by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the metrics that every seed has."""
    names = [name for name in metrics_by_seed[0] if all(name in metrics for metrics in metrics_by_seed)]
    return {name: sum(metrics[name] for metrics in metrics_by_seed) / len(metrics_by_seed) for name in names}


def _count_bytes(model: Any) -> int:
    return sum(weight.numpy().nbytes for weight in model.weights)


def _measure_teacher_latency_s(ensemble: TeacherEnsemble, network: Network, rows: Split) -> float | None:
    """Measure the median seconds in which all teachers predict one example; None if they take other inputs."""
    from bmcli.training.predictor import measure_latency_s

    assert ensemble.predictor is not None, "there are teachers"
    teachers = ensemble.predictor.teachers
    if not all(teacher.accepts_inputs_of(ensemble.prepared.spec) for teacher in teachers):
        return None
    # One after the other, as an ensemble on one device runs.
    return sum(measure_latency_s(replace(network, model=teacher.model), rows) for teacher in teachers)


def _list_loss_names(epoch: Mapping[str, Any]) -> list[str]:
    """List the losses of a student's epoch: the total, that of validation rows, then each term."""
    terms = [name for name in epoch if name.startswith("train/") and name.endswith("_loss")]
    return [name for name in ("train/loss", "validation/loss", *terms) if name in epoch]
