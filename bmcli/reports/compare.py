"""The page of a comparison of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli.evaluation.comparison import COSTS, Comparison, Contender
from bmcli.evaluation.intervals import Difference
from bmcli.number_texts import write_signed
from bmcli.printable import clean
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE, RED
from bmcli.reports.groups import make_interval_cell
from bmcli.reports.page import Cell, Heading, Row, format_duration, format_number, make_number_cell, render_page

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, "#2f9e77", "#7b61c9", RED, GREY)
_LINE_STYLES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))
_MAX_NAME_LENGTH = 34
_COST_AXES = {"latency_s": (1e3, "milliseconds to predict one row")}
"""Factors and names of axes, for costs that are drawn in another unit."""


def render_comparison(comparison: Comparison) -> str:
    """Render the page as a self-contained HTML file."""
    names = [clean(each.name) for each in comparison.contenders]
    return render_page(
        "compare.html",
        {
            "comparison": comparison,
            "recommendation": clean(comparison.recommendation),
            "unpaired_reason": clean(comparison.unpaired_reason),
            "metrics_head": [Heading("metric"), *(Heading(name, True) for name in names)],
            "metrics": _make_metric_rows(comparison),
            "costs": [_make_cost_row(comparison, each) for each in comparison.contenders],
            "costs_head": _COST_HEADINGS,
            "differences": _make_difference_rows(comparison),
            "differences_head": _DIFFERENCE_HEADINGS,
            "fronts": [
                (COSTS[cost], svg) for cost in ("parameters", "latency_s") if (svg := _draw_front(comparison, cost))
            ],
            "curves": _draw_curves(comparison),
            "recipes": _make_differing_rows(comparison.recipes),
            "recipes_head": [Heading("recipe key"), *(Heading(name) for name in names)],
            "data": _make_differing_rows(comparison.data),
            "data_head": [Heading("property"), *(Heading(name) for name in names)],
        },
    )


_COST_HEADINGS = [
    Heading("run"), Heading("parameters", True), Heading("model file, MB", True),
    Heading("latency of one row, ms", True), Heading("training time", True), Heading("directory"),
]  # fmt: skip
_DIFFERENCE_HEADINGS = [
    Heading("run"), Heading("metric"), Heading("difference", True), Heading("confidence interval", True),
    Heading("p-value", True), Heading("result"),
]  # fmt: skip


def _make_metric_rows(comparison: Comparison) -> list[Row]:
    names = dict.fromkeys(name for each in comparison.contenders for name in each.metrics)
    return [
        Row(
            (
                Cell(clean(name)),
                *(
                    make_interval_cell(each.metrics.get(name), each.intervals.get(name))
                    for each in comparison.contenders
                ),
            ),
            best=name == comparison.metric,
        )
        for name in names
    ]


def _make_cost_row(comparison: Comparison, contender: Contender) -> Row:
    cells = (
        Cell(clean(contender.name)),
        make_number_cell(contender.parameters),
        make_number_cell(contender.size / 1e6),
        make_number_cell(1e3 * contender.latency_s),
        make_number_cell(contender.train_s, format_duration(contender.train_s))
        if contender.train_s is not None
        else Cell("", "number", ""),
        Cell(clean(contender.run), "long"),
    )
    return Row(cells, best=contender is comparison.recommended)


def _make_difference_rows(comparison: Comparison) -> list[Row]:
    first = comparison.contenders[0].name
    return [
        _make_difference_row(name, first, each, is_same=comparison.same_predictions.get(name) == first)
        for name, differences in comparison.against_first.items()
        for each in sorted(differences.values(), key=lambda one: one.metric != comparison.metric)
    ]


def _make_difference_row(name: str, first: str, difference: Difference, is_same: bool) -> Row:
    interval = difference.interval
    verdict = {"first": f"{first} is better", "second": f"{name} is better", "": "no significant difference"}[
        difference.better
    ]
    if not difference.direction and interval is not None and not interval.low <= 0 <= interval.high:
        verdict = "significant difference"
    reason = "same predictions" if is_same else difference.reason
    return Row(
        (
            Cell(clean(name)),
            Cell(clean(difference.metric)),
            make_number_cell(difference.difference, write_signed(difference.difference)),
            Cell(f"{write_signed(interval.low)} to {write_signed(interval.high)}" if interval else "none", "number"),
            make_number_cell(
                difference.p_value, "< 0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"
            ),
            Cell(clean(verdict)) if interval else Cell(clean(reason), "long"),
        )
    )


def _draw_front(comparison: Comparison, cost: str) -> Markup | None:
    """Draw the metric with its intervals against a cost, and the Pareto front."""
    factor, axis_name = _COST_AXES.get(cost, (1.0, COSTS[cost]))
    priced = [(each, factor * price) for each in comparison.contenders if (price := each.cost(cost)) is not None]
    if len(priced) < 2:
        return None
    metric = comparison.metric

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        front = [(factor * (each.cost(cost) or 0.0), each.metrics[metric]) for each in comparison.pareto_front(cost)]
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1, zorder=1)
        for index, (each, price) in enumerate(priced):
            colour, interval = _COLOURS[index % len(_COLOURS)], each.intervals.get(metric)
            if interval:
                axes.plot([price, price], [interval.low, interval.high], color=colour, linewidth=1.2)
            star = " ★" if each is comparison.recommended else ""
            label = figures.shorten(clean(each.name), _MAX_NAME_LENGTH) + star
            axes.scatter([price], [each.metrics[metric]], color=colour, s=34, zorder=3, label=label, linewidths=0)
        _set_cost_axis(axes, [price for _, price in priced])
        axes.set_xlabel(axis_name)
        axes.set_ylabel(figures.shorten(clean(metric), 30))
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.3)

    return figures.render_svg(f"front-{cost}", f"{clean(metric)} against {COSTS[cost]}", (7.2, 3.4), draw)


def _set_cost_axis(axes: Axes, costs: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if min(costs) > 0 and max(costs) >= 5 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))


def _draw_curves(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Draw each metric that at least two runs have by epoch, with one line for each run."""
    curves: list[tuple[str, Markup]] = []
    names = dict.fromkeys(n for each in comparison.contenders for row in each.epochs for n in row if "/" in n)
    for name in names:
        drawn = [(each, points) for each in comparison.contenders if (points := _list_points(each, name))]
        if len(drawn) > 1:
            curves.append((clean(name), _draw_curve(name, drawn, f"curve-{len(curves)}")))
    return curves


def _list_points(contender: Contender, name: str) -> list[tuple[int, float]]:
    return [(row["epoch"], value) for row in contender.epochs if (value := row.get(name)) is not None]


def _draw_curve(name: str, points_by_run: list[tuple[Contender, list[tuple[int, float]]]], figure_id: str) -> Markup:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        for index, (each, points) in enumerate(points_by_run):
            axes.plot(
                *zip(*points, strict=True), color=_COLOURS[index % len(_COLOURS)], linewidth=1.3,
                linestyle=_LINE_STYLES[index % len(_LINE_STYLES)], marker="o" if len(points) == 1 else None,
                label=figures.shorten(clean(each.name), 22),
            )  # fmt: skip
        figures.set_integer_ticks(axes)
        axes.set_xlabel("epoch")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.4)

    return figures.render_svg(figure_id, f"{clean(name)} of each run", (3.5, 2.6), draw)


def _make_differing_rows(values: Mapping[str, tuple[str, ...]]) -> list[Row]:
    return [
        Row((Cell(clean(path)), *(Cell(clean(each)) for each in values_of_runs)))
        for path, values_of_runs in values.items()
    ]
