"""The page of a comparison of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli.console import clean
from bmcli.evaluation.comparison import COSTS, Comparison, Contender
from bmcli.evaluation.directions import direction
from bmcli.evaluation.intervals import Difference
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE, RED
from bmcli.reports.groups import with_interval
from bmcli.reports.page import Cell, Heading, Row, duration, number, number_cell, page

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, "#2f9e77", "#7b61c9", RED, GREY)
_STYLES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))
_NAME = 34
_AXES = {"latency_s": (1e3, "milliseconds to predict one row")}
"""Factors and names of axes, where another unit reads better than that of a cost."""


def report(comparison: Comparison) -> str:
    """The page as HTML, one file that needs nothing else."""
    names = [clean(each.name) for each in comparison.contenders]
    return page(
        "compare.html",
        {
            "comparison": comparison,
            "advice": clean(comparison.advice),
            "unpaired": clean(comparison.unpaired),
            "metrics_head": [Heading("metric"), *(Heading(name, True) for name in names)],
            "metrics": _metrics(comparison),
            "costs": [_cost_row(comparison, each) for each in comparison.contenders],
            "costs_head": _COSTS_HEAD,
            "differences": _differences(comparison),
            "differences_head": _DIFFERENCES_HEAD,
            "fronts": [(COSTS[cost], svg) for cost in ("parameters", "latency_s") if (svg := _front(comparison, cost))],
            "curves": _curves(comparison),
            "recipes": _differing(comparison.recipes),
            "recipes_head": [Heading("path"), *(Heading(name) for name in names)],
            "data": _differing(comparison.data),
            "data_head": [Heading("data"), *(Heading(name) for name in names)],
        },
    )


_COSTS_HEAD = [
    Heading("run"), Heading("parameters", True), Heading("saved, MB", True), Heading("one row, ms", True),
    Heading("training", True), Heading("folder"),
]  # fmt: skip
_DIFFERENCES_HEAD = [
    Heading("run"), Heading("metric"), Heading("difference", True), Heading("interval", True), Heading("p", True),
    Heading("verdict"),
]  # fmt: skip


def _metrics(comparison: Comparison) -> list[Row]:
    names = dict.fromkeys(name for each in comparison.contenders for name in each.metrics)
    return [
        Row(
            (
                Cell(clean(name)),
                *(with_interval(each.metrics.get(name), each.intervals.get(name)) for each in comparison.contenders),
            ),
            best=name == comparison.metric,
        )
        for name in names
    ]


def _cost_row(comparison: Comparison, each: Contender) -> Row:
    cells = (
        Cell(clean(each.name)),
        number_cell(each.parameters),
        number_cell(each.size / 1e6),
        number_cell(1e3 * each.latency_s),
        number_cell(each.train_s, duration(each.train_s)) if each.train_s is not None else Cell("", "number", ""),
        Cell(clean(each.run), "long"),
    )
    return Row(cells, best=each is comparison.enough and not comparison.unpaired)


def _differences(comparison: Comparison) -> list[Row]:
    first = comparison.contenders[0].name
    return [
        _difference_row(name, first, each)
        for name, found in comparison.against_first.items()
        for each in sorted(found.values(), key=lambda one: one.metric != comparison.metric)
    ]


def _difference_row(name: str, first: str, each: Difference) -> Row:
    interval = each.interval
    verdict = {"first": f"{first} is better", "second": f"{name} is better", "": "no difference is shown"}[each.better]
    if not direction(each.metric) and interval is not None and not interval.low <= 0 <= interval.high:
        verdict = "they differ"
    return Row(
        (
            Cell(clean(name)),
            Cell(clean(each.metric)),
            number_cell(each.difference, f"{each.difference:+.4f}"),
            Cell(f"{interval.low:+.4f} to {interval.high:+.4f}" if interval else "none", "number"),
            number_cell(each.p_value, "< 0.001" if each.p_value < 0.001 else f"{each.p_value:.3f}"),
            Cell(clean(verdict)) if interval else Cell(clean(each.reason), "long"),
        )
    )


def _front(comparison: Comparison, cost: str) -> Markup | None:
    """Quality against cost with its intervals; the line joins the runs that no other beats at their cost."""
    scale, told = _AXES.get(cost, (1.0, COSTS[cost]))
    priced = [(each, scale * price) for each in comparison.contenders if (price := each.cost(cost)) is not None]
    if len(priced) < 2:
        return None
    metric = comparison.metric

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.light_grid(axes)
        front = [(scale * (each.cost(cost) or 0.0), each.metrics[metric]) for each in comparison.front(cost)]
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1, zorder=1)
        for place, (each, price) in enumerate(priced):
            colour, interval = _COLOURS[place % len(_COLOURS)], each.intervals.get(metric)
            if interval:
                axes.plot([price, price], [interval.low, interval.high], color=colour, linewidth=1.2)
            taken = each is comparison.enough and not comparison.unpaired
            label = figures.shortened(clean(each.name), _NAME) + (" ★" if taken else "")
            axes.scatter([price], [each.metrics[metric]], color=colour, s=34, zorder=3, label=label, linewidths=0)
        _priced(axes, [price for _, price in priced])
        axes.set_xlabel(told)
        axes.set_ylabel(figures.shortened(clean(metric), 30))
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.3)

    return figures.svg(f"front-{cost}", f"{clean(metric)} against {COSTS[cost]}", (7.2, 3.4), draw)


def _priced(axes: Axes, prices: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if min(prices) > 0 and max(prices) >= 5 * min(prices):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _curves(comparison: Comparison) -> list[tuple[str, Markup]]:
    """Every figure that two runs or more measured after their epochs, laid over each other."""
    found: list[tuple[str, Markup]] = []
    names = dict.fromkeys(n for each in comparison.contenders for row in each.epochs for n in row if "/" in n)
    for name in names:
        drawn = [(each, points) for each in comparison.contenders if (points := _points(each, name))]
        if len(drawn) > 1:
            found.append((clean(name), _curve(name, drawn, f"curve-{len(found)}")))
    return found


def _points(each: Contender, name: str) -> list[tuple[int, float]]:
    return [(row["epoch"], value) for row in each.epochs if (value := row.get(name)) is not None]


def _curve(name: str, drawn: list[tuple[Contender, list[tuple[int, float]]]], id_: str) -> Markup:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.light_grid(axes)
        for place, (each, points) in enumerate(drawn):
            axes.plot(
                *zip(*points, strict=True), color=_COLOURS[place % len(_COLOURS)], linewidth=1.3,
                linestyle=_STYLES[place % len(_STYLES)], marker="o" if len(points) == 1 else None,
                label=figures.shortened(clean(each.name), 22),
            )  # fmt: skip
        figures.whole_numbers(axes)
        axes.set_xlabel("epoch")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.4)

    return figures.svg(id_, f"{clean(name)} of each run", (3.5, 2.6), draw)


def _differing(values: Mapping[str, tuple[str, ...]]) -> list[Row]:
    return [Row((Cell(clean(path)), *(Cell(clean(each)) for each in found))) for path, found in values.items()]
