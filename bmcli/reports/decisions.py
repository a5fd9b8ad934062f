"""The part of a report that tells what was decided on validation rows: temperature and threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.evaluation.decisions import Decision
from bmcli.evaluation.threshold import ThresholdChoice
from bmcli.printable import clean
from bmcli.reports import figures, run_figures
from bmcli.reports.figures import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREY)


@dataclass(frozen=True)
class DecisionView:
    """What was decided about a target, for the template.

    Args:
        missed: Whether no threshold reaches the goal.
    """

    target: str
    rows: int
    summary: list[str]
    missed: bool
    figures: list[tuple[str, Markup]]


def make_decision_views(decisions: Sequence[Decision]) -> list[DecisionView]:
    """The decisions that were made on rows, as a page shows them."""
    return [_make_decision_view(each, place) for place, each in enumerate(decisions) if each.softened or each.threshold]


def _make_decision_view(each: Decision, place: int) -> DecisionView:
    drawn = []
    if each.softened is not None:
        both = (("Before", each.softened.before), ("After", each.softened.after))
        drawn += [
            (f"{when} the temperature", run_figures.draw_reliability(of, f"{when.lower()}-{place}"))
            for when, of in both
        ]
    if each.threshold is not None:
        title = f"Threshold of {figures.shorten(clean(each.positive), 18)}"
        drawn.append((title, _draw_threshold_curves(each.threshold, f"threshold-{place}")))
    words = [each.softened.summary if each.softened else "", f"{each.summary}." if each.summary else ""]
    return DecisionView(
        clean(each.target),
        each.rows,
        [clean(told) for told in words if told],
        each.threshold is not None and not each.threshold.met,
        drawn,
    )


def _draw_threshold_curves(chosen: ThresholdChoice, figure_id: str) -> Markup:
    """What each threshold shows on the validation rows; the one that was chosen is marked."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        for colour, (name, values) in zip(_COLOURS, chosen.curves.items(), strict=False):
            axes.plot(chosen.thresholds, values, color=colour, label=name)
        axes.axvline(chosen.value, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
        axes.set_xlabel("threshold")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5)

    return figures.render_svg(figure_id, f"{', '.join(chosen.curves)} of each threshold", (3.5, 3.5), draw)
