"""What an evaluation tells of predictions: figures, how sure they are, and of which rows they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from bmcli import parts
from bmcli.errors import BmcliError, Fault, naming
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.sources import SourceRows
    from bmcli.evaluation.fairness import Fairness
    from bmcli.evaluation.intervals import Resampling
    from bmcli.evaluation.result import Evaluation
    from bmcli.evaluation.slices import Slices, Slicing
    from bmcli.evaluation.weighted_metrics import WeightedMetrics

_Result = TypeVar("_Result")


class RawColumnReader:
    """Raw columns of some rows.

    Args:
        split: The split whose rows they are.
        rows: Other rows; None for those of the split.
    """

    def __init__(self, recipe: Recipe, split: str, rows: SourceRows | None = None) -> None:
        self._recipe, self._on, self._given = recipe, split, rows

    def read(self, name: str, path: str, reader: Callable[[RawColumn], _Result]) -> _Result:
        """What `reader` makes of a column.

        Args:
            path: Of the recipe, where the column is named.

        Raises:
            BmcliError: There is no such column, or a cell of it cannot be read.
        """
        from bmcli.data import columns

        rows = self._rows
        if name not in rows.columns:
            raise BmcliError(columns.missing_column_fault(name, path, rows))
        try:
            with naming(rows.origin):
                return reader(rows.columns[name])
        except RowFault as fault:
            raise BmcliError(replace(columns.locate_fault(fault, name, rows), path=path)) from None

    def names(self) -> tuple[str, ...]:
        """All columns that hold one value a row."""
        return tuple(self._rows.columns)

    @cached_property
    def _rows(self) -> SourceRows:
        if self._given is not None:
            return self._given
        from bmcli.data.raw_rows import read_raw_splits

        recipe = self._recipe
        return read_raw_splits(recipe.data, recipe.targets(), recipe.data_seed, None).of(self._on)


Arrays = Mapping[str, "np.ndarray"]


def evaluate_predictions(
    recipe: Recipe, spec: DataSpec, truth: Arrays, predictions: Arrays, raw_columns: RawColumnReader
) -> Evaluation:
    """Everything that an evaluation tells of predictions, as the recipe asks for it.

    Args:
        truth, predictions: By target, as `metrics.measure` takes them.
        raw_columns: Raw columns of the rows.
    """
    from bmcli.evaluation import calibration, metrics
    from bmcli.evaluation.intervals import compute_intervals, resample_metrics
    from bmcli.evaluation.weighted_metrics import join_metrics

    asked = (truth, predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles())
    found = metrics.measure(*asked)
    how = make_resampling(recipe, raw_columns)
    fair, figures = _compare_groups(recipe, spec, truth, predictions, raw_columns)
    of_groups, undefined = _compute_group_metrics(figures, found.count)
    with_groups = replace(
        found, metrics={**found.metrics, **of_groups}, undefined={**found.undefined, **undefined}, fairness=fair
    )
    between, without = compute_intervals(
        resample_metrics(join_metrics(metrics.make_weighted_metrics(*asked), *figures), found.count, how)
    )
    return replace(
        with_groups,
        intervals={name: each for name, each in between.items() if name in with_groups.metrics},
        without_interval={name: why for name, why in without.items() if name in with_groups.metrics},
        calibration=calibration.measure_targets(truth, predictions, spec.targets),
        slices=tuple(_compare_slices(recipe, spec, truth, predictions, raw_columns, how)),
    )


def make_resampling(recipe: Recipe, raw_columns: RawColumnReader) -> Resampling:
    """How the recipe's intervals draw rows, which belong together where the recipe says so."""
    from bmcli.data.splitting.splits import encode_groups
    from bmcli.evaluation.intervals import Resampling

    options = recipe.evaluate.intervals
    name = {"auto": recipe.data.split.group, "none": None}.get(options.group, options.group)
    groups = None if name is None else raw_columns.read(name, "evaluate.intervals.group", encode_groups)
    return Resampling(options.resamples, options.level, recipe.seed, groups)


def check_evaluation(recipe: Recipe, spec: DataSpec) -> None:
    """Refuses what the evaluation of a recipe will not find: metrics of gates, columns, and a target to be fair in.

    Raises:
        BmcliError: With all of it.
    """
    from bmcli.evaluation import fairness
    from bmcli.evaluation.gates import check_names
    from bmcli.evaluation.metrics import metric_names

    options = recipe.evaluate
    fair = (
        () if options.fairness is None else tuple(n for c in options.fairness.columns for n in fairness.metric_names(c))
    )
    faults: list[Fault] = []
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_names(options.gates, (*metric_names(spec.targets, options.top_k, recipe.quantiles()), *fair)),
        lambda: _check_columns(recipe, spec),
        lambda: None if options.fairness is None else _choose_fairness_target(recipe, spec),
        lambda: _check_decisions(recipe, spec),
    )
    for each in checks:
        try:
            each()
        except BmcliError as error:
            faults += error.faults
    if faults:
        raise BmcliError(*faults)


def _check_decisions(recipe: Recipe, spec: DataSpec) -> None:
    if recipe.decides_on_validation() and not spec.counts["validation"]:
        raise BmcliError(
            "calibration and thresholds are decided on validation rows, and there are none.",
            path="objective",
            suggestion="Give data.split.validation a share.",
        )


def _check_columns(recipe: Recipe, spec: DataSpec) -> None:
    """The source is read only where a column is named that the model does not know."""
    known = {column.name for column in (*spec.inputs, *spec.targets)} | {recipe.data.split.group}
    unknown = {path: name for path, name in recipe.evaluate.columns().items() if name not in known}
    if not unknown:
        return
    every = RawColumnReader(recipe, recipe.evaluate.split).names()
    faults = [
        Fault(f"no column {quoted(name)} of single values.", path=path, suggestion=parts.did_you_mean(name, every))
        for path, name in unknown.items()
        if name not in every
    ]
    if faults:
        raise BmcliError(*faults)


def _compute_group_metrics(figures: tuple[WeightedMetrics, ...], rows: int) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics between groups on all rows, and why some have no value."""
    import numpy as np

    found = {name: float(v[0]) for each in figures for name, v in each.of(np.ones((rows, 1))).items()}
    why = "fewer than two groups have rows enough to give it."
    metrics = {name: value for name, value in found.items() if np.isfinite(value)}
    return metrics, {name: why for name in found if name not in metrics}


def _compare_groups(
    recipe: Recipe, spec: DataSpec, truth: Arrays, predictions: Arrays, raw_columns: RawColumnReader
) -> tuple[tuple[Fairness, ...], tuple[WeightedMetrics, ...]]:
    """The groups that the recipe compares, and the metrics between them."""
    from bmcli.data import targets as target_kinds
    from bmcli.evaluation import fairness

    options = recipe.evaluate.fairness
    if options is None:
        return (), ()
    target, positive = _choose_fairness_target(recipe, spec)
    there = truth[target.name] == positive
    selected = target_kinds.kind_of(target).predict_point(predictions[target.name], target) == positive
    slicings = [
        _make_slicing(raw_columns, name, f"evaluate.fairness.columns.{place}")
        for place, name in enumerate(options.columns)
    ]
    name = target.classes[positive]
    return (
        tuple(fairness.measure_fairness(each, target.name, name, there, selected) for each in slicings),
        tuple(fairness.make_weighted_metrics(each, there, selected) for each in slicings),
    )


def _choose_fairness_target(recipe: Recipe, spec: DataSpec) -> tuple[Column, int]:
    """The target and the class that groups are compared by.

    Raises:
        BmcliError: There is none, or it is not told which.
    """
    options = recipe.evaluate.fairness
    assert options is not None
    known = {column.name: column for column in spec.targets if column.kind in ("category", "ordered")}
    if (len(known) != 1) if options.target is None else (options.target not in known):
        received = (
            f"no target {quoted(options.target)} of classes."
            if options.target
            else f"there are {len(known)} targets of classes."
        )
        hint = f"Name one of: {', '.join(known)}." if known else "Fairness compares how often a class is predicted."
        raise BmcliError(received, path="evaluate.fairness.target", suggestion=hint)
    column = known[options.target] if options.target else next(iter(known.values()))
    if options.positive is not None and options.positive not in column.classes:
        raise BmcliError(
            f"target {quoted(column.name)} has no class {quoted(options.positive)}.",
            path="evaluate.fairness.positive",
            suggestion=parts.did_you_mean(options.positive, column.classes),
        )
    return column, column.classes.index(options.positive) if options.positive else len(column.classes) - 1


def _compare_slices(
    recipe: Recipe,
    spec: DataSpec,
    truth: Arrays,
    predictions: Arrays,
    raw_columns: RawColumnReader,
    resampling: Resampling,
) -> Iterator[Slices]:
    """The slices that the recipe asks for, of each target."""
    from bmcli.evaluation import metrics, slices

    slicings = tuple(_list_slicings(recipe, spec, raw_columns))
    quantiles = recipe.quantiles()
    for column in spec.targets if slicings else ():
        given = truth[column.name], predictions[column.name]
        levels = quantiles.get(column.name, ())
        metric, values = metrics.compute_row_metric(column, *given, levels)
        figures = metrics.make_target_metrics(column, *given, recipe.evaluate.top_k, levels)
        yield slices.compare_slices(column.name, metric, values, slicings, figures, resampling)


def _list_slicings(recipe: Recipe, spec: DataSpec, raw_columns: RawColumnReader) -> Iterator[Slicing]:
    from bmcli.evaluation import slices

    options = recipe.evaluate
    if options.slices == "all":
        of_targets = {name for column in spec.targets for name in column.state.get("columns", (column.name,))}
        beside = {*of_targets, recipe.data.split.column}
        names = [
            name for name in raw_columns.names() if name not in beside and raw_columns.read(name, "", slices.can_slice)
        ]
        yield from slices.add_crossed_slicings([_make_slicing(raw_columns, name, "evaluate.slices") for name in names])
        return
    for position, each in enumerate(options.get_named_slices()):
        path = f"evaluate.slices.{position}"
        parts_of_it = [_make_slicing(raw_columns, name, path, each.bins) for name in each.columns]
        yield parts_of_it[0] if len(parts_of_it) == 1 else slices.cross_slicings(*parts_of_it)


def _make_slicing(raw_columns: RawColumnReader, name: str, path: str, bins: int = 4) -> Slicing:
    from bmcli.evaluation import slices

    return raw_columns.read(name, path, lambda column: slices.make_slicing(name, column, bins))
