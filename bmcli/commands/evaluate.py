"""`bmcli evaluate`: measures a run on a split or on a new file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, runs, training
from bmcli.errors import BmcliError, GateMissed
from bmcli.recipe.check import dotted, read_steps
from bmcli.recipe.load import Loaded, load
from bmcli.recipe.runtime import OF_STRATEGY
from bmcli.recipe.schema import Recipe
from bmcli.run_data import data_of
from bmcli.runs import Run
from bmcli.specs import DataSpec, Prepared, Split
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import Cells, check_evaluation, judge
from bmcli.workflows.session import prepared_again

if TYPE_CHECKING:
    from bmcli.data.sources import Rows
    from bmcli.distribution.strategy import Placement
    from bmcli.evaluation.gates import MissedGate
    from bmcli.evaluation.predictions import Judged
    from bmcli.evaluation.proportions import Interval
    from bmcli.evaluation.result import Evaluation
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class Measured:
    """An evaluation and what it was made of.

    Args:
        run: None on a worker that writes nothing.
        on: A split's name, or a file.
    """

    run: Run | None
    on: str
    evaluation: Evaluation
    missed: tuple[MissedGate, ...]
    judged: Judged

    def metrics(self) -> dict[str, float]:
        """By full name: `test/accuracy`."""
        return {f"{self.on}/{name}": value for name, value in self.evaluation.metrics.items()}

    def intervals(self) -> dict[str, Interval]:
        """By full name, of the metrics that have one."""
        return {f"{self.on}/{name}": interval for name, interval in self.evaluation.intervals.items()}

    def require_gates(self) -> None:
        """Raises GateMissed if a metric is beyond its limit."""
        if self.missed:
            raise GateMissed(*(f"gate missed: {self.on}/{missed}." for missed in self.missed))


Tell = Callable[[str], object]


def evaluate(
    target: str, overrides: Sequence[str], split: str | None, data: Path | None, root: Path, cache: Path, told: Tell
) -> Measured:
    """Measures a run on one of its splits, or on every row of a new file, and brings its report up to date.

    Args:
        told: Hears why no report could be written.
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        overrides: Changes to `evaluate` and `data.source` of the run's recipe.
        split: By default the recipe's `evaluate.split`.
        data: A file or folder of the recipe's source format.
    """
    run = find_run(target, root)
    check_overrides(overrides)
    data_of(run)  # else the lock may be another run's, and no record damaged
    drop_damaged_evaluations(run, told)
    # On what there is here: the devices of the training may be elsewhere by now.
    loaded = load(str(run.lock), elsewhere(overrides))
    try:
        if data is None:
            return _on_split(loaded, run, split, cache, told)
        measured = _on_file(loaded, run, data, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None
    if measured.run is not None:
        bring_up_to_date(run, cache, told)
    return measured


def drop_damaged_evaluations(run: Run, told: Tell) -> None:
    """Makes room for what is measured now where nothing can be read of what was measured before."""
    try:
        run.evaluations()
    except BmcliError as error:
        told(f"warning: {error} What is measured now takes its place.")
        disk.try_to_remove(run.evaluation)


def bring_up_to_date(run: Run, cache: Path, told: Tell) -> None:
    """Writes the report of a run anew from what is kept in it. What that lacks, as data that is gone, is but told."""
    if not run.report.exists():
        return  # it was never measured, so that there is nothing to add to
    try:
        rewrite_report(run, None, cache, told)
    except (BmcliError, OSError) as error:
        told(f"the report is as it was: {error} `bmcli report {run.shown}` tries again.")


def rewrite_report(run: Run, split: str | None, cache: Path, told: Tell) -> None:
    """Writes the report of a run anew from what is kept in it; rows that were never measured are.

    Args:
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
        told: Hears what is damaged and left out.
    """
    loaded = load(str(run.lock), elsewhere(()))
    try:
        open_run(loaded, run, cache).write_report(split or loaded.recipe.evaluate.split, told)
    except BmcliError as error:
        raise loaded.locate(error) from None


def elsewhere(overrides: Sequence[str]) -> list[str]:
    """Overrides that also free a recipe of the devices it was trained on, unless they choose devices themselves."""
    usual = dict.fromkeys(("runtime.strategy", "runtime.jit_steps"), "auto")
    usual |= {f"runtime.{option}": "null" for option in OF_STRATEGY}
    chosen = {dotted(read_steps(argument)[0]) for argument in overrides}
    return [*overrides, *(f"{path}={value}" for path, value in usual.items() if not {path, "runtime"} & chosen)]


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuses changes of what the run is: another seed or split would call rows it was trained on test rows."""
    for argument in overrides:
        steps, _ = read_steps(argument)
        if steps and steps[0] not in ("evaluate", "runtime") and steps[:2] != ("data", "source"):
            raise BmcliError(
                f"{dotted(steps)} cannot change after training.",
                suggestion="Only evaluate, runtime and data.source can.",
            )


def find_run(target: str, root: Path) -> Run:
    """The run that a verb takes: a directory, a name, or a recipe's latest."""
    if target.endswith((".yaml", ".yml")) and Path(target).is_file():
        name = load(target).recipe.name
        return runs.find(root, str(root / name))
    return runs.find(root, target)


def _on_file(loaded: Loaded, run: Run, data: Path, cache: Path) -> Measured:
    from bmcli.data.preparation import encode_rows

    recipe = loaded.recipe
    spec = data_of(run)
    check_evaluation(recipe, spec)
    placement = training.placed(recipe, cache) if training.can_be_refused(recipe.runtime) else None
    model = run.kept_model()
    training.announce(recipe, cache)
    raw = _read(recipe, data)
    rows = encode_rows(raw, spec, with_targets=True)
    placement = placement or training.placed(recipe, cache)
    network = training.trained(recipe, spec, rows.targets, model, placement)
    return measure(recipe, network, spec, rows, data.name, run if placement.chief else None, placement, raw)


def _on_split(loaded: Loaded, run: Run, split: str | None, cache: Path, told: Tell) -> Measured:
    opened = open_run(loaded, run, cache)
    check_evaluation(loaded.recipe, opened.prepared.spec)
    measured = opened.measure(split or loaded.recipe.evaluate.split)
    if measured.run is not None:
        opened.write_report(measured.on, told, measured)
    return measured


@dataclass(frozen=True)
class Opened:
    """A run with its network and its data, to be looked into."""

    run: Run
    recipe: Recipe
    prepared: Prepared
    network: Network
    placement: Placement

    def measure(self, on: str) -> Measured:
        """Measures one of the splits, and writes the result into the run."""
        writes = self.run if self.placement.chief else None
        rows = self.prepared.split(on)
        return measure(self.recipe, self.network, self.prepared.spec, rows, on, writes, self.placement)

    def write_report(self, on: str, told: Tell, measured: Measured | None = None) -> None:
        """Writes the report, with the rows of a split in detail.

        Args:
            told: Hears what is damaged and left out.
            measured: Of the same rows; None for what is kept of them, which are measured if nothing is.
        """
        kept, rows = None if measured else kept_evaluation(self.run, on, told), self.prepared.split(on)
        if kept is not None and kept.count == len(rows):
            judged = predicted(self.recipe, self.network, self.prepared.spec, rows, on, self.placement)
        else:
            measured = measured or self.measure(on)
            judged, kept = measured.judged, measured.evaluation
        parameters = self.network.model.count_params()
        report_data.write(self.run, self.recipe, self.prepared, judged, kept, parameters, told)


def kept_evaluation(run: Run, on: str, told: Tell) -> Evaluation | None:
    """What was measured of a split; None if it was not, and after a word about it if that is damaged."""
    drop_damaged_evaluations(run, told)
    found = run.evaluations()
    return report_data.evaluation(run, on, found[on], told) if on in found else None


def open_run(loaded: Loaded, run: Run, cache: Path) -> Opened:
    """A run with the weights that its training kept.

    Raises:
        BmcliError: It has no model, or its data is not what it was.
    """
    recipe = loaded.recipe
    spec = data_of(run)
    placement = training.placed(recipe, cache) if training.can_be_refused(recipe.runtime) else None
    model = run.kept_model()
    prepared = prepared_again(recipe, spec, cache).told_by(spec)  # with what was decided after training
    placement = placement or training.placed(recipe, cache)
    network = training.trained(recipe, spec, prepared.split("train").targets, model, placement)
    return Opened(run, recipe, prepared, network, placement)


def _read(recipe: Recipe, data: Path) -> Rows:
    """Every row of another file of the recipe's source format."""
    from bmcli.data.sources import read_rows

    source = recipe.data.source
    if "path" not in type(source).model_fields:
        raise BmcliError(f"a {source.kind} source reads no files.", path="data.source", suggestion="Use --split.")
    try:
        options: Any = source.model_copy(update={"path": str(data.absolute())})
        return read_rows(options, skip_broken=False)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None  # not the recipe's file


def measure(
    recipe: Recipe,
    network: Network,
    spec: DataSpec,
    rows: Split,
    on: str,
    run: Run | None,
    placement: Placement,
    raw: Rows | None = None,
) -> Measured:
    """Measures a network on encoded rows and writes the result into the run.

    Args:
        on: What the rows are: a split's name, or a file's.
        run: None on a worker that writes nothing.
        raw: The same rows as they were read; None for those of the recipe's own split `on`.
    """
    from bmcli.evaluation.gates import missed

    if not len(rows):
        raise BmcliError(
            f"there are no {on} rows to measure on.", path="evaluate.split",
            suggestion=f"Give data.split a share for {on}, or name another split.",
        )  # fmt: skip
    judged = predicted(recipe, network, spec, rows, on, placement)
    found = judge(recipe, spec, judged.truth, judged.predictions, Cells(recipe, on, raw))
    if run is not None:
        _write(run, on, found)
    return Measured(run, on, found, missed(recipe.evaluate.gates, found.metrics), judged)


def predicted(recipe: Recipe, network: Network, spec: DataSpec, rows: Split, on: str, placement: Placement) -> Judged:
    """What a network predicts of encoded rows, beside the truth."""
    from bmcli.data import targets as target_kinds
    from bmcli.evaluation.predictions import Judged
    from bmcli.training.predictor import predict

    truth = {c.name: target_kinds.kind_of(c).decode(rows.targets[c.name], c) for c in spec.targets}
    return Judged(on, rows, truth, predict(network, rows, recipe.runtime, placement))


def _write(run: Run, on: str, found: Evaluation) -> None:
    """Adds an evaluation to `evaluation.json`, beside those on other rows."""
    run.write(run.evaluation, {**run.evaluations(), on: {"at": runs.now(), **found.to_json()}})
