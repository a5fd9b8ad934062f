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
from bmcli.commands.evaluate import Tell, elsewhere, find_run, open_run, predicted
from bmcli.errors import BmcliError
from bmcli.recipe.fields import dump
from bmcli.recipe.load import load
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import Cells, resampling

if TYPE_CHECKING:
    import numpy as np

    from bmcli.evaluation.comparison import Comparison, Contender
    from bmcli.evaluation.intervals import Resampled
    from bmcli.evaluation.predictions import Judged
    from bmcli.evaluation.weighted_metrics import Weighted

_UNTOLD = ("name", "vars", "tune", "evaluate")
"""Sections of a recipe that do not decide what is learned."""


@dataclass(frozen=True)
class _Side:
    """A run that was measured for a comparison.

    Args:
        contender: Without intervals.
    """

    recipe: Recipe
    spec: DataSpec
    judged: Judged
    weighted: Weighted
    contender: Contender


def compare(
    targets: Sequence[str], split: str | None, metric: str | None, output: Path | None, root: Path, cache: Path,
    told: Tell,
) -> Comparison:  # fmt: skip
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
    _require_several(found)
    on = split or load(str(found[0].lock)).recipe.evaluate.split
    with _several_networks():
        sides = [_measured(run, name, on, cache, told) for run, name in zip(found, _names(found), strict=True)]
    comparison = _compared(sides, on, metric)
    if output is not None:
        _write_page(comparison, output)
    return comparison


@contextlib.contextmanager
def _several_networks() -> Iterator[None]:
    """Keeps TensorFlow from warning that functions are traced again, which those of each network have to be."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _require_several(found: Sequence[Run]) -> None:
    twice = [run.shown for run, times in Counter(found).items() if times > 1]
    if twice:
        raise BmcliError(f"{twice[0]} is named twice.", suggestion="Name each run once.")
    if len(found) < 2:
        raise BmcliError("one run alone cannot be compared.", suggestion="Name another run beside it.")


def _names(found: Sequence[Run]) -> list[str]:
    """The names of the runs, with what tells those of one recipe apart."""
    names = [run.name for run in found]
    for longer in ((f"{run.name} {run.folder.name}" for run in found), (run.shown for run in found)):
        times = Counter(names)
        # A copy of a run has its name and its folder's name, and lies elsewhere.
        names = [name if times[name] == 1 else more for name, more in zip(names, longer, strict=True)]
    return names


def _measured(run: Run, name: str, on: str, cache: Path, told: Tell) -> _Side:
    """A run's predictions of a split, and what it costs."""
    from bmcli.evaluation import metrics
    from bmcli.evaluation.comparison import Contender

    loaded = load(str(run.lock), elsewhere(()))
    try:
        opened = open_run(loaded, run, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None
    from bmcli.training.predictor import latency_s

    recipe, spec, rows = opened.recipe, opened.prepared.spec, opened.prepared.split(on)
    if not len(rows):
        raise BmcliError(f"{run.shown} has no {on} rows.", suggestion="Name another split with --split.")
    judged = predicted(recipe, opened.network, spec, rows, on, opened.placement)
    asked = (judged.truth, judged.predictions, spec.targets, recipe.evaluate.top_k, recipe.quantiles())
    evaluation, weighted = metrics.measure(*asked), metrics.weighted(*asked)
    epochs, faults = run.read_rows()
    for fault in faults:
        told(f"warning: {fault}")
    contender = Contender(
        name=name,
        run=run.shown,
        metrics=evaluation.metrics,
        intervals={},
        parameters=opened.network.model.count_params(),
        size=run.model.stat().st_size,
        latency_s=latency_s(opened.network, rows),
        train_s=report_data.status(run, told).get("seconds"),
        epochs=epochs,
    )
    # As it was trained, with the devices that it was trained on.
    return _Side(load(str(run.lock)).recipe, spec, judged, weighted, contender)


def _compared(sides: Sequence[_Side], on: str, metric: str | None) -> Comparison:
    from bmcli.evaluation.comparison import Comparison
    from bmcli.evaluation.intervals import differences

    _require_same_targets(sides)
    decides = _deciding(sides, metric)
    unpaired = next((why for side in sides[1:] if (why := _unpaired(sides[0], side))), "")
    samples = _resampled(sides, on, paired=not unpaired)
    contenders = tuple(_with_intervals(side.contender, each) for side, each in zip(sides, samples, strict=True))
    found = Comparison(
        on=on,
        rows=len(sides[0].judged.rows),
        metric=decides,
        contenders=contenders,
        recipes=_differing([_flat(side.recipe) for side in sides]),
        data=_differing([_data(side.spec) for side in sides]),
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
        against_first={name: differences(of[first], each) for name, each in of.items() if name != first},
        against_best={name: differences(of[best], each)[decides] for name, each in of.items() if name != best},
    )


def _require_same_targets(sides: Sequence[_Side]) -> None:
    told = [", ".join(column.name for column in side.spec.targets) for side in sides]
    if len(set(told)) > 1:
        each = "; ".join(f"{side.contender.name}: {names}" for side, names in zip(sides, told, strict=True))
        raise BmcliError(
            f"the runs predict different targets ({each}).", suggestion="Compare runs that predict the same."
        )


def _resampled(sides: Sequence[_Side], on: str, paired: bool) -> list[Resampled]:
    """The metrics of each run on resamples of its rows, which are the same resamples if the rows are the same."""
    from bmcli.evaluation.intervals import resampled

    first = sides[0].recipe
    shared = resampling(first, Cells(first, on)) if paired else None
    return [
        resampled(side.weighted, len(side.judged.rows), shared or resampling(side.recipe, Cells(side.recipe, on)))
        for side in sides
    ]


def _with_intervals(contender: Contender, samples: Resampled) -> Contender:
    from bmcli.evaluation.intervals import intervals

    around, _ = intervals(samples)
    return replace(contender, intervals={name: each for name, each in around.items() if name in contender.metrics})


def _deciding(sides: Sequence[_Side], metric: str | None) -> str:
    """The metric that decides.

    Raises:
        BmcliError: Not every run has it, or neither more nor less of it is better.
    """
    from bmcli.evaluation.directions import direction

    every = [name for name in sides[0].contender.metrics if all(name in side.contender.metrics for side in sides)]
    known = [name for name in every if direction(name)]
    if not known:
        raise BmcliError("the runs have no metric in common.", suggestion="Compare runs that predict the same target.")
    if metric is not None and metric not in known:
        near = parts.did_you_mean(metric, known) or f"Known: {', '.join(known)}."
        raise BmcliError(f"no metric '{metric}' that all runs have and that can be better.", suggestion=near)
    return metric or known[0]


def _unpaired(first: _Side, other: _Side) -> str:
    """Why two runs were not measured on the same rows; empty if they were."""
    import numpy as np

    names = [column.name for column in first.spec.targets]
    pair = f"{first.contender.name} and {other.contender.name}"
    if first.spec.fingerprint != other.spec.fingerprint:
        return f"{pair} were trained on different data."
    if any(first.spec.target(name).classes != other.spec.target(name).classes for name in names):
        return f"{pair} know different classes."
    # Equal answers are not enough: stratified splits of sorted rows have them in the same order.
    same = all(_same(first.judged.truth[name], other.judged.truth[name]) for name in names)
    if not same or not np.array_equal(_row_numbers(first), _row_numbers(other)):
        return f"{pair} were measured on different rows: their splits are not the same, which `data.seed` would make."
    return ""


def _row_numbers(side: _Side) -> np.ndarray:
    from bmcli.data.raw_rows import row_numbers

    recipe = side.recipe
    return row_numbers(recipe.data, recipe.targets(), recipe.data_seed, side.judged.on)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    import numpy as np

    # A number is standardised by the training rows, so that its last bits may differ.
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6))


def _differing(sides: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """What is not the same in all, in the order in which it comes up."""
    names = dict.fromkeys(name for side in sides for name in side)
    values = {name: tuple(side.get(name, "") for side in sides) for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _flat(recipe: Recipe) -> dict[str, str]:
    """The values of a recipe by dotted path, as it would write them."""
    values = {name: value for name, value in dump(recipe).items() if name not in _UNTOLD}
    return dict(_leaves(values, ()))


def _leaves(value: Any, way: tuple[str, ...]) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, each in value.items() for leaf in _leaves(each, (*way, str(name)))]
    return [(".".join(way), write_scalar(dump(value)))]


def _data(spec: DataSpec) -> dict[str, str]:
    """What can differ in the data of two runs."""
    return {
        "fingerprint": spec.fingerprint[:12],
        **{f"{split} rows": f"{count:,}" for split, count in spec.counts.items()},
        "rows left out": f"{spec.skipped + spec.broken:,}",
        **{f"input {column.name}": column.kind for column in spec.inputs},
        **{f"target {column.name}": f"{column.kind}, {len(column.classes)} classes" for column in spec.targets},
    }


def _write_page(comparison: Comparison, output: Path) -> None:
    from bmcli.reports.compare import report

    try:
        disk.write_new(output, report(comparison).encode())
    except FileExistsError:
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.") from None
