"""A finished training with its evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.terminal.presenters import evaluation

if TYPE_CHECKING:
    from bmcli.terminal.console import Console
    from bmcli.workflows.training import TrainingResult

END_REASONS = {
    "epochs": "as requested",
    "patience": "stopped because nothing improved any more",
    "overfit": "stopped because it overfitted: the training loss fell while the validation loss rose",
    "steps": "stopped at the limit of steps",
    "time": "stopped at the limit of time",
    "metric": "stopped because the metric passed its threshold",
    "callback": "stopped by a callback",
}


def to_json(result: TrainingResult) -> dict[str, Any]:
    outcome = result.outcome
    return {
        "run": str(result.run.folder) if result.run else None,
        "metrics": result.metrics(),
        **evaluation.meanings_to_json(result.evaluation.evaluation if result.evaluation else None),
        **evaluation.baseline_to_json(result.evaluation),
        **evaluation.intervals_to_json(result.evaluation),
        "epochs": outcome.epochs,
        "selected_epoch": outcome.selected_epoch,
        "stop_reason": outcome.stop_reason,
        "seconds": round(outcome.train_s, 3),
        "examples_per_second": round(outcome.examples_per_second, 1),
        **evaluation.missed_gates_to_json(result.evaluation),
    }


def print_result(console: Console, result: TrainingResult) -> None:
    outcome = result.outcome
    unit = "epoch" if outcome.epochs == 1 else "epochs"
    console.print_text(
        f"{outcome.epochs} {unit} in {outcome.train_s:.1f} s of training ({outcome.examples_per_second:,.0f} "
        f"examples/s), {END_REASONS[outcome.stop_reason]}; epoch {outcome.selected_epoch} is kept."
    )
    console.print_table("", ["metric", "value"], list(outcome.metrics.items()), mixed=True)
    if result.evaluation:
        evaluation.print_result(console, result.evaluation)
    elif result.run:
        console.print_text(f"run  {result.run.display_path}")
