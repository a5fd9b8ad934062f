"""The part of a report that tells for which rows a model does worse, and whether it treats groups alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bmcli.evaluation.fairness import RATES, Fairness, GroupRates, Rate
from bmcli.evaluation.proportions import Interval
from bmcli.evaluation.slices import Slices
from bmcli.printable import clean
from bmcli.reports.page import Cell, Heading, Row, format_number, make_number_cell

_MAX_SLICES = 15


@dataclass(frozen=True)
class ReportTable:
    """A table with what is to be said of it."""

    title: str
    summary: str
    head: list[Heading]
    rows: list[Row]


def make_interval_cell(value: float | None, interval: Interval | None) -> Cell:
    """A figure and where its true value lies."""
    if value is None or interval is None:
        return make_number_cell(value)
    return make_number_cell(
        value, f"{format_number(value)} ({format_number(interval.low)} to {format_number(interval.high)})"
    )


def make_slice_tables(found: Sequence[Slices]) -> list[ReportTable]:
    """The slices of each target, the worst first."""
    return [
        ReportTable(
            f"{clean(each.target)} by slice, the worst first",
            f"Of all rows {each.metric} is {format_number(each.overall)}; {clean(each.summary)}.",
            [
                Heading("column"),
                Heading("slice"),
                Heading("rows", True),
                Heading(each.metric, True),
                Heading("against the rest", True),
                Heading("p, adjusted", True),
            ],
            [
                Row(
                    (
                        Cell(clean(one.of)),
                        Cell(clean(one.name)),
                        make_number_cell(one.rows),
                        make_interval_cell(one.value, one.interval),
                        make_number_cell(one.difference, f"{one.difference:+.4f}"),
                        make_number_cell(one.adjusted, "< 0.001" if one.adjusted < 0.001 else f"{one.adjusted:.3f}"),
                    )
                )
                for one in each.slices[:_MAX_SLICES]
            ],
        )
        for each in found
    ]


def make_fairness_tables(found: Sequence[Fairness]) -> list[ReportTable]:
    """What each group gets, by column that tells groups."""
    return [
        ReportTable(
            f"“{clean(each.positive)}” by {clean(each.column)}",
            f"{clean(each.summary)}.",
            [
                Heading(clean(each.column)),
                Heading("rows", True),
                *(Heading(rate.replace("_", " "), True) for rate in RATES),
            ],
            [_make_group_row(group) for group in each.groups],
        )
        for each in found
    ]


def _make_group_row(group: GroupRates) -> Row:
    rates = (_make_rate_cell(getattr(group, rate)) for rate in RATES)
    return Row((Cell(clean(group.name)), make_number_cell(group.rows), *rates))


def _make_rate_cell(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell("", "number", "")
    return make_number_cell(rate.value, f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})")
