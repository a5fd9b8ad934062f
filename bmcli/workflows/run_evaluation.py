"""Evaluate the network of a run and keep the result in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli import disk, runs
from bmcli.errors import BmcliError, GateMissed
from bmcli.objectives import open_answers
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec, Split
from bmcli.workflows import report_data
from bmcli.workflows import unseen as unseen_cells
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.evaluation import RawColumnReader, evaluate_predictions, read_row_weights
from bmcli.workflows.opening import OpenedRun

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.sources import SourceRows
    from bmcli.distribution.strategy import Placement
    from bmcli.evaluation.gates import MissedGate
    from bmcli.evaluation.predictions import Predictions
    from bmcli.evaluation.result import Evaluation
    from bmcli.metrics.proportions import Interval
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation with its gates and predictions.

    Args:
        run: None on a worker that writes nothing.
        on: Name of a split or of a file.
        unseen: Number of cells unlike those of the training rows, by column; columns without are left out. Empty for
            a split, unless the recipe has a gate on them.
        warnings: Sentences about these.
    """

    run: Run | None
    on: str
    evaluation: Evaluation
    missed_gates: tuple[MissedGate, ...]
    predicted_rows: Predictions
    unseen: Mapping[str, int]
    warnings: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Return the metrics by full name, such as `test/accuracy`."""
        return {f"{self.on}/{name}": value for name, value in self.evaluation.metrics.items()}

    def baseline_metrics(self) -> dict[str, float]:
        """Return the metrics of the best constant predictions by full name."""
        return {f"{self.on}/{name}": value for name, value in self.evaluation.baseline_metrics.items()}

    def intervals(self) -> dict[str, Interval]:
        """Return the intervals by full name, for metrics that have one."""
        return {f"{self.on}/{name}": interval for name, interval in self.evaluation.intervals.items()}

    def require_gates(self) -> None:
        """Raise GateMissed if a metric is beyond its limit."""
        if self.missed_gates:
            raise GateMissed(*(f"gate missed: {self.on}/{missed}." for missed in self.missed_gates))


def evaluate_split(opened: OpenedRun, split: str) -> EvaluationResult:
    """Evaluate a run on one of its splits and write the result into the run."""
    run = opened.run if opened.placement.is_chief else None
    rows, spec = opened.prepared.split(split), opened.prepared.spec
    return evaluate_rows(opened.recipe, opened.network, spec, rows, split, run, opened.placement)


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
    """Evaluate a network on encoded rows and write the result into the run.

    Args:
        split: Name of the split or of the file that the rows are from.
        run: None on a worker that writes nothing.
        raw: The same rows before encoding; None for rows of the recipe's own split `split`.

    Raises:
        BmcliError: There are no rows.
    """
    from bmcli.evaluation.gates import find_missed_gates

    if not len(rows):
        raise BmcliError(
            f"there are no {split} rows to evaluate on.", path="evaluate.split",
            suggestion=f"Give data.split a share for {split}, or name another split.",
        )  # fmt: skip
    predicted = predict_rows(recipe, network, spec, rows, split, placement)
    raw_columns = RawColumnReader(recipe, split, raw)
    answers = open_answers(spec)
    row_weights = rows.weights if raw is None else read_row_weights(recipe, raw_columns)
    evaluation = evaluate_predictions(
        recipe, spec, answers, predicted.truth, predicted.predictions, raw_columns, row_weights
    )
    if run is not None:
        # Evaluations on other rows stay beside it.
        run.write(run.evaluation, {**run.read_evaluations(), split: {"at": runs.now(), **evaluation.to_json()}})
    unseen = _count_unseen(recipe, spec, rows, split, raw)
    limited = {**evaluation.metrics, unseen_cells.GATE: unseen_cells.compute_largest_share(unseen, len(rows))}
    missed_gates = find_missed_gates(recipe.evaluate.gates, limited)
    warnings = tuple(unseen_cells.describe_unseen(spec, unseen, len(rows)))
    return EvaluationResult(run, split, evaluation, missed_gates, predicted, unseen, warnings)


def _count_unseen(recipe: Recipe, spec: DataSpec, rows: Split, split: str, raw: SourceRows | None) -> dict[str, int]:
    """Count the unseen cells of other rows; those of a split only if a gate needs them, since its source is read."""
    if raw is None:
        if unseen_cells.GATE not in recipe.evaluate.gates:
            return {}
        from bmcli.data.invalid import take_source_rows
        from bmcli.data.raw_rows import reread_rows

        all_rows, indices = reread_rows(recipe.data, recipe.targets(), recipe.data_seed)
        raw = take_source_rows(all_rows, indices[split])
    return unseen_cells.count_unseen(spec, raw.columns, rows.inputs)


def predict_rows(
    recipe: Recipe, network: Network, spec: DataSpec, rows: Split, split: str, placement: Placement
) -> Predictions:
    """Predict encoded rows; the result also holds the truth."""
    from bmcli.evaluation.predictions import Predictions
    from bmcli.training.predictor import predict

    return Predictions(split, rows, decode_targets(spec, rows), predict(network, rows, recipe.runtime, placement))


def decode_targets(spec: DataSpec, rows: Split) -> dict[str, np.ndarray]:
    """Decode the targets of encoded rows, by name."""
    return {name: each.read_truth(rows) for name, each in open_answers(spec).items()}


def read_evaluation(run: Run, split: str, log: ReportCallback) -> Evaluation | None:
    """Read the evaluation on a split; None if there is none, and after a warning if it is damaged."""
    drop_damaged_evaluations(run, log)
    evaluations = run.read_evaluations()
    return report_data.parse_evaluation(run, split, evaluations[split], log) if split in evaluations else None


def drop_damaged_evaluations(run: Run, log: ReportCallback) -> None:
    """Remove an `evaluation.json` that cannot be read, so that new evaluations can be written."""
    try:
        run.read_evaluations()
    except BmcliError as error:
        log(f"warning: {error} A new evaluation replaces it.")
        disk.try_to_remove(run.evaluation)
