"""Figures of the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bmcli.answers.figures import Curves, Frequencies, Histogram, Scatter
from bmcli.metrics.classification import ConfusionMatrix
from bmcli.printable import clean
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE, RED
from bmcli.reports.page import format_number
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL, WIDE = (3.5, 2.4), 7.2
_COLOURS = (BLUE, ORANGE, RED, GREY, "#7b61c9", "#2f9e77")
_SPLIT_COLOURS = {"train": GREY, "validation": BLUE, "test": ORANGE}
_MAX_NUMBERED_CLASSES, _MAX_CONFUSION_CLASSES = 12, 40
_MAX_NAME_LENGTH = 18

DrawnFigure = Curves | Frequencies | Scatter | Histogram
"""The figures of answers that are drawn; tables are written as HTML."""


def draw_curves(rows: Sequence[Mapping[str, Any]], selected_epoch: int | None) -> list[tuple[str, Markup]]:
    """Draw the curve of each metric by epoch, with the selected epoch marked; returns names and figures.

    Args:
        rows: Records of `metrics.jsonl`.
    """
    names = dict.fromkeys(name.partition("/")[2] for row in rows for name in row if "/" in name)
    curves = [(name, _draw_metric(rows, name, selected_epoch, f"curve-{i}")) for i, name in enumerate(names)]
    rates = {row.get("learning_rate") for row in rows}
    return [*curves, ("learning rate", _draw_learning_rate(rows))] if len(rates) > 1 else curves


def _draw_metric(rows: Sequence[Mapping[str, Any]], name: str, selected_epoch: int | None, figure_id: str) -> Markup:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for split in SPLITS:
            points = [(row["epoch"], v) for row in rows if (v := row.get(f"{split}/{name}")) is not None]
            if points:
                marker = "o" if len(points) == 1 else None
                axes.plot(*zip(*points, strict=True), label=split, color=_SPLIT_COLOURS[split], marker=marker)
        if selected_epoch is not None:
            axes.axvline(selected_epoch, color="black", linewidth=0.7, linestyle=(0, (1, 3)), zorder=1)
        _set_epoch_axis(axes)
        values = [v for row in rows for split in SPLITS if (v := row.get(f"{split}/{name}")) is not None]
        if figures.spans_magnitudes(values):
            _set_log_axis(axes)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5)

    return figures.render_svg(figure_id, f"{clean(name)} after each epoch", SMALL, draw)


def _draw_learning_rate(rows: Sequence[Mapping[str, Any]]) -> Markup:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        points = [(row["epoch"], rate) for row in rows if (rate := row.get("learning_rate")) is not None]
        axes.plot(*zip(*points, strict=True), color=GREY)
        _set_epoch_axis(axes)

    return figures.render_svg("rates", "learning rate after each epoch", SMALL, draw)


def _set_epoch_axis(axes: Axes) -> None:
    figures.draw_grid(axes)
    figures.set_integer_ticks(axes)
    axes.set_xlabel("epoch")


def _set_log_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_classes(name: str, counts: Mapping[str, Sequence[int]], labels: Sequence[str], figure_id: str) -> Markup:
    """Draw the share of each class in each split, the largest classes first.

    Args:
        counts: Rows of each class, by split.
    """
    splits = [split for split in SPLITS if sum(counts.get(split, ()))]
    classes = sorted(range(len(labels)), key=lambda i: -counts[splits[0]][i])[:30]
    height = 0.8 / len(splits)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        positions = np.arange(len(classes))
        for index, split in enumerate(splits):
            shares_of_split = np.array(counts[split], float)[classes]
            label = f"{split} ({sum(counts[split]):,})"
            shares = 100 * shares_of_split / sum(counts[split])
            axes.barh(positions + index * height, shares, height, label=label, color=_SPLIT_COLOURS[split])
        middle = positions + 0.4 - height / 2
        axes.set_yticks(middle, [figures.shorten(clean(labels[i]), _MAX_NAME_LENGTH) for i in classes])
        axes.invert_yaxis()
        axes.set_xlabel("% of the rows")
        figures.draw_grid(axes)
        figure.legend(loc="outside upper left", ncols=3)

    alt_text = f"shares of the classes of {clean(name)} in each split"
    return figures.render_svg(
        figure_id, alt_text, (WIDE, 0.9 + 0.1 * len(splits) * max(2, len(classes)) + 0.08 * len(classes)), draw
    )


def draw_histogram(name: str, values: Mapping[str, np.ndarray], figure_id: str) -> Markup:
    """Draw the distribution of a number in each split, as shares of its rows."""
    all_values = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(all_values, bins=30)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for split, values_of_split in values.items():
            if len(values_of_split):
                shares = 100 * np.histogram(values_of_split, edges)[0] / len(values_of_split)
                axes.stairs(
                    shares,
                    edges,
                    label=f"{split} ({len(values_of_split):,})",
                    color=_SPLIT_COLOURS[split],
                    linewidth=1.4,
                )
        axes.set_xlabel(figures.shorten(clean(name), 40))
        axes.set_ylabel("% of the rows")
        figures.draw_grid(axes)
        figure.legend(loc="outside upper left", ncols=3)

    return figures.render_svg(figure_id, f"distribution of {clean(name)}", (WIDE, 2.6), draw)


def draw_confusion(name: str, matrix: ConfusionMatrix, labels: Sequence[str], figure_id: str) -> Markup | None:
    """Draw the confusion matrix; None if there are too many classes."""
    counts = np.array(matrix)
    if len(labels) > _MAX_CONFUSION_CLASSES:
        return None
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(2.2, min(6.2, 0.42 * len(labels)))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        # From transparent, so that an empty cell has the background of the light or the dark page.
        colours = LinearSegmentedColormap.from_list("shares", [(0.18, 0.5, 0.77, 0.0), (0.18, 0.5, 0.77, 1.0)])
        axes.pcolormesh(shares, cmap=colours, vmin=0, vmax=1, edgecolors=(0.5, 0.5, 0.5, 0.25), linewidth=0.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        names = [figures.shorten(clean(label), _MAX_NAME_LENGTH) for label in labels]
        middles = np.arange(len(labels)) + 0.5
        axes.set_xticks(middles, names, rotation=90 if len(labels) > 3 else 0)
        axes.set_yticks(middles, names)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(labels) <= _MAX_NUMBERED_CLASSES:
            for row, column in np.ndindex(counts.shape):
                if counts[row, column]:
                    axes.text(
                        column + 0.5, row + 0.5, f"{counts[row, column]:,}", ha="center", va="center", fontsize=7.5
                    )

    alt_text = f"confusion matrix of {clean(name)}"
    return figures.render_svg(figure_id, alt_text, (side + 1.4, side + 1.0), draw)


def draw_answer_figure(figure_values: DrawnFigure, figure_id: str) -> Markup:
    """Draw a figure of the answers of an output."""
    if isinstance(figure_values, Curves):
        return _draw_share_curves(figure_values, figure_id)
    if isinstance(figure_values, Frequencies):
        return _draw_frequencies(figure_values, figure_id)
    if isinstance(figure_values, Scatter):
        return _draw_scatter(figure_values, figure_id)
    return _draw_errors(figure_values, figure_id)


def _draw_share_curves(curves: Curves, figure_id: str) -> Markup:
    style = "steps-post" if curves.has_steps else "default"

    def draw(figure: Figure) -> None:
        axes = _make_square_axes(figure, curves.x_label, curves.y_label)
        if curves.has_diagonal:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        for colour, each in zip(_COLOURS, curves.curves, strict=False):
            axes.plot(each.x, each.y, color=colour, label=f"{_shorten_name(each.name)} {each.note}", drawstyle=style)
            if each.level is not None:
                axes.axhline(each.level, color=colour, linewidth=0.8, linestyle=(0, (1, 3)))
        figure.legend(loc="outside lower left", ncols=2, title=curves.legend, title_fontsize=8)

    return figures.render_svg(figure_id, clean(curves.title), (3.5, 4.2), draw)


def _draw_frequencies(frequencies: Frequencies, figure_id: str) -> Markup:
    rows = frequencies.counts.sum()

    def draw(figure: Figure) -> None:
        x_label = figures.shorten(clean(frequencies.x_label), 53)
        axes = _make_square_axes(figure, x_label, clean(frequencies.y_label))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        for predicted, low, high in zip(frequencies.predicted, frequencies.low, frequencies.high, strict=True):
            axes.plot([predicted] * 2, [low, high], color=BLUE, linewidth=1)
        sizes = 10 + 110 * frequencies.counts / rows
        axes.scatter(frequencies.predicted, frequencies.observed, s=sizes, color=BLUE, linewidths=0, zorder=3)

    return figures.render_svg(figure_id, clean(frequencies.title), (3.5, 3.5), draw)


def _draw_scatter(scatter: Scatter, figure_id: str) -> Markup:
    """Draw at most 600 points."""
    x, y = scatter.x, scatter.y
    sample = np.unique(np.linspace(0, len(x) - 1, min(len(x), 600)).astype(int))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        limits = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(limits, limits, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.scatter(x[sample], y[sample], s=9, color=BLUE, alpha=0.5, linewidths=0)
        axes.set_xlabel(_shorten_label(scatter.x_label))
        axes.set_ylabel(_shorten_label(scatter.y_label))

    return figures.render_svg(figure_id, clean(scatter.title), (3.5, 3.1), draw)


def _draw_errors(histogram: Histogram, figure_id: str) -> Markup:
    values = histogram.values
    low, high = np.quantile(values, [0.01, 0.99])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        axes.hist(values[(values >= low) & (values <= high)], bins=30, color=BLUE)
        axes.axvline(0, color="black", linewidth=0.7)
        axes.set_xlabel(_shorten_label(histogram.x_label))
        axes.set_ylabel("rows")

    return figures.render_svg(figure_id, clean(histogram.title), (3.5, 3.1), draw)


def _make_square_axes(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = figure.subplots()
    figures.draw_grid(axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return axes


def _shorten_name(name: str) -> str:
    return figures.shorten(clean(name), _MAX_NAME_LENGTH)


def _shorten_label(text: str) -> str:
    return figures.shorten(clean(text), 40)
