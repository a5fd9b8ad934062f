"""`bmcli compare`: compare runs by recipe, data, metrics and cost, and recommend one of them."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, parts
from bmcli.errors import BmcliError
from bmcli.objectives import open_answers
from bmcli.recipe.fields import dump
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows import report_data
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.evaluation import RawColumnReader, make_resampling
from bmcli.workflows.opening import find_run, load_run_recipe, open_run
from bmcli.workflows.paired_rows import MeasuredRows, have_same_rows
from bmcli.workflows.run_evaluation import predict_rows

if TYPE_CHECKING:
    from bmcli.evaluation.comparison import Comparison, Contender
    from bmcli.evaluation.intervals import ResampledMetrics
    from bmcli.evaluation.predictions import Predictions
    from bmcli.metrics.weighted_metrics import WeightedMetrics

_IGNORED_SECTIONS = ("name", "vars", "tune", "evaluate")
"""Sections of a recipe that do not change the trained weights."""


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison, and the page that shows it; None if none was requested."""

    comparison: Comparison
    page: Path | None


@dataclass(frozen=True)
class _EvaluatedRun:
    """A run that was evaluated for a comparison.

    Args:
        recipe: With the devices of its training.
        contender: Without intervals.
        positive: The positive class of each target that has one.
    """

    recipe: Recipe
    spec: DataSpec
    predicted_rows: Predictions
    weighted_metrics: WeightedMetrics
    contender: Contender
    positive: Mapping[str, str]


def compare(
    targets: Sequence[str], split: str | None, metric: str | None, output: Path | None, root: Path, cache: Path,
    log: ReportCallback,
) -> ComparisonResult:  # fmt: skip
    """Compare runs on the rows of one split.

    Args:
        targets: At least two run directories, names of runs, or recipes, whose latest runs are taken.
        split: By default the `evaluate.split` of the first run.
        metric: Metric by which the best run is chosen; by default the first that all have.
        output: A new file for a page of the comparison; None to write none.
        log: Takes warnings about damaged files, which are left out.

    Raises:
        BmcliError: A run does not exist or has no model, two are the same, or not all have the metric.
    """
    if output is not None and output.exists():
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")
    compared_runs = [find_run(target, root) for target in targets]
    _require_distinct_runs(compared_runs)
    split = split or load_recipe(str(compared_runs[0].lock)).recipe.evaluate.split
    evaluated_runs: list[_EvaluatedRun] = []
    with _silence_retracing():
        for run, name in zip(compared_runs, _make_unique_names(compared_runs), strict=True):
            first = evaluated_runs[0].spec if evaluated_runs else None
            evaluated_runs.append(_evaluate_run(run, name, split, cache, log, first))
    comparison = _make_comparison(evaluated_runs, split, metric)
    if output is not None:
        _write_page(comparison, output)
    return ComparisonResult(comparison, output)


@contextlib.contextmanager
def _silence_retracing() -> Iterator[None]:
    """Silence TensorFlow's warnings about retracing in the body."""
    # TensorFlow counts traces by the Python function, so those of different networks add up to a false warning.
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _require_distinct_runs(runs: Sequence[Run]) -> None:
    repeated = [run.display_path for run, count in Counter(runs).items() if count > 1]
    if repeated:
        raise BmcliError(f"{repeated[0]} is named twice.", suggestion="Name each run once.")
    if len(runs) < 2:
        raise BmcliError("expected at least two runs, received one.", suggestion="Name another run beside it.")


def _make_unique_names(runs: Sequence[Run]) -> list[str]:
    """Name the runs, those of one recipe with their folders."""
    names = [run.name for run in runs]
    # A copy of a run has the same name and folder name in another place, so that its path is needed.
    for longer_names in ((f"{run.name} {run.folder.name}" for run in runs), (run.display_path for run in runs)):
        counts = Counter(names)
        names = [name if counts[name] == 1 else longer for name, longer in zip(names, longer_names, strict=True)]
    return names


def _evaluate_run(
    run: Run, name: str, split: str, cache: Path, log: ReportCallback, first: DataSpec | None
) -> _EvaluatedRun:
    """Evaluate a run on a split, and measure its cost.

    Args:
        first: Of the first run, whose positive classes the metrics of all runs speak of.
    """
    from bmcli.evaluation import metrics
    from bmcli.evaluation.comparison import Contender

    loaded = load_run_recipe(run)
    try:
        opened = open_run(loaded, run, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None
    from bmcli.training.predictor import measure_latency_s

    recipe, spec, rows = opened.recipe, opened.prepared.spec, opened.prepared.split(split)
    if not len(rows):
        raise BmcliError(f"{run.display_path} has no {split} rows.", suggestion="Name another split with --split.")
    predicted = predict_rows(recipe, opened.network, spec, rows, split, opened.placement)
    answers = open_answers(spec)
    for output in first.outputs if first is not None else ():
        if output.name in answers:
            answers[output.name] = answers[output.name].align_positive(output)
    arguments = (predicted.truth, predicted.predictions, answers, recipe.evaluate.top_k, rows.weights)
    evaluation, weighted_metrics = metrics.measure(*arguments), metrics.make_weighted_metrics(*arguments)
    epochs, faults = run.read_epochs_checked()
    for fault in faults:
        log(f"warning: {fault}")
    contender = Contender(
        name=name,
        run=run.display_path,
        metrics=evaluation.metrics,
        intervals={},
        parameters=opened.network.model.count_params(),
        size=run.model.stat().st_size,
        latency_s=measure_latency_s(opened.network, rows),
        train_s=report_data.read_status(run, log).get("seconds"),
        epochs=epochs,
    )
    # The comparison of recipes shows the devices of the training, which `load_run_recipe` replaces.
    recipe_of_run = load_recipe(str(run.lock)).recipe
    return _EvaluatedRun(recipe_of_run, spec, predicted, weighted_metrics, contender, evaluation.positive)


def _make_comparison(evaluated_runs: Sequence[_EvaluatedRun], split: str, metric: str | None) -> Comparison:
    from bmcli.evaluation.comparison import Comparison
    from bmcli.evaluation.intervals import compute_differences

    _require_same_targets(evaluated_runs)
    metric = _choose_metric(evaluated_runs, metric)
    first_run, *other_runs = evaluated_runs
    unpaired = next((reason for other in other_runs if (reason := _explain_unpaired(first_run, other))), "")
    samples = _resample_metrics(evaluated_runs, split, paired=not unpaired)
    contenders = tuple(
        _add_intervals(evaluated.contender, sample) for evaluated, sample in zip(evaluated_runs, samples, strict=True)
    )
    comparison = Comparison(
        split=split,
        rows=len(first_run.predicted_rows.rows),
        metric=metric,
        direction=first_run.weighted_metrics.info[metric].direction,
        contenders=contenders,
        recipes=_find_differences([_flatten_recipe(evaluated.recipe) for evaluated in evaluated_runs]),
        data=_find_differences([_describe_data(evaluated.spec) for evaluated in evaluated_runs]),
        unpaired_reason=unpaired,
        against_first={},
        against_best={},
        same_predictions={} if unpaired else _find_same_predictions(evaluated_runs),
        positive=first_run.positive,
    )
    if unpaired:
        return comparison
    by_name = {contender.name: sample for contender, sample in zip(contenders, samples, strict=True)}
    first, best = contenders[0].name, comparison.best.name
    return replace(
        comparison,
        against_first={
            name: compute_differences(by_name[first], sample) for name, sample in by_name.items() if name != first
        },
        against_best={
            name: compute_differences(by_name[best], sample)[metric] for name, sample in by_name.items() if name != best
        },
    )


def _find_same_predictions(evaluated_runs: Sequence[_EvaluatedRun]) -> dict[str, str]:
    """Find the runs that predict the same as an earlier one on the same rows, with the name of the first such one."""
    import numpy as np

    distinct: list[_EvaluatedRun] = []
    same: dict[str, str] = {}
    for evaluated in evaluated_runs:
        predictions = evaluated.predicted_rows.predictions
        for earlier in distinct:
            others = earlier.predicted_rows.predictions
            if all(
                values.shape == others[name].shape and np.allclose(values, others[name], rtol=1e-5, atol=1e-7)
                for name, values in predictions.items()
            ):
                same[evaluated.contender.name] = earlier.contender.name
                break
        else:
            distinct.append(evaluated)
    return same


def _require_same_targets(evaluated_runs: Sequence[_EvaluatedRun]) -> None:
    targets = {
        evaluated.contender.name: ", ".join(output.name for output in evaluated.spec.outputs)
        for evaluated in evaluated_runs
    }
    if len(set(targets.values())) > 1:
        listed = "; ".join(f"{run}: {names}" for run, names in targets.items())
        raise BmcliError(
            f"the runs predict different targets ({listed}).", suggestion="Compare runs that predict the same."
        )


def _resample_metrics(evaluated_runs: Sequence[_EvaluatedRun], split: str, paired: bool) -> list[ResampledMetrics]:
    """Compute the metrics of each run on resamples of its rows.

    Args:
        paired: All have the same rows and get the same resamples, so that differences between runs have intervals.
    """
    from bmcli.evaluation.intervals import resample_metrics

    first = evaluated_runs[0].recipe
    shared = make_resampling(first, RawColumnReader(first, split)) if paired else None
    return [
        resample_metrics(
            evaluated.weighted_metrics,
            len(evaluated.predicted_rows.rows),
            shared or make_resampling(evaluated.recipe, RawColumnReader(evaluated.recipe, split)),
        )
        for evaluated in evaluated_runs
    ]


def _add_intervals(contender: Contender, samples: ResampledMetrics) -> Contender:
    from bmcli.evaluation.intervals import compute_intervals

    intervals, _ = compute_intervals(samples)
    return replace(
        contender,
        intervals={name: interval for name, interval in intervals.items() if name in contender.metrics},
    )


def _choose_metric(evaluated_runs: Sequence[_EvaluatedRun], metric: str | None) -> str:
    """Return the requested metric, or the first that all runs have.

    Raises:
        BmcliError: Not every run has it, or neither more nor less of it is better.
    """
    info = evaluated_runs[0].weighted_metrics.info
    common = [
        name
        for name in evaluated_runs[0].contender.metrics
        if all(name in evaluated.contender.metrics for evaluated in evaluated_runs)
    ]
    known = [name for name in common if info[name].direction]
    if not known:
        raise BmcliError("the runs have no metric in common.", suggestion="Compare runs that predict the same target.")
    if metric is not None and metric not in known:
        suggestion = parts.did_you_mean(metric, known) or f"Known: {', '.join(known)}."
        raise BmcliError(f"no metric '{metric}' that all runs have and that has a direction.", suggestion=suggestion)
    return metric or known[0]


def _explain_unpaired(first: _EvaluatedRun, other: _EvaluatedRun) -> str:
    """Explain why two runs were not evaluated on the same rows; empty if they were."""
    names = [output.name for output in first.spec.outputs]
    pair = f"{first.contender.name} and {other.contender.name}"
    if first.spec.fingerprint != other.spec.fingerprint:
        return f"{pair} were trained on different data."
    if any(first.spec.output(name).names != other.spec.output(name).names for name in names):
        return f"{pair} have different classes."
    rows = (MeasuredRows(each.recipe, each.predicted_rows.name, each.predicted_rows.truth) for each in (first, other))
    if not have_same_rows(*rows):
        return (
            f"{pair} were evaluated on different rows: their splits differ; with the same `data.seed` they would not."
        )
    return ""


def _find_differences(mappings: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the entries that are not the same in all mappings, in their order."""
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    values = {name: tuple(mapping.get(name, "") for mapping in mappings) for name in names}
    return {name: compared for name, compared in values.items() if len(set(compared)) > 1}


def _flatten_recipe(recipe: Recipe) -> dict[str, str]:
    """Return the values of a recipe by dotted path, as text."""
    values = {name: value for name, value in dump(recipe).items() if name not in _IGNORED_SECTIONS}
    return dict(_list_leaves(values, ()))


def _list_leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, nested in value.items() for leaf in _list_leaves(nested, (*path, str(name)))]
    return [(".".join(path), write_scalar(dump(value)))]


def _describe_data(spec: DataSpec) -> dict[str, str]:
    """Return the facts in which the data of two runs can differ, by name."""
    return {
        "fingerprint": spec.fingerprint[:12],
        **{f"{split} rows": f"{count:,}" for split, count in spec.counts.items()},
        "rows left out": f"{spec.skipped_rows + spec.malformed_records:,}",
        **{f"input {column.name}": column.kind for column in spec.inputs},
        **{
            f"target {target.name}": f"{target.kind}, {len(spec.output(target.name).names)} classes"
            for target in spec.targets
        },
    }


def _write_page(comparison: Comparison, output: Path) -> None:
    from bmcli.reports.compare import render_comparison

    try:
        disk.write_new(output, render_comparison(comparison).encode())
    except FileExistsError:
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.") from None
