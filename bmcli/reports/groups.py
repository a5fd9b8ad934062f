"""The part of a report that tells for which rows a model does worse, and whether it treats groups alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bmcli.console import clean
from bmcli.evaluation.fairness import RATES, Fairness, Group, Rate
from bmcli.evaluation.proportions import Interval
from bmcli.evaluation.slices import Slices
from bmcli.reports.page import Cell, Heading, Row, number, number_cell

_SHOWN = 15


@dataclass(frozen=True)
class Table:
    """A table with what is to be said of it."""

    title: str
    words: str
    head: list[Heading]
    rows: list[Row]


def with_interval(value: float | None, interval: Interval | None) -> Cell:
    """A figure and where its true value lies."""
    if value is None or interval is None:
        return number_cell(value)
    return number_cell(value, f"{number(value)} ({number(interval.low)} to {number(interval.high)})")


def slices(found: Sequence[Slices]) -> list[Table]:
    """The slices of each target, the worst first."""
    return [
        Table(
            f"{clean(each.target)} by slice, the worst first",
            f"Of all rows {each.metric} is {number(each.overall)}; {clean(each.words)}.",
            [
                Heading("column"), Heading("slice"), Heading("rows", True), Heading(each.metric, True),
                Heading("against the rest", True), Heading("p, adjusted", True),
            ],
            [
                Row((
                    Cell(clean(one.of)), Cell(clean(one.name)), number_cell(one.rows),
                    with_interval(one.value, one.interval), number_cell(one.difference, f"{one.difference:+.4f}"),
                    number_cell(one.adjusted, "< 0.001" if one.adjusted < 0.001 else f"{one.adjusted:.3f}"),
                ))
                for one in each.slices[:_SHOWN]
            ],
        )
        for each in found
    ]  # fmt: skip


def fairness(found: Sequence[Fairness]) -> list[Table]:
    """What each group gets, by column that tells groups."""
    return [
        Table(
            f"“{clean(each.positive)}” by {clean(each.column)}",
            f"{clean(each.words)}.",
            [
                Heading(clean(each.column)),
                Heading("rows", True),
                *(Heading(rate.replace("_", " "), True) for rate in RATES),
            ],
            [_group_row(group) for group in each.groups],
        )
        for each in found
    ]


def _group_row(group: Group) -> Row:
    rates = (_rate(getattr(group, rate)) for rate in RATES)
    return Row((Cell(clean(group.name)), number_cell(group.rows), *rates))


def _rate(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell("", "number", "")
    return number_cell(rate.value, f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})")
