"""A cross-validation: each fold, means over the folds, and the evaluation of all tested rows together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.terminal.formats import format_interval, or_dash
from bmcli.terminal.presenters import evaluation

if TYPE_CHECKING:
    from bmcli.commands.folds import CrossValidationRun
    from bmcli.terminal.console import Console

MAX_FOLDS = 5


def to_json(result: CrossValidationRun) -> dict[str, Any]:
    folds = result.folds
    means = {f"folds/{name}": mean for name, mean in folds.means.items()}
    return {
        "run": str(result.run.folder),
        "metrics": {name: mean.mean for name, mean in means.items()},
        "intervals": {
            name: {"low": mean.low, "high": mean.high, "level": 0.95, "method": folds.method}
            for name, mean in means.items()
        },
        "standard_deviation": {name: mean.standard_deviation for name, mean in means.items()},
        "folds": [dict(fold.metrics) for fold in folds.folds],
        "pooled": dict(folds.pooled.metrics),
        **evaluation.meanings_to_json(folds.pooled),
        "baseline": folds.pooled.baseline_metrics,
        **evaluation.missed_gates_to_json(result),
    }


def print_result(console: Console, result: CrossValidationRun) -> None:
    folds = result.folds
    shown = folds.folds[:MAX_FOLDS]
    rows = [
        [
            name,
            mean.mean,
            mean.standard_deviation,
            format_interval(mean),
            or_dash(folds.pooled.baseline_metrics.get(name)),
            *(fold.metrics.get(name, "-") for fold in shown),
        ]
        for name, mean in folds.means.items()
    ]
    console.print_text(f"\n{len(folds.folds)} folds of {folds.pooled.count:,} rows, split {folds.splitter}")
    columns = ["metric", "mean", "std", "95 % interval", "baseline", *(f"fold {fold.number}" for fold in shown)]
    console.print_table("", columns, rows, mixed=True)
    evaluation.print_meanings(console, folds.pooled)
    evaluation.print_baselines(console, folds.pooled)
    console.log(f"intervals of means: {folds.method}", level=1)
    evaluation.print_details(console, folds.pooled)
    console.print_text(f"\nwrote {format_path(result.predictions)}, {format_path(result.run.report)}")
