"""A comparison of runs, and the one that it recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.terminal.formats import format_interval

if TYPE_CHECKING:
    from bmcli.commands.compare import ComparisonResult
    from bmcli.evaluation.comparison import Comparison, Contender
    from bmcli.terminal.console import Console


def to_json(result: ComparisonResult) -> dict[str, Any]:
    return {**result.comparison.to_json(), "report": None if result.page is None else str(result.page)}


def print_result(console: Console, result: ComparisonResult) -> None:
    from bmcli.metrics.classification import describe_positive

    comparison = result.comparison
    columns = ["run", comparison.metric, "interval", "parameters", "MB", "ms a row", "s of training", ""]
    rows = [_make_row(each, comparison) for each in comparison.contenders]
    console.print_table(f"{comparison.rows:,} rows of {comparison.split}", columns, rows)
    for sentence in describe_positive(comparison.positive):
        console.print_text(sentence)
    console.print_text("")
    first = comparison.contenders[0].name
    for name, differences in comparison.against_first.items():
        if comparison.same_predictions.get(name) != first:  # the recommendation names those that predict the same
            console.print_text(differences[comparison.metric].summary(first, name))
    names = [each.name for each in comparison.contenders]
    _print_differences(console, "where the recipes differ", ["path", *names], comparison.recipes)
    _print_differences(console, "where the data differs", ["data", *names], comparison.data)
    console.print_text(f"\n{comparison.recommendation}")
    if result.page is not None:
        console.print_text(f"wrote {format_path(result.page)}")


def _make_row(contender: Contender, comparison: Comparison) -> list[object]:
    return [
        contender.name,
        contender.metrics[comparison.metric],
        format_interval(contender.intervals.get(comparison.metric)),
        f"{contender.parameters:,}",
        f"{contender.size / 1e6:.2f}",
        f"{1e3 * contender.latency_s:.2f}",
        "-" if contender.train_s is None else f"{contender.train_s:.1f}",
        "recommended" if contender is comparison.recommended else "",
    ]


def _print_differences(
    console: Console, title: str, columns: Sequence[str], values: Mapping[str, Sequence[str]]
) -> None:
    if values:
        console.print_text("")
        console.print_table(title, columns, [[name, *each] for name, each in values.items()])
