"""`bmcli compare`: runs beside each other: what differs, what each reaches, what it costs, and which to take."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, parts
from bmcli.commands.evaluate import ReportCallback, add_device_defaults, find_run, open_run, predict_rows
from bmcli.errors import BmcliError
from bmcli.recipe.fields import dump
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import RawColumnReader, make_resampling

if TYPE_CHECKING:
    import numpy as np

    from bmcli.evaluation.comparison import Comparison, Contender
    from bmcli.evaluation.intervals import ResampledMetrics
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.weighted_metrics import WeightedMetrics

_IGNORED_SECTIONS = ("name", "vars", "tune", "evaluate")
"""Sections of a recipe that do not decide what is learned."""


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison, and the page that shows it; None if none was requested."""

    comparison: Comparison
    page: Path | None


@dataclass(frozen=True)
class _EvaluatedRun:
    """A run that was measured for a comparison.

    Args:
        contender: Without intervals.
    """

    recipe: Recipe
    spec: DataSpec
    predicted_rows: Predictions
    weighted: WeightedMetrics
    contender: Contender


def compare(
    targets: Sequence[str], split: str | None, metric: str | None, output: Path | None, root: Path, cache: Path,
    told: ReportCallback,
) -> ComparisonResult:  # fmt: skip
    """Compares runs on the rows of one split.

    Args:
        targets: Run directories, names of runs, or recipes, whose latest runs are taken; two at least.
        split: By default that which the first run's recipe evaluates.
        metric: What decides; by default the first that all have.
        output: A new file for a page that shows it all; None to write none.
        told: Hears what is damaged and left out.

    Raises:
        BmcliError: A run is not there or has no model, two are the same, or the metric is not there.
    """
    if output is not None and output.exists():
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")
    found = [find_run(target, root) for target in targets]
    _require_distinct_runs(found)
    on = split or load_recipe(str(found[0].lock)).recipe.evaluate.split
    with _silence_retracing():
        sides = [
            _evaluate_run(run, name, on, cache, told)
            for run, name in zip(found, _make_unique_names(found), strict=True)
        ]
    comparison = _make_comparison(sides, on, metric)
    if output is not None:
        _write_page(comparison, output)
    return ComparisonResult(comparison, output)


@contextlib.contextmanager
def _silence_retracing() -> Iterator[None]:
    """Keeps TensorFlow from warning that functions are traced again, which those of each network have to be."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _require_distinct_runs(runs: Sequence[Run]) -> None:
    twice = [run.display_path for run, times in Counter(runs).items() if times > 1]
    if twice:
        raise BmcliError(f"{twice[0]} is named twice.", suggestion="Name each run once.")
    if len(runs) < 2:
        raise BmcliError("one run alone cannot be compared.", suggestion="Name another run beside it.")


def _make_unique_names(runs: Sequence[Run]) -> list[str]:
    """The names of the runs, with what tells those of one recipe apart."""
    names = [run.name for run in runs]
    for longer in ((f"{run.name} {run.folder.name}" for run in runs), (run.display_path for run in runs)):
        times = Counter(names)
        # A copy of a run has its name and its folder's name, and lies elsewhere.
        names = [name if times[name] == 1 else more for name, more in zip(names, longer, strict=True)]
    return names


def _evaluate_run(run: Run, name: str, split: str, cache: Path, told: ReportCallback) -> _EvaluatedRun:
    """A run's predictions of a split, and what it costs."""
    from bmcli.evaluation import metrics
    from bmcli.evaluation.comparison import Contender

    loaded = load_recipe(str(run.lock), add_device_defaults(()))
    try:
        opened = open_run(loaded, run, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None
    from bmcli.training.predictor import measure_latency_s

    recipe, spec, rows = opened.recipe, opened.prepared.spec, opened.prepared.split(split)
    if not len(rows):
        raise BmcliError(f"{run.display_path} has no {split} rows.", suggestion="Name another split with --split.")
    judged = predict_rows(recipe, opened.network, spec, rows, split, opened.placement)
    asked = (judged.truth, judged.predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles())
    evaluation, weighted = metrics.measure(*asked), metrics.make_weighted_metrics(*asked)
    epochs, faults = run.read_epochs_checked()
    for fault in faults:
        told(f"warning: {fault}")
    contender = Contender(
        name=name,
        run=run.display_path,
        metrics=evaluation.metrics,
        intervals={},
        parameters=opened.network.model.count_params(),
        size=run.model.stat().st_size,
        latency_s=measure_latency_s(opened.network, rows),
        train_s=report_data.read_status(run, told).get("seconds"),
        epochs=epochs,
    )
    # As it was trained, with the devices that it was trained on.
    return _EvaluatedRun(load_recipe(str(run.lock)).recipe, spec, judged, weighted, contender)


def _make_comparison(sides: Sequence[_EvaluatedRun], split: str, metric: str | None) -> Comparison:
    from bmcli.evaluation.comparison import Comparison
    from bmcli.evaluation.intervals import compute_differences

    _require_same_targets(sides)
    decides = _choose_metric(sides, metric)
    unpaired = next((why for side in sides[1:] if (why := _explain_unpaired(sides[0], side))), "")
    samples = _resample_metrics(sides, split, paired=not unpaired)
    contenders = tuple(_add_intervals(side.contender, each) for side, each in zip(sides, samples, strict=True))
    found = Comparison(
        on=split,
        rows=len(sides[0].predicted_rows.rows),
        metric=decides,
        contenders=contenders,
        recipes=_find_differences([_flatten_recipe(side.recipe) for side in sides]),
        data=_find_differences([_describe_data(side.spec) for side in sides]),
        unpaired=unpaired,
        against_first={},
        against_best={},
    )
    if unpaired:
        return found
    of = {each.name: sample for each, sample in zip(contenders, samples, strict=True)}
    first, best = contenders[0].name, found.best.name
    return replace(
        found,
        against_first={name: compute_differences(of[first], each) for name, each in of.items() if name != first},
        against_best={name: compute_differences(of[best], each)[decides] for name, each in of.items() if name != best},
    )


def _require_same_targets(sides: Sequence[_EvaluatedRun]) -> None:
    told = [", ".join(column.name for column in side.spec.targets) for side in sides]
    if len(set(told)) > 1:
        each = "; ".join(f"{side.contender.name}: {names}" for side, names in zip(sides, told, strict=True))
        raise BmcliError(
            f"the runs predict different targets ({each}).", suggestion="Compare runs that predict the same."
        )


def _resample_metrics(sides: Sequence[_EvaluatedRun], on: str, paired: bool) -> list[ResampledMetrics]:
    """The metrics of each run on resamples of its rows, which are the same resamples if the rows are the same."""
    from bmcli.evaluation.intervals import resample_metrics

    first = sides[0].recipe
    shared = make_resampling(first, RawColumnReader(first, on)) if paired else None
    return [
        resample_metrics(
            side.weighted,
            len(side.predicted_rows.rows),
            shared or make_resampling(side.recipe, RawColumnReader(side.recipe, on)),
        )
        for side in sides
    ]


def _add_intervals(contender: Contender, samples: ResampledMetrics) -> Contender:
    from bmcli.evaluation.intervals import compute_intervals

    around, _ = compute_intervals(samples)
    return replace(contender, intervals={name: each for name, each in around.items() if name in contender.metrics})


def _choose_metric(sides: Sequence[_EvaluatedRun], metric: str | None) -> str:
    """The metric that decides.

    Raises:
        BmcliError: Not every run has it, or neither more nor less of it is better.
    """
    from bmcli.evaluation.directions import get_direction

    every = [name for name in sides[0].contender.metrics if all(name in side.contender.metrics for side in sides)]
    known = [name for name in every if get_direction(name)]
    if not known:
        raise BmcliError("the runs have no metric in common.", suggestion="Compare runs that predict the same target.")
    if metric is not None and metric not in known:
        near = parts.did_you_mean(metric, known) or f"Known: {', '.join(known)}."
        raise BmcliError(f"no metric '{metric}' that all runs have and that can be better.", suggestion=near)
    return metric or known[0]


def _explain_unpaired(first: _EvaluatedRun, other: _EvaluatedRun) -> str:
    """Why two runs were not measured on the same rows; empty if they were."""
    import numpy as np

    names = [column.name for column in first.spec.targets]
    pair = f"{first.contender.name} and {other.contender.name}"
    if first.spec.fingerprint != other.spec.fingerprint:
        return f"{pair} were trained on different data."
    if any(first.spec.target(name).classes != other.spec.target(name).classes for name in names):
        return f"{pair} know different classes."
    # Equal answers are not enough: stratified splits of sorted rows have them in the same order.
    same = all(_are_close(first.predicted_rows.truth[name], other.predicted_rows.truth[name]) for name in names)
    if not same or not np.array_equal(_read_row_numbers(first), _read_row_numbers(other)):
        return f"{pair} were measured on different rows: their splits are not the same, which `data.seed` would make."
    return ""


def _read_row_numbers(side: _EvaluatedRun) -> np.ndarray:
    from bmcli.data.raw_rows import find_row_indices

    recipe = side.recipe
    return find_row_indices(recipe.data, recipe.targets(), recipe.data_seed, side.predicted_rows.on)


def _are_close(one: np.ndarray, other: np.ndarray) -> bool:
    import numpy as np

    # A number is standardised by the training rows, so that its last bits may differ.
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6))


def _find_differences(sides: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """What is not the same in all, in the order in which it comes up."""
    names = dict.fromkeys(name for side in sides for name in side)
    values = {name: tuple(side.get(name, "") for side in sides) for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _flatten_recipe(recipe: Recipe) -> dict[str, str]:
    """The values of a recipe by dotted path, as it would write them."""
    values = {name: value for name, value in dump(recipe).items() if name not in _IGNORED_SECTIONS}
    return dict(_list_leaves(values, ()))


def _list_leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, each in value.items() for leaf in _list_leaves(each, (*path, str(name)))]
    return [(".".join(path), write_scalar(dump(value)))]


def _describe_data(spec: DataSpec) -> dict[str, str]:
    """What can differ in the data of two runs."""
    return {
        "fingerprint": spec.fingerprint[:12],
        **{f"{split} rows": f"{count:,}" for split, count in spec.counts.items()},
        "rows left out": f"{spec.skipped + spec.broken:,}",
        **{f"input {column.name}": column.kind for column in spec.inputs},
        **{f"target {column.name}": f"{column.kind}, {len(column.classes)} classes" for column in spec.targets},
    }


def _write_page(comparison: Comparison, output: Path) -> None:
    from bmcli.reports.compare import render_comparison

    try:
        disk.write_new(output, render_comparison(comparison).encode())
    except FileExistsError:
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.") from None
