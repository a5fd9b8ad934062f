"""An evaluation: metrics with their intervals, classes, calibration, slices and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bmcli.disk import format_path
from bmcli.number_texts import write_measure, write_signed
from bmcli.quoting import MAX_SHOWN, brief
from bmcli.terminal.formats import format_interval, format_p_value, format_rate, or_dash

if TYPE_CHECKING:
    from bmcli.evaluation.fairness import Fairness
    from bmcli.evaluation.gates import MissedGate
    from bmcli.evaluation.result import Evaluation
    from bmcli.evaluation.slices import Slices
    from bmcli.terminal.console import Console
    from bmcli.workflows.run_evaluation import EvaluationResult

MAX_SLICES = 10
_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")


class HasGates(Protocol):
    """A result that was held against the gates of a recipe."""

    @property
    def missed_gates(self) -> Sequence[MissedGate]: ...


def to_json(result: EvaluationResult) -> dict[str, Any]:
    return {
        "run": str(result.run.folder) if result.run else None,
        "metrics": result.metrics(),
        **meanings_to_json(result.evaluation),
        **baseline_to_json(result),
        **intervals_to_json(result),
        "unseen": dict(result.unseen),
        **missed_gates_to_json(result),
    }


def meanings_to_json(evaluation: Evaluation | None) -> dict[str, Any]:
    """List the positive classes by target, and the column of the weights of rows, where there are some."""
    if evaluation is None:
        return {}
    values = {"positive": dict(evaluation.positive), "weight": evaluation.weight}
    return {name: value for name, value in values.items() if value}


def baseline_to_json(result: EvaluationResult | None) -> dict[str, Any]:
    baseline = result.baseline_metrics() if result else {}
    return {"baseline": baseline} if baseline else {}


def intervals_to_json(result: EvaluationResult | None) -> dict[str, Any]:
    return {"intervals": {name: each.to_json() for name, each in result.intervals().items()}} if result else {}


def missed_gates_to_json(result: HasGates | None) -> dict[str, Any]:
    return {"missed_gates": [str(gate) for gate in result.missed_gates]} if result and result.missed_gates else {}


def print_result(console: Console, result: EvaluationResult) -> None:
    run, evaluation = result.run, result.evaluation
    console.print_text("")
    console.print_table(f"{evaluation.count:,} rows of {result.on}", *_tabulate_metrics(result), mixed=True)
    print_meanings(console, evaluation)
    print_baselines(console, evaluation)
    for method in dict.fromkeys(interval.method for interval in evaluation.intervals.values()):
        console.log(f"intervals: {method}", level=1)
    for name, reason in evaluation.without_interval.items():
        console.log(f"{name} has no interval: {reason}", level=1)
    print_details(console, evaluation)
    for warning in result.warnings:
        console.log(warning)
    if run:
        report = f"\nreport  {format_path(run.report)}" if run.report.exists() else ""
        console.print_text(f"{report}\nrun  {run.display_path}")


def _tabulate_metrics(result: EvaluationResult) -> tuple[list[str], list[list[object]]]:
    """Make columns and rows of a table of metrics."""
    metrics, intervals, baseline = result.metrics(), result.intervals(), result.baseline_metrics()
    columns: dict[str, list[object]] = {"metric": [*metrics], "value": [*metrics.values()]}
    if baseline:
        columns["baseline"] = [or_dash(baseline.get(name)) for name in metrics]
    if level := next((f"{100 * each.level:.3g} %" for each in intervals.values()), ""):
        columns[f"{level} interval"] = [format_interval(intervals.get(name)) for name in metrics]
    return [*columns], [list(row) for row in zip(*columns.values(), strict=True)]


def print_meanings(console: Console, evaluation: Evaluation) -> None:
    """Print of which class and with which weights the metrics are."""
    for sentence in evaluation.meanings:
        console.print_text(sentence)


def print_baselines(console: Console, evaluation: Evaluation) -> None:
    """Print the prediction of each baseline, and a sentence where the model is no better."""
    for each in evaluation.baselines:
        of = f" of {brief(each.output, MAX_SHOWN)}" if len(evaluation.baselines) > 1 else ""
        console.print_text(f"baseline{of}: {each.prediction}")
        if not each.is_beaten:
            own, constant = (write_measure(metrics[each.metric]) for metrics in (evaluation.metrics, each.metrics))
            console.log(
                f"warning: {each.metric} {own} is no better than that of the baseline, {constant}, which ignores the "
                "inputs."
            )


def print_details(console: Console, evaluation: Evaluation) -> None:
    """Print what an evaluation holds beside its metrics."""
    for target, classes in evaluation.per_class.items():
        rows = [[row.name, *map(or_dash, (row.precision, row.recall, row.f1)), row.support] for row in classes]
        console.print_text("")
        console.print_table(target, ["class", "precision", "recall", "f1", "rows"], rows)
    for name, reason in evaluation.undefined.items():
        console.log(f"{name} is undefined: {reason}", level=1)
    for target, calibration in evaluation.calibration.items():
        console.print_text(f"\n{target}: {calibration.summary}")
    for slices in evaluation.slices:
        _print_slices(console, slices)
    for fairness in evaluation.fairness:
        _print_fairness(console, fairness)


def _print_slices(console: Console, table: Slices) -> None:
    rows = [
        [
            each.slicing,
            each.name,
            each.rows,
            each.value,
            format_interval(each.interval),
            write_signed(each.difference),
            format_p_value(each.adjusted_p_value),
        ]
        for each in table.slices[:MAX_SLICES]
    ]
    console.print_text("")
    columns = ["slice by", "", "rows", table.metric, "interval", "against the rest", "p adjusted"]
    console.print_table(
        f"{table.target} by slice, the worst first; of all rows {table.metric} {write_measure(table.overall)}",
        columns,
        rows,
    )
    console.print_text(table.summary)


def _print_fairness(console: Console, comparison: Fairness) -> None:
    rows = [
        [group.name, group.rows, *(format_rate(getattr(group, rate)) for rate in _RATES)] for group in comparison.groups
    ]
    console.print_text("")
    console.print_table(
        f"'{comparison.positive}' by {comparison.column}",
        [comparison.column, "rows", *(rate.replace("_", " ") for rate in _RATES)],
        rows,
    )
    console.print_text(comparison.summary)
