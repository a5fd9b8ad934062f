"""`bmcli evaluate`: measures a run on a split or on a new file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, runs, training
from bmcli.errors import BmcliError, GateMissed
from bmcli.recipe.load import LoadedRecipe, load_recipe
from bmcli.recipe.paths import join_steps, parse_steps
from bmcli.recipe.runtime import STRATEGY_OPTIONS
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec, PreparedData, Split
from bmcli.workflows import report_data
from bmcli.workflows.evaluation import RawColumnReader, check_evaluation, evaluate_predictions
from bmcli.workflows.session import prepare_again

if TYPE_CHECKING:
    from bmcli.data.sources import SourceRows
    from bmcli.distribution.strategy import Placement
    from bmcli.evaluation.gates import MissedGate
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.proportions import Interval
    from bmcli.evaluation.result import Evaluation
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation and what it was made of.

    Args:
        run: None on a worker that writes nothing.
        on: A split's name, or a file.
    """

    run: Run | None
    on: str
    evaluation: Evaluation
    missed_gates: tuple[MissedGate, ...]
    predicted_rows: Predictions

    def metrics(self) -> dict[str, float]:
        """By full name: `test/accuracy`."""
        return {f"{self.on}/{name}": value for name, value in self.evaluation.metrics.items()}

    def intervals(self) -> dict[str, Interval]:
        """By full name, of the metrics that have one."""
        return {f"{self.on}/{name}": interval for name, interval in self.evaluation.intervals.items()}

    def require_gates(self) -> None:
        """Raises GateMissed if a metric is beyond its limit."""
        if self.missed_gates:
            raise GateMissed(*(f"gate missed: {self.on}/{missed}." for missed in self.missed_gates))


ReportCallback = Callable[[str], object]


def evaluate(
    target: str,
    overrides: Sequence[str],
    split: str | None,
    data: Path | None,
    root: Path,
    cache: Path,
    log: ReportCallback,
) -> EvaluationResult:
    """Measures a run on one of its splits, or on every row of a new file, and brings its report up to date.

    Args:
        log: Hears why no report could be written.
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        overrides: Changes to `evaluate` and `data.source` of the run's recipe.
        split: By default the recipe's `evaluate.split`.
        data: A file or folder of the recipe's source format.
    """
    run = find_run(target, root)
    check_overrides(overrides)
    read_data_spec(run)  # else the lock may be another run's, and no record damaged
    drop_damaged_evaluations(run, log)
    # On what there is here: the devices of the training may be elsewhere by now.
    loaded = load_recipe(str(run.lock), add_device_defaults(overrides))
    try:
        if data is None:
            return _evaluate_split(loaded, run, split, cache, log)
        measured = _evaluate_file(loaded, run, data, cache)
    except BmcliError as error:
        raise loaded.locate(error) from None
    if measured.run is not None:
        refresh_report(run, cache, log)
    return measured


def drop_damaged_evaluations(run: Run, log: ReportCallback) -> None:
    """Makes room for what is measured now where nothing can be read of what was measured before."""
    try:
        run.read_evaluations()
    except BmcliError as error:
        log(f"warning: {error} What is measured now takes its place.")
        disk.try_to_remove(run.evaluation)


def refresh_report(run: Run, cache: Path, log: ReportCallback) -> None:
    """Writes the report of a run anew from what is kept in it. What that lacks, as data that is gone, is but told."""
    if not run.report.exists():
        return  # it was never measured, so that there is nothing to add to
    try:
        regenerate_report(run, None, cache, log)
    except (BmcliError, OSError) as error:
        log(f"the report is as it was: {error} `bmcli report {run.display_path}` tries again.")


def regenerate_report(run: Run, split: str | None, cache: Path, log: ReportCallback) -> None:
    """Writes the report of a run anew from what is kept in it; rows that were never measured are.

    Args:
        split: The rows to show in detail; by default those of the recipe's `evaluate.split`.
        log: Hears what is damaged and left out.
    """
    loaded = load_recipe(str(run.lock), add_device_defaults(()))
    try:
        open_run(loaded, run, cache).write_report(split or loaded.recipe.evaluate.split, log)
    except BmcliError as error:
        raise loaded.locate(error) from None


def add_device_defaults(overrides: Sequence[str]) -> list[str]:
    """Overrides that also free a recipe of the devices it was trained on, unless they choose devices themselves."""
    usual = dict.fromkeys(("runtime.strategy", "runtime.jit_steps"), "auto")
    usual |= {f"runtime.{option}": "null" for option in STRATEGY_OPTIONS}
    chosen = {join_steps(parse_steps(argument)[0]) for argument in overrides}
    return [*overrides, *(f"{path}={value}" for path, value in usual.items() if not {path, "runtime"} & chosen)]


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuses changes of what the run is: another seed or split would call rows it was trained on test rows."""
    for argument in overrides:
        steps, _ = parse_steps(argument)
        if steps and steps[0] not in ("evaluate", "runtime") and steps[:2] != ("data", "source"):
            raise BmcliError(
                f"{join_steps(steps)} cannot change after training.",
                suggestion="Only evaluate, runtime and data.source can.",
            )


def find_run(target: str, root: Path) -> Run:
    """The run that a verb takes: a directory, a name, or a recipe's latest."""
    if target.endswith((".yaml", ".yml")) and Path(target).is_file():
        name = load_recipe(target).recipe.name
        return runs.find(root, str(root / name))
    return runs.find(root, target)


def _evaluate_file(loaded: LoadedRecipe, run: Run, data: Path, cache: Path) -> EvaluationResult:
    from bmcli.data.preparation import encode_rows

    recipe = loaded.recipe
    spec = read_data_spec(run)
    check_evaluation(recipe, spec)
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    model = run.require_model()
    training.set_environment_variables(recipe, cache)
    raw = _read_file(recipe, data)
    rows = encode_rows(raw, spec, with_targets=True)
    placement = placement or training.place_on_devices(recipe, cache)
    network = training.load_trained_network(recipe, spec, rows.targets, model, placement)
    return evaluate_rows(recipe, network, spec, rows, data.name, run if placement.is_chief else None, placement, raw)


def _evaluate_split(
    loaded: LoadedRecipe, run: Run, split: str | None, cache: Path, log: ReportCallback
) -> EvaluationResult:
    opened = open_run(loaded, run, cache)
    check_evaluation(loaded.recipe, opened.prepared.spec)
    measured = opened.evaluate(split or loaded.recipe.evaluate.split)
    if measured.run is not None:
        opened.write_report(measured.on, log, measured)
    return measured


@dataclass(frozen=True)
class OpenedRun:
    """A run with its network and its data, to be looked into."""

    run: Run
    recipe: Recipe
    prepared: PreparedData
    network: Network
    placement: Placement

    def evaluate(self, split: str) -> EvaluationResult:
        """Measures one of the splits, and writes the result into the run."""
        writes = self.run if self.placement.is_chief else None
        rows = self.prepared.split(split)
        return evaluate_rows(self.recipe, self.network, self.prepared.spec, rows, split, writes, self.placement)

    def write_report(self, split: str, log: ReportCallback, measured: EvaluationResult | None = None) -> None:
        """Writes the report, with the rows of a split in detail.

        Args:
            log: Hears what is damaged and left out.
            measured: Of the same rows; None for what is kept of them, which are measured if nothing is.
        """
        kept, rows = None if measured else read_evaluation(self.run, split, log), self.prepared.split(split)
        if kept is not None and kept.count == len(rows):
            judged = predict_rows(self.recipe, self.network, self.prepared.spec, rows, split, self.placement)
        else:
            measured = measured or self.evaluate(split)
            judged, kept = measured.predicted_rows, measured.evaluation
        parameters = self.network.model.count_params()
        report_data.write_report(self.run, self.recipe, self.prepared, judged, kept, parameters, log)


def read_evaluation(run: Run, split: str, log: ReportCallback) -> Evaluation | None:
    """What was measured of a split; None if it was not, and after a word about it if that is damaged."""
    drop_damaged_evaluations(run, log)
    found = run.read_evaluations()
    return report_data.parse_evaluation(run, split, found[split], log) if split in found else None


def open_run(loaded: LoadedRecipe, run: Run, cache: Path) -> OpenedRun:
    """A run with the weights that its training kept.

    Raises:
        BmcliError: It has no model, or its data is not what it was.
    """
    recipe = loaded.recipe
    spec = read_data_spec(run)
    placement = training.place_on_devices(recipe, cache) if training.needs_specific_devices(recipe.runtime) else None
    model = run.require_model()
    prepared = prepare_again(recipe, spec, cache).with_spec(spec)  # with what was decided after training
    placement = placement or training.place_on_devices(recipe, cache)
    network = training.load_trained_network(recipe, spec, prepared.split("train").targets, model, placement)
    return OpenedRun(run, recipe, prepared, network, placement)


def _read_file(recipe: Recipe, data: Path) -> SourceRows:
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


def evaluate_rows(
    recipe: Recipe,
    network: Network,
    spec: DataSpec,
    rows: Split,
    split: str,
    run: Run | None,
    placement: Placement,
    raw: SourceRows | None = None,
) -> EvaluationResult:
    """Measures a network on encoded rows and writes the result into the run.

    Args:
        split: What the rows are: a split's name, or a file's.
        run: None on a worker that writes nothing.
        raw: The same rows as they were read; None for those of the recipe's own split `split`.
    """
    from bmcli.evaluation.gates import find_missed_gates

    if not len(rows):
        raise BmcliError(
            f"there are no {split} rows to measure on.", path="evaluate.split",
            suggestion=f"Give data.split a share for {split}, or name another split.",
        )  # fmt: skip
    judged = predict_rows(recipe, network, spec, rows, split, placement)
    found = evaluate_predictions(recipe, spec, judged.truth, judged.predictions, RawColumnReader(recipe, split, raw))
    if run is not None:
        _write_evaluation(run, split, found)
    return EvaluationResult(run, split, found, find_missed_gates(recipe.evaluate.gates, found.metrics), judged)


def predict_rows(
    recipe: Recipe, network: Network, spec: DataSpec, rows: Split, split: str, placement: Placement
) -> Predictions:
    """What a network predicts of encoded rows, beside the truth."""
    from bmcli.data import targets as target_kinds
    from bmcli.evaluation.predictions import Predictions
    from bmcli.training.predictor import predict

    truth = {c.name: target_kinds.kind_of(c).decode(rows.targets[c.name], c) for c in spec.targets}
    return Predictions(split, rows, truth, predict(network, rows, recipe.runtime, placement))


def _write_evaluation(run: Run, split: str, evaluation: Evaluation) -> None:
    """Adds an evaluation to `evaluation.json`, beside those on other rows."""
    run.write(run.evaluation, {**run.read_evaluations(), split: {"at": runs.now(), **evaluation.to_json()}})
