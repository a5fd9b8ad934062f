"""The parts of a report that tell what training anew showed: cross-validation, and the learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.console import clean
from bmcli.evaluation.folds import Fold, Folds, Mean
from bmcli.evaluation.learning_curve import LearningCurve, Scores
from bmcli.evaluation.proportions import Interval
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE
from bmcli.reports.groups import with_interval
from bmcli.reports.page import Cell, Heading, Row, duration, number, number_cell

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADLINES = (
    "accuracy", "subset_accuracy", "f1_macro", "quadratic_kappa", "roc_auc", "roc_auc_macro", "mae", "rmse", "r2",
    "poisson_deviance", "pinball", "coverage",
)  # fmt: skip
"""Metrics to see first."""

_SMALL, _MOST = (3.5, 2.4), 4


def headlines(names: Sequence[str], most: int) -> list[str]:
    """Those of some metrics that are to be seen first."""
    return [name for name in names if name.rpartition("/")[2] in HEADLINES][:most]


@dataclass(frozen=True)
class ShownFolds:
    """A cross-validation, for the template."""

    words: str
    method: str
    means_head: list[Heading]
    means: list[Row]
    figures: list[tuple[str, Markup]]
    folds_head: list[Heading]
    folds: list[Row]


def shown_folds(found: Folds) -> ShownFolds:
    """The cross-validation as a page shows it."""
    names = headlines(list(found.means), _MOST)
    return ShownFolds(
        words=clean(f"{len(found.folds)} folds of {found.together.count:,} rows, dealt {found.dealt}."),
        method=clean(found.method),
        means_head=[
            Heading("metric"), Heading("mean of the folds", True), Heading("spread", True),
            Heading("95 % interval of the mean", True), Heading("all rows out of fold", True),
        ],
        means=[_mean_row(name, mean, found) for name, mean in found.means.items()],
        figures=[(clean(name), _fold_figure(name, found, f"fold-{place}")) for place, name in enumerate(names)],
        folds_head=[
            Heading("fold", True), Heading("trained on", True), Heading("tested on", True), Heading("epochs", True),
            Heading("time", True), *(Heading(clean(name), True) for name in names),
        ],
        folds=[_fold_row(each, names) for each in found.folds],
    )  # fmt: skip


def _mean_row(name: str, mean: Mean, found: Folds) -> Row:
    together = found.together
    return Row(
        (
            Cell(clean(name)),
            number_cell(mean.mean),
            number_cell(mean.spread),
            Cell(f"{number(mean.low)} to {number(mean.high)}", "number"),
            with_interval(together.metrics.get(name), together.intervals.get(name)),
        )
    )


def _fold_row(each: Fold, names: Sequence[str]) -> Row:
    figures_of_it = (number_cell(each.metrics.get(name)) for name in names)
    counts = (number_cell(count) for count in (each.number, each.trained, each.tested, each.epochs))
    return Row((*counts, number_cell(each.seconds, duration(each.seconds)), *figures_of_it))


def _fold_figure(name: str, found: Folds, drawn: str) -> Markup:
    """A metric in each fold, its mean and the interval of that."""
    mean = found.means[name]
    points = [(each.number, each.metrics[name]) for each in found.folds if name in each.metrics]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.light_grid(axes)
        axes.axhspan(mean.low, mean.high, color=GREY, alpha=0.22, linewidth=0)
        axes.axhline(mean.mean, color=GREY, linewidth=1)
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", linestyle="none", zorder=3)
        figures.whole_numbers(axes)
        axes.set_xlabel("fold")

    told = f"{clean(name)} of each fold; the line is their mean, the band its 95 % interval"
    return figures.svg(drawn, told, _SMALL, draw)


@dataclass(frozen=True)
class ShownCurve:
    """A learning curve, for the template."""

    target: str
    words: str
    figure: Markup
    head: list[Heading]
    points: list[Row]


def shown_curve(found: LearningCurve, place: int) -> ShownCurve:
    """The learning curve of a target as a page shows it."""
    return ShownCurve(
        target=clean(found.target),
        words=clean(found.words.partition(": ")[2]),
        figure=_learning_figure(found, f"learning-{place}"),
        head=[
            Heading("share", True), Heading("training rows", True), Heading(f"{found.metric} on them", True),
            Heading(f"{found.metric} on validation rows", True),
        ],
        points=[_point_row(each) for each in found.points],
    )  # fmt: skip


def _point_row(each: Scores) -> Row:
    return Row(
        (
            number_cell(each.share, f"{100 * each.share:g} %"),
            number_cell(each.rows),
            with_interval(each.train, each.train_interval),
            with_interval(each.validation, each.validation_interval),
        )
    )


def _learning_figure(found: LearningCurve, drawn: str) -> Markup:
    """A metric on the rows that were learned from and on validation rows, against how many were learned from."""
    rows = [point.rows for point in found.points]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.light_grid(axes)
        train = [(point.train, point.train_interval) for point in found.points]
        validation = [(point.validation, point.validation_interval) for point in found.points]
        _line(axes, rows, train, "the training rows", GREY)
        _line(axes, rows, validation, "validation rows", ORANGE)
        _row_axis(axes, rows)
        axes.set_xlabel("training rows")
        axes.set_ylabel(figures.shortened(found.metric, 30))
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.5)

    told = f"{clean(found.target)}: {found.metric} against the number of training rows"
    return figures.svg(drawn, told, (7.2, 3.0), draw)


def _line(axes: Axes, rows: list[int], values: list[tuple[float, Interval | None]], label: str, colour: str) -> None:
    axes.plot(rows, [value for value, _ in values], color=colour, marker="o", markersize=4, label=label)
    for at, (_, interval) in zip(rows, values, strict=True):
        if interval is not None:
            axes.plot([at, at], [interval.low, interval.high], color=colour, linewidth=1)


def _row_axis(axes: Axes, rows: list[int]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    if max(rows) > 3 * min(rows):
        axes.set_xscale("log")
    axes.set_xticks(rows)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
