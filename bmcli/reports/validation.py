"""Report sections on cross-validation and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.evaluation.folds import CrossValidationResult, FoldMean, FoldResult
from bmcli.evaluation.learning_curve import CurvePoint, LearningCurve
from bmcli.metrics.proportions import Interval
from bmcli.printable import clean
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE
from bmcli.reports.groups import make_interval_cell
from bmcli.reports.page import Cell, Heading, Row, format_duration, format_number, make_number_cell

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADLINE_METRICS = (
    "accuracy", "subset_accuracy", "f1_macro", "quadratic_kappa", "roc_auc", "roc_auc_macro", "mae", "rmse", "r2",
    "poisson_deviance", "pinball", "coverage",
)  # fmt: skip
"""Metrics at the top of a page."""

_SMALL, _MAX_HEADLINES = (3.5, 2.4), 4


def select_headlines(names: Sequence[str], max_count: int) -> list[str]:
    """Select the metrics for the top of a page."""
    return [name for name in names if name.rpartition("/")[2] in HEADLINE_METRICS][:max_count]


@dataclass(frozen=True)
class FoldsView:
    """A cross-validation, for the template."""

    summary: str
    method: str
    means_head: list[Heading]
    means: list[Row]
    figures: list[tuple[str, Markup]]
    folds_head: list[Heading]
    folds: list[Row]


def make_folds_view(folds: CrossValidationResult) -> FoldsView:
    """Make the view of a cross-validation."""
    names = select_headlines(list(folds.means), _MAX_HEADLINES)
    return FoldsView(
        summary=clean(f"{folds.pooled.count:,} rows in {len(folds.folds)} folds, split {folds.splitter}."),
        method=clean(folds.method),
        means_head=[
            Heading("metric"), Heading("mean over folds", True), Heading("standard deviation", True),
            Heading("95 % interval of the mean", True), Heading("all out-of-fold predictions", True),
        ],
        means=[_make_mean_row(name, mean, folds) for name, mean in folds.means.items()],
        figures=[(clean(name), _draw_folds(name, folds, f"fold-{index}")) for index, name in enumerate(names)],
        folds_head=[
            Heading("fold", True), Heading("training rows", True), Heading("test rows", True), Heading("epochs", True),
            Heading("training time", True), *(Heading(clean(name), True) for name in names),
        ],
        folds=[_make_fold_row(each, names) for each in folds.folds],
    )  # fmt: skip


def _make_mean_row(name: str, mean: FoldMean, folds: CrossValidationResult) -> Row:
    pooled = folds.pooled
    return Row(
        (
            Cell(clean(name)),
            make_number_cell(mean.mean),
            make_number_cell(mean.standard_deviation),
            Cell(f"{format_number(mean.low)} to {format_number(mean.high)}", "number"),
            make_interval_cell(pooled.metrics.get(name), pooled.intervals.get(name)),
        )
    )


def _make_fold_row(each: FoldResult, names: Sequence[str]) -> Row:
    metric_cells = (make_number_cell(each.metrics.get(name)) for name in names)
    counts = (make_number_cell(count) for count in (each.number, each.train_rows, each.test_rows, each.epochs))
    return Row((*counts, make_number_cell(each.seconds, format_duration(each.seconds)), *metric_cells))


def _draw_folds(name: str, folds: CrossValidationResult, figure_id: str) -> Markup:
    """Draw a metric in each fold, with the mean and its interval."""
    mean = folds.means[name]
    points = [(each.number, each.metrics[name]) for each in folds.folds if name in each.metrics]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        axes.axhspan(mean.low, mean.high, color=GREY, alpha=0.22, linewidth=0)
        axes.axhline(mean.mean, color=GREY, linewidth=1)
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", linestyle="none", zorder=3)
        figures.set_integer_ticks(axes)
        axes.set_xlabel("fold")

    alt_text = f"{clean(name)} of each fold; line: mean; band: 95 % interval of the mean"
    return figures.render_svg(figure_id, alt_text, _SMALL, draw)


@dataclass(frozen=True)
class LearningCurveView:
    """A learning curve, for the template."""

    target: str
    summary: str
    figure: Markup
    head: list[Heading]
    points: list[Row]


def make_curve_view(curve: LearningCurve, index: int) -> LearningCurveView:
    """Make the view of a target's learning curve."""
    return LearningCurveView(
        target=clean(curve.target),
        summary=clean(curve.summary.partition(": ")[2]),
        figure=_draw_learning_curve(curve, f"learning-{index}"),
        head=[
            Heading("share", True), Heading("training rows", True), Heading(f"{curve.metric} on training rows", True),
            Heading(f"{curve.metric} on validation rows", True),
        ],
        points=[_make_point_row(each) for each in curve.points],
    )  # fmt: skip


def _make_point_row(each: CurvePoint) -> Row:
    return Row(
        (
            make_number_cell(each.share, f"{100 * each.share:g} %"),
            make_number_cell(each.rows),
            make_interval_cell(each.train, each.train_interval),
            make_interval_cell(each.validation, each.validation_interval),
        )
    )


def _draw_learning_curve(curve: LearningCurve, figure_id: str) -> Markup:
    """Draw a metric on training and on validation rows against the number of training rows."""
    rows = [point.rows for point in curve.points]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        train = [(point.train, point.train_interval) for point in curve.points]
        validation = [(point.validation, point.validation_interval) for point in curve.points]
        _draw_line(axes, rows, train, "training rows", GREY)
        _draw_line(axes, rows, validation, "validation rows", ORANGE)
        _set_row_axis(axes, [*rows, *_draw_forecast(axes, curve)])
        axes.set_xlabel("number of training rows")
        axes.set_ylabel(figures.shorten(curve.metric, 30))
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5)

    alt_text = f"{clean(curve.target)}: {curve.metric} against the number of training rows"
    return figures.render_svg(figure_id, alt_text, (7.2, 3.0), draw)


def _draw_line(
    axes: Axes, rows: list[int], values: list[tuple[float, Interval | None]], label: str, colour: str
) -> None:
    axes.plot(rows, [value for value, _ in values], color=colour, marker="o", markersize=4, label=label)
    for at, (_, interval) in zip(rows, values, strict=True):
        if interval is not None:
            axes.plot([at, at], [interval.low, interval.high], color=colour, linewidth=1)


def _draw_forecast(axes: Axes, curve: LearningCurve) -> list[int]:
    """Draw the forecast, if there is one, and return its number of rows."""
    forecast, last = curve.forecast, curve.points[-1]
    if forecast.value is None or forecast.interval is None:
        return []
    axes.plot([last.rows, forecast.rows], [last.validation, forecast.value], color=ORANGE, linestyle=":", linewidth=1)
    axes.plot(
        [forecast.rows], [forecast.value], color=ORANGE, marker="o", markersize=4, markerfacecolor="none",
        linestyle="none", label="forecast",
    )  # fmt: skip
    axes.plot([forecast.rows] * 2, [forecast.interval.low, forecast.interval.high], color=ORANGE, linewidth=1)
    return [forecast.rows]


def _set_row_axis(axes: Axes, rows: list[int]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    if max(rows) > 3 * min(rows):
        axes.set_xscale("log")
    axes.set_xticks(rows)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
