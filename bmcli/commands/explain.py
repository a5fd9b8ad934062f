"""`bmcli explain`: attribute the predictions of a run to its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import training
from bmcli.errors import BmcliError
from bmcli.runs import Run
from bmcli.specs import SPLITS
from bmcli.workflows.callbacks import ReportCallback
from bmcli.workflows.opening import OpenedRun, find_run, load_run_recipe, open_run
from bmcli.workflows.reporting import report_split
from bmcli.workflows.run_evaluation import predict_rows

if TYPE_CHECKING:
    from bmcli.evaluation.explanation_record import Explanation
    from bmcli.networks.network import Network


@dataclass(frozen=True)
class ExplanationRequest:
    """Options of an explanation.

    Args:
        split: Rows to explain; None for validation rows, or for test rows if there are none of these.
        rows: Largest number of rows on which importance is measured.
        repeats: Number of permutations of each column.
        examples: Number of the most wrong predictions, and of the least confident ones.
    """

    split: str | None
    rows: int
    repeats: int
    examples: int


@dataclass(frozen=True)
class ExplanationResult:
    """An explanation and the run that keeps it."""

    run: Run
    explanation: Explanation


def explain(
    target: str, request: ExplanationRequest, root: Path, cache: Path, log: ReportCallback
) -> ExplanationResult:
    """Explain a run; write `explanation.json` and update the report.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        log: Takes warnings about damaged files, which the report leaves out.
    """
    run = find_run(target, root)
    loaded = load_run_recipe(run)
    try:
        opened = open_run(loaded, run, cache)
        explanation = _compute_explanation(opened, request)
        run.write(run.explanation, explanation.to_json())
        split = loaded.recipe.evaluate.split
        if opened.prepared.spec.counts[split]:
            report_split(opened, split, log)
    except BmcliError as error:
        raise loaded.locate(error) from None
    return ExplanationResult(run, explanation)


def _compute_explanation(opened_run: OpenedRun, request: ExplanationRequest) -> Explanation:
    from bmcli.explanation.explain import ExplanationContext, explain_network

    recipe, spec, train = opened_run.recipe, opened_run.prepared.spec, opened_run.prepared.split("train")
    split = request.split or next(name for name in (*SPLITS[1:], SPLITS[0]) if spec.counts[name])
    if not spec.counts[split]:
        raise BmcliError(f"there are no {split} rows to explain.", suggestion="Name another split with --split.")
    rows = opened_run.prepared.split(split)
    predicted = predict_rows(recipe, opened_run.network, spec, rows, split, opened_run.placement)

    def build_random_network() -> Network:
        """Build the network with random weights, whose attributions must differ for the sanity check."""
        return training.build_network(recipe, spec, train.targets, opened_run.placement)

    context = ExplanationContext(opened_run.network, build_random_network, spec, train)
    return explain_network(context, predicted, request.rows, request.repeats, request.examples)
