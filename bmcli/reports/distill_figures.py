"""The figures of a distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bmcli.distillations import DistillationComparison, NetworkResult
from bmcli.printable import clean
from bmcli.reports import figures
from bmcli.reports.figures import BLUE, GREY, ORANGE, RED

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

WIDTH = 7.2
_COLOURS = {"teacher": GREY, "baseline": BLUE, "student": ORANGE}
_LINES = (ORANGE, BLUE, RED, GREY)


def draw_losses(distilled: DistillationComparison) -> Markup:
    """Draw each loss of the student over the epochs, on separate axes."""
    names = list(distilled.curves[0])
    epochs = range(1, len(distilled.curves) + 1)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for index, (axes, name) in enumerate(zip(all_axes, names, strict=False)):
            values = [epoch.get(name) for epoch in distilled.curves]
            axes.plot(epochs, [float("nan") if value is None else value for value in values],
                      color=_LINES[index % len(_LINES)])  # fmt: skip
            axes.set_title(clean(name))
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            figures.set_integer_ticks(axes)
            figures.draw_grid(axes)
        for axes in all_axes[len(names) :]:
            axes.set_axis_off()

    alt_text = f"losses of the student over {len(distilled.curves)} epochs: {', '.join(map(clean, names))}"
    return figures.render_svg("losses", alt_text, (WIDTH, 2.1 * rows), draw)


def draw_reliability(distilled: DistillationComparison, target: str) -> Markup:
    """Draw the reliability diagram of teacher, baseline and student."""
    learners = [each for each in (distilled.teacher, distilled.baseline, distilled.student) if each is not None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        for each in learners:
            points = each.calibration[target].points if target in each.calibration else ()
            probabilities, frequencies = [point[0] for point in points], [point[1] for point in points]
            axes.plot(probabilities, frequencies, color=_COLOURS[each.name], marker="o", markersize=3, label=each.name)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed frequency")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="upper left")
        figures.draw_grid(axes)

    name = f"reliability-{list(distilled.teacher.calibration).index(target)}"
    return figures.render_svg(name, f"reliability diagram of {clean(target)}", (4.2, 3.4), draw)


def draw_confusion_change(
    target: str, classes: Sequence[str], baseline: NetworkResult, student: NetworkResult
) -> Markup:
    """Draw the change of each cell of the confusion matrix from the baseline to the student."""
    change = [
        [two - one for one, two in zip(before, after, strict=True)]
        for before, after in zip(baseline.confusion[target], student.confusion[target], strict=True)
    ]
    largest = max(1, *(abs(each) for row in change for each in row))
    side = max(3.0, min(WIDTH, 0.42 * len(classes) + 1.4))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        # An increase is an improvement on the diagonal, and a deterioration elsewhere.
        improvement = [
            [each if at == row else -each for at, each in enumerate(changes)] for row, changes in enumerate(change)
        ]
        colours = LinearSegmentedColormap.from_list("change", [RED, "#ffffff00", BLUE])
        axes.imshow(improvement, cmap=colours, vmin=-largest, vmax=largest)
        for row, changes in enumerate(change):
            for column, each in enumerate(changes):
                if each:
                    axes.text(column, row, f"{each:+d}", ha="center", va="center", fontsize=7)
        names = [figures.shorten(clean(name), 12) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    alt_text = f"change of the confusion matrix of {clean(target)} from the baseline to the student"
    return figures.render_svg(f"confusion-{list(student.confusion).index(target)}", alt_text, (side, side), draw)
