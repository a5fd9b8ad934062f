"""Report section on temperature and threshold, which are chosen on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.answers.decisions import Decision
from bmcli.answers.figures import make_reliability_diagram
from bmcli.metrics.threshold import ThresholdChoice
from bmcli.printable import clean
from bmcli.reports import figures, run_figures
from bmcli.reports.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREY)


@dataclass(frozen=True)
class DecisionView:
    """The decisions about a target, for the template.

    Args:
        goal_missed: Whether no threshold reaches the goal.
    """

    target: str
    rows: int
    summary: list[str]
    goal_missed: bool
    figures: list[tuple[str, Markup]]


def make_decision_views(decisions: Sequence[Decision]) -> list[DecisionView]:
    """Make the views of all decisions that needed rows."""
    return [
        _make_decision_view(each, index)
        for index, each in enumerate(decisions)
        if each.temperature_scaling or each.threshold
    ]


def _make_decision_view(each: Decision, index: int) -> DecisionView:
    drawings = []
    if each.temperature_scaling is not None:
        calibrations = (("Before", each.temperature_scaling.before), ("After", each.temperature_scaling.after))
        drawings += [
            (
                f"{state} temperature scaling",
                run_figures.draw_answer_figure(make_reliability_diagram(calibration), f"{state.lower()}-{index}"),
            )
            for state, calibration in calibrations
        ]
    if each.threshold is not None:
        title = f"Threshold of {figures.shorten(clean(each.positive), 18)}"
        drawings.append((title, _draw_threshold_curves(each.threshold, f"threshold-{index}")))
    sentences = [
        each.temperature_scaling.summary if each.temperature_scaling else "",
        f"{each.summary}." if each.summary else "",
    ]
    return DecisionView(
        clean(each.target),
        each.rows,
        [clean(sentence) for sentence in sentences if sentence],
        each.threshold is not None and not each.threshold.goal_reached,
        drawings,
    )


def _draw_threshold_curves(chosen: ThresholdChoice, figure_id: str) -> Markup:
    """Draw the metrics of each threshold on the validation rows, with the chosen one marked."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        for colour, (name, values) in zip(_COLOURS, chosen.curves.items(), strict=False):
            axes.plot(chosen.thresholds, values, color=colour, label=name)
        axes.axvline(chosen.value, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
        axes.set_xlabel("threshold")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5)

    return figures.render_svg(figure_id, f"{', '.join(chosen.curves)} against threshold", (3.5, 3.5), draw)
