"""`bmcli explain`: why a run's model answers as it does."""

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
    """How closely to look.

    Args:
        split: The rows to explain; None for those of the validation, or of the test if there are none.
        rows: To measure importance on, at most.
        repeats: How often each column is dealt anew among the rows.
        examples: Of the most wrong, and of the most doubtful.
    """

    split: str | None
    rows: int
    repeats: int
    examples: int


@dataclass(frozen=True)
class ExplanationResult:
    run: Run
    explanation: Explanation


def explain(
    target: str, request: ExplanationRequest, root: Path, cache: Path, log: ReportCallback
) -> ExplanationResult:
    """Explains a run, writes `explanation.json`, and the report anew.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        log: Hears what is damaged and left out of the report.
    """
    run = find_run(target, root)
    loaded = load_run_recipe(run)
    try:
        opened = open_run(loaded, run, cache)
        explanation = _compute_explanation(opened, request)
        run.write(run.explanation, explanation.to_json())
        on = loaded.recipe.evaluate.split
        if opened.prepared.spec.counts[on]:
            report_split(opened, on, log)
    except BmcliError as error:
        raise loaded.locate(error) from None
    return ExplanationResult(run, explanation)


def _compute_explanation(opened_run: OpenedRun, request: ExplanationRequest) -> Explanation:
    from bmcli.explanation.explain import ExplanationContext, explain_network

    recipe, spec, train = opened_run.recipe, opened_run.prepared.spec, opened_run.prepared.split("train")
    on = request.split or next(split for split in (*SPLITS[1:], SPLITS[0]) if spec.counts[split])
    if not spec.counts[on]:
        raise BmcliError(f"there are no {on} rows to explain.", suggestion="Name another split with --split.")

    def random() -> Network:
        return training.build_network(recipe, spec, train.targets, opened_run.placement)

    judged = predict_rows(recipe, opened_run.network, spec, opened_run.prepared.split(on), on, opened_run.placement)
    subject = ExplanationContext(opened_run.network, random, spec, recipe.quantiles(), train)
    return explain_network(subject, judged, request.rows, request.repeats, request.examples)
