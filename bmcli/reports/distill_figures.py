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
    """Each loss of the student over the epochs, every one on axes of its own."""
    names = list(distilled.curves[0])
    epochs = range(1, len(distilled.curves) + 1)
    across = min(3, len(names))
    down = -(-len(names) // across)

    def draw(figure: Figure) -> None:
        every = figure.subplots(down, across, squeeze=False).ravel()
        for place, (axes, name) in enumerate(zip(every, names, strict=False)):
            values = [row.get(name) for row in distilled.curves]
            axes.plot(epochs, [float("nan") if value is None else value for value in values],
                      color=_LINES[place % len(_LINES)])  # fmt: skip
            axes.set_title(clean(name))
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            figures.set_integer_ticks(axes)
            figures.draw_grid(axes)
        for axes in every[len(names) :]:
            axes.set_axis_off()

    told = f"losses of the student over {len(distilled.curves)} epochs: {', '.join(map(clean, names))}"
    return figures.render_svg("losses", told, (WIDTH, 2.1 * down), draw)


def draw_reliability(distilled: DistillationComparison, target: str) -> Markup:
    """How often what was stated with a probability came true, of teacher, baseline and student."""
    learners = [each for each in (distilled.teacher, distilled.baseline, distilled.student) if each is not None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        for each in learners:
            points = each.calibration[target].points if target in each.calibration else ()
            stated, came_true = [point[0] for point in points], [point[1] for point in points]
            axes.plot(stated, came_true, color=_COLOURS[each.name], marker="o", markersize=3, label=each.name)
        axes.set_xlabel("probability")
        axes.set_ylabel("frequency")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="upper left")
        figures.draw_grid(axes)

    name = f"reliability-{list(distilled.teacher.calibration).index(target)}"
    return figures.render_svg(name, f"reliability of the probabilities of {clean(target)}", (4.2, 3.4), draw)


def draw_confusion_change(
    target: str, classes: Sequence[str], baseline: NetworkResult, student: NetworkResult
) -> Markup:
    """By how many rows each cell of the confusion matrix changed from the baseline to the student."""
    change = [
        [two - one for one, two in zip(before, after, strict=True)]
        for before, after in zip(baseline.confusion[target], student.confusion[target], strict=True)
    ]
    most = max(1, *(abs(each) for row in change for each in row))
    side = max(3.0, min(WIDTH, 0.42 * len(classes) + 1.4))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.subplots()
        # More on the diagonal is better, more beside it is worse.
        good = [[each if at == row else -each for at, each in enumerate(found)] for row, found in enumerate(change)]
        colours = LinearSegmentedColormap.from_list("change", [RED, "#ffffff00", BLUE])
        axes.imshow(good, cmap=colours, vmin=-most, vmax=most)
        for row, found in enumerate(change):
            for column, each in enumerate(found):
                if each:
                    axes.text(column, row, f"{each:+d}", ha="center", va="center", fontsize=7)
        names = [figures.shorten(clean(name), 12) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    told = f"change of the confusion matrix of {clean(target)} from the baseline to the student"
    return figures.render_svg(f"confusion-{list(student.confusion).index(target)}", told, (side, side), draw)
