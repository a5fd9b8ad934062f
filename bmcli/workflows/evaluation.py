"""Evaluate predictions: metrics with intervals, baselines, calibration, slices and fairness, as a recipe requires."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from bmcli import parts
from bmcli.data.targets import get_spelling, name_to_class
from bmcli.errors import BmcliError, Fault, prefix_faults
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.evaluate import FairnessOptions
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec
from bmcli.workflows.unseen import GATE as UNSEEN_GATE

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers
    from bmcli.data.sources import SourceRows
    from bmcli.evaluation.fairness import Fairness
    from bmcli.evaluation.intervals import Resampling
    from bmcli.evaluation.result import Evaluation
    from bmcli.evaluation.slices import Slices, Slicing
    from bmcli.metrics.weighted_metrics import WeightedMetrics

_Result = TypeVar("_Result")


class RawColumnReader:
    """Raw columns of a split or of other rows; the source is read when the first column is.

    Args:
        rows: Other rows; None for those of the split.
    """

    def __init__(self, recipe: Recipe, split: str, rows: SourceRows | None = None) -> None:
        self._recipe, self._split, self._other_rows = recipe, split, rows

    def read(self, name: str, path: str, reader: Callable[[RawColumn], _Result]) -> _Result:
        """Return the value that `reader` makes of a column.

        Args:
            path: Path in the recipe at which the column is named.

        Raises:
            BmcliError: There is no such column, or a cell of it cannot be read.
        """
        from bmcli.data import columns

        rows = self._rows
        if name not in rows.columns:
            raise BmcliError(columns.missing_column_fault(name, path, rows))
        try:
            with prefix_faults(rows.origin):
                return reader(rows.columns[name])
        except RowFault as fault:
            raise BmcliError(replace(columns.locate_fault(fault, name, rows), path=path)) from None

    def names(self) -> tuple[str, ...]:
        """Return the names of all columns with one value a row."""
        return tuple(self._rows.columns)

    @cached_property
    def _rows(self) -> SourceRows:
        if self._other_rows is not None:
            return self._other_rows
        from bmcli.data.raw_rows import read_raw_splits

        recipe = self._recipe
        return read_raw_splits(recipe.data, recipe.targets(), recipe.data_seed, None).select_split(self._split)


Arrays = Mapping[str, "np.ndarray"]


def evaluate_predictions(
    recipe: Recipe,
    spec: DataSpec,
    answers: Mapping[str, Answers],
    truth: Arrays,
    predictions: Arrays,
    raw_columns: RawColumnReader,
    row_weights: np.ndarray | None = None,
) -> Evaluation:
    """Compute the metrics of predictions, their intervals, baselines, calibration, slices and fairness.

    Args:
        answers: Of the outputs, by name.
        truth, predictions: By output, in the form of `metrics.measure`.
        raw_columns: Raw columns of the same rows.
        row_weights: Their weights in `data.weight`, `(rows,)`; None without.
    """
    from bmcli.evaluation import metrics
    from bmcli.evaluation.agreement import measure_calibrations
    from bmcli.evaluation.baseline import compare_with_baselines
    from bmcli.evaluation.intervals import compute_intervals, resample_metrics
    from bmcli.metrics.weighted_metrics import join_metrics

    arguments = (truth, predictions, answers, recipe.evaluate.top_k, row_weights)
    evaluation = compare_with_baselines(metrics.measure(*arguments), truth, answers, recipe.evaluate.top_k)
    resampling = make_resampling(recipe, raw_columns)
    fairness, weighted_group_metrics = _compare_groups(recipe, answers, truth, predictions, raw_columns)
    group_metrics, undefined = join_metrics(*weighted_group_metrics).measure(evaluation.count)
    evaluation = replace(
        evaluation,
        metrics={**evaluation.metrics, **group_metrics},
        undefined={**evaluation.undefined, **undefined},
        fairness=fairness,
        weight=None if row_weights is None else recipe.data.weight,
    )
    weighted_metrics = join_metrics(metrics.make_weighted_metrics(*arguments), *weighted_group_metrics)
    intervals, reasons = compute_intervals(resample_metrics(weighted_metrics, evaluation.count, resampling))
    return replace(
        evaluation,
        # Metrics that are undefined on all rows are among the weighted ones.
        intervals={name: interval for name, interval in intervals.items() if name in evaluation.metrics},
        without_interval={name: reason for name, reason in reasons.items() if name in evaluation.metrics},
        calibration=measure_calibrations(truth, predictions, answers),
        slices=tuple(_compare_slices(recipe, spec, answers, truth, predictions, raw_columns, resampling)),
    )


def read_row_weights(recipe: Recipe, raw_columns: RawColumnReader) -> np.ndarray | None:
    """Read the weights of rows; None if the recipe names no column of weights, or the rows do not have it."""
    from bmcli.data.columns import read_weights

    name = recipe.data.weight
    if name is None or name not in raw_columns.names():
        return None
    return raw_columns.read(name, "data.weight", read_weights)


def make_resampling(recipe: Recipe, raw_columns: RawColumnReader) -> Resampling:
    """Return how rows are resampled for the recipe's intervals: alone, or in groups that stay together."""
    from bmcli.data.splitting.splits import encode_groups
    from bmcli.evaluation.intervals import Resampling

    options = recipe.evaluate.intervals
    name = {"auto": recipe.data.split.group, "none": None}.get(options.group, options.group)
    groups = None if name is None else raw_columns.read(name, "evaluate.intervals.group", encode_groups)
    return Resampling(options.resamples, options.level, recipe.seed, groups)


def check_evaluation(recipe: Recipe, spec: DataSpec) -> None:
    """Refuse a recipe whose evaluation needs something that will be missing.

    That is metrics of gates, columns, a target for fairness, or validation rows.

    Raises:
        BmcliError: With all faults.
    """
    from bmcli.evaluation import fairness
    from bmcli.evaluation.gates import check_names
    from bmcli.evaluation.metrics import list_metrics
    from bmcli.objectives import open_answers

    options = recipe.evaluate
    group_columns = () if options.fairness is None else options.fairness.columns
    group_metrics = tuple(name for column in group_columns for name in fairness.list_metrics(column))
    answers = open_answers(spec)
    measured = list_metrics(answers, options.top_k, has_row_weights=spec.weight is not None)
    faults: list[Fault] = []
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_names(options.gates, (*measured, *group_metrics, UNSEEN_GATE)),
        lambda: _check_columns(recipe, spec),
        lambda: None if options.fairness is None else choose_fairness_output(options.fairness, answers),
        lambda: _check_decisions(recipe, spec),
    )
    # All checks run, so that the user sees all faults at once.
    for check in checks:
        try:
            check()
        except BmcliError as error:
            faults += error.faults
    if faults:
        raise BmcliError(*faults)


def _check_decisions(recipe: Recipe, spec: DataSpec) -> None:
    if recipe.decides_on_validation() and not spec.counts["validation"]:
        raise BmcliError(
            "calibration and thresholds are chosen on validation rows, and there are none.",
            path="objective",
            suggestion="Give data.split.validation a share.",
        )


def _check_columns(recipe: Recipe, spec: DataSpec) -> None:
    """Refuse columns that do not exist; the source is read only if one of them is unknown to the model."""
    known = {column.name for column in (*spec.inputs, *spec.targets)} | {recipe.data.split.group}
    unknown = {path: name for path, name in recipe.evaluate.columns().items() if name not in known}
    if not unknown:
        return
    columns = RawColumnReader(recipe, recipe.evaluate.split).names()
    faults = [
        Fault(
            f"no column {quoted(name)} with one value per row.", path=path, suggestion=parts.did_you_mean(name, columns)
        )
        for path, name in unknown.items()
        if name not in columns
    ]
    if faults:
        raise BmcliError(*faults)


def _compare_groups(
    recipe: Recipe,
    answers: Mapping[str, Answers],
    truth: Arrays,
    predictions: Arrays,
    raw_columns: RawColumnReader,
) -> tuple[tuple[Fairness, ...], tuple[WeightedMetrics, ...]]:
    """Compare the groups of the recipe's fairness options; also return the metrics between them, for resampling."""
    from bmcli.evaluation import fairness

    options = recipe.evaluate.fairness
    if options is None:
        return (), ()
    chosen, positive = choose_fairness_output(options, answers)
    is_positive = truth[chosen.name] == positive
    selected = chosen.select_class(predictions[chosen.name], positive)
    slicings = [
        _make_slicing(raw_columns, name, f"evaluate.fairness.columns.{position}")
        for position, name in enumerate(options.columns)
    ]
    name = chosen.output.names[positive]
    return (
        tuple(fairness.measure_fairness(slicing, chosen.name, name, is_positive, selected) for slicing in slicings),
        tuple(fairness.make_weighted_metrics(slicing, is_positive, selected) for slicing in slicings),
    )


def choose_fairness_output(options: FairnessOptions, answers: Mapping[str, Answers]) -> tuple[Answers, int]:
    """Choose the output and the index of the class by which groups are compared.

    Raises:
        BmcliError: No output has classes, or several have and the recipe names none of them.
    """
    candidates = {name: each for name, each in answers.items() if each.has_one_class}
    if (len(candidates) != 1) if options.target is None else (options.target not in candidates):
        message = (
            f"no target {quoted(options.target)} with classes."
            if options.target
            else f"expected one target with classes, found {len(candidates)}."
        )
        suggestion = (
            f"Name one of: {', '.join(candidates)}."
            if candidates
            else "Fairness compares the rates at which a class is predicted; leave it out."
        )
        raise BmcliError(message, path="evaluate.fairness.target", suggestion=suggestion)
    chosen = candidates[options.target] if options.target else next(iter(candidates.values()))
    names, named = chosen.output.names, options.positive
    positive = None if named is None else str(named).lower() if isinstance(named, bool) else str(named)
    if positive is not None and positive not in names:
        positive = name_to_class(positive, get_spelling(chosen.target))
    if positive is not None and positive not in names:
        raise BmcliError(
            f"target {quoted(chosen.name)} has no class {quoted(named)}.",
            path="evaluate.fairness.positive",
            suggestion=parts.did_you_mean(positive, names),
        )
    default = len(names) - 1 if chosen.positive is None else chosen.positive
    return chosen, default if positive is None else names.index(positive)


def _compare_slices(
    recipe: Recipe,
    spec: DataSpec,
    answers: Mapping[str, Answers],
    truth: Arrays,
    predictions: Arrays,
    raw_columns: RawColumnReader,
    resampling: Resampling,
) -> Iterator[Slices]:
    """Compare the slices of the recipe, for each output."""
    from bmcli.evaluation import slices

    slicings = tuple(_list_slicings(recipe, spec, raw_columns))
    for name, each in answers.items() if slicings else ():
        metric, values, _ = each.compute_row_metric(truth[name], predictions[name])
        weighted_metrics = each.make_weighted_metrics(truth[name], predictions[name], recipe.evaluate.top_k)
        yield slices.compare_slices(name, metric, values, slicings, weighted_metrics, resampling)


def _list_slicings(recipe: Recipe, spec: DataSpec, raw_columns: RawColumnReader) -> Iterator[Slicing]:
    from bmcli.data.targets import get_source_columns
    from bmcli.evaluation import slices

    options = recipe.evaluate
    if options.slices == "all":
        of_targets = {name for column in spec.targets for name in get_source_columns(column)}
        excluded = {*of_targets, recipe.data.split.column}
        names = [
            name
            for name in raw_columns.names()
            if name not in excluded and raw_columns.read(name, "", slices.can_slice)
        ]
        yield from slices.add_crossed_slicings([_make_slicing(raw_columns, name, "evaluate.slices") for name in names])
        return
    for position, named in enumerate(options.get_named_slices()):
        path = f"evaluate.slices.{position}"
        slicings = [_make_slicing(raw_columns, name, path, named.bins) for name in named.columns]
        yield slicings[0] if len(slicings) == 1 else slices.cross_slicings(*slicings)


def _make_slicing(raw_columns: RawColumnReader, name: str, path: str, bins: int = 4) -> Slicing:
    from bmcli.evaluation import slices

    return raw_columns.read(name, path, lambda column: slices.make_slicing(name, column, bins))
