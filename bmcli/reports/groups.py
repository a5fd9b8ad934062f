"""Report section on slices and on the fairness between groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bmcli.evaluation.fairness import RATES, Fairness, GroupRates, Rate
from bmcli.evaluation.slices import Slices
from bmcli.metrics.proportions import Interval
from bmcli.number_texts import write_measure, write_signed
from bmcli.printable import clean
from bmcli.reports.page import Cell, Heading, Row, format_number, make_number_cell

_MAX_SLICES = 15


@dataclass(frozen=True)
class ReportTable:
    """A table with a title and a summary."""

    title: str
    summary: str
    head: list[Heading]
    rows: list[Row]


def make_interval_cell(value: float | None, interval: Interval | None) -> Cell:
    """Make a cell with a metric and its interval."""
    if value is None or interval is None:
        return make_number_cell(value)
    return make_number_cell(
        value, f"{write_measure(value)} ({write_measure(interval.low)} to {write_measure(interval.high)})"
    )


def make_slice_tables(slices_by_target: Sequence[Slices]) -> list[ReportTable]:
    """Make a table of the slices of each target, the worst first."""
    return [
        ReportTable(
            f"{clean(table.target)} by slice, the worst first",
            f"{table.metric} over all rows: {format_number(table.overall)}; {clean(table.summary)}.",
            [
                Heading("column"),
                Heading("slice"),
                Heading("rows", True),
                Heading(table.metric, True),
                Heading("difference from other rows", True),
                Heading("adjusted p-value", True),
            ],
            [
                Row(
                    (
                        Cell(clean(slice_.slicing)),
                        Cell(clean(slice_.name)),
                        make_number_cell(slice_.rows),
                        make_interval_cell(slice_.value, slice_.interval),
                        make_number_cell(slice_.difference, write_signed(slice_.difference)),
                        make_number_cell(
                            slice_.adjusted_p_value,
                            "< 0.001" if slice_.adjusted_p_value < 0.001 else f"{slice_.adjusted_p_value:.3f}",
                        ),
                    )
                )
                for slice_ in table.slices[:_MAX_SLICES]
            ],
        )
        for table in slices_by_target
    ]


def make_fairness_tables(fairness: Sequence[Fairness]) -> list[ReportTable]:
    """Make a table of the rates of each group, for each column of groups."""
    return [
        ReportTable(
            f"Predictions of “{clean(each.positive)}” by {clean(each.column)}",
            f"{clean(each.summary)}.",
            [
                Heading(clean(each.column)),
                Heading("rows", True),
                *(Heading(rate.replace("_", " "), True) for rate in RATES),
            ],
            [_make_group_row(group) for group in each.groups],
        )
        for each in fairness
    ]


def _make_group_row(group: GroupRates) -> Row:
    rates = (_make_rate_cell(getattr(group, rate)) for rate in RATES)
    return Row((Cell(clean(group.name)), make_number_cell(group.rows), *rates))


def _make_rate_cell(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell("", "number", "")
    return make_number_cell(rate.value, f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})")
