"""Compare the winner of a search with the recipe as it is written, on rows that the search did not use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli.objectives import open_answers
from bmcli.runs import Run
from bmcli.workflows.evaluation import RawColumnReader, make_resampling
from bmcli.workflows.opening import load_run_recipe, open_run
from bmcli.workflows.paired_rows import MeasuredRows, have_same_rows
from bmcli.workflows.run_evaluation import predict_rows

if TYPE_CHECKING:
    from bmcli.evaluation.improvement import Improvement
    from bmcli.metrics.weighted_metrics import WeightedMetrics


@dataclass(frozen=True)
class _MeasuredRun:
    """A run with its metrics on a split."""

    rows: MeasuredRows
    weighted_metrics: WeightedMetrics
    count: int


def measure_improvement(written: Run, winner: Run, objective: str, split: str, cache: Path) -> Improvement | None:
    """Compute paired differences of all metrics between two runs with the same rows.

    Nothing is written into the runs.

    Args:
        written: Run of the recipe as it is written.
        objective: Metric by which the winner was chosen.

    Returns:
        None if the split has other rows in one of the runs.
    """
    first, second = _measure_run(written, split, cache), _measure_run(winner, split, cache)
    if not have_same_rows(first.rows, second.rows):
        return None
    from bmcli.evaluation.improvement import Improvement
    from bmcli.evaluation.intervals import compute_differences, resample_metrics

    resampling = make_resampling(first.rows.recipe, RawColumnReader(first.rows.recipe, split))
    samples = (resample_metrics(each.weighted_metrics, first.count, resampling) for each in (first, second))
    return Improvement(split, first.count, objective, compute_differences(*samples))


def _measure_run(run: Run, split: str, cache: Path) -> _MeasuredRun:
    """Predict the rows of a split with the network of a run."""
    from bmcli.evaluation import metrics

    loaded = load_run_recipe(run)
    opened = open_run(loaded, run, cache)
    recipe, spec, rows = opened.recipe, opened.prepared.spec, opened.prepared.split(split)
    predicted = predict_rows(recipe, opened.network, spec, rows, split, opened.placement)
    arguments = (predicted.truth, predicted.predictions, open_answers(spec), recipe.evaluate.top_k)
    measured = MeasuredRows(recipe, split, predicted.truth)
    return _MeasuredRun(measured, metrics.make_weighted_metrics(*arguments), len(rows))
