"""Where values stand on an axis: those of searched parameters, and those of objectives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmcli.console import clean
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.search import Parameter
from bmcli.reports import figures
from bmcli.reports.page import number, shown
from bmcli.trials import Objective, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNUSED = 1.14
"""Where a parameter that a candidate does not have stands, beyond the end of its axis."""


@dataclass(frozen=True)
class Scale:
    """The axis of a parameter, from 0 to 1.

    Args:
        ends: Of the range of a number; None for a choice.
        choices: In the recipe's order, numbers in theirs; empty for a range.
    """

    path: str
    parameter: Parameter
    ends: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether places between others mean values between theirs."""
        return len(self.choices) < 3 or all(map(_is_number, self.choices))

    def position(self, trial: Trial) -> float | None:
        """Where a candidate stands; None if it does not have this parameter."""
        if self.path not in trial.task.values:
            return None
        value = trial.task.values[self.path]
        if self.ends is None:
            return self._at([write_scalar(choice) for choice in self.choices].index(write_scalar(value)))
        low, high = (self._turned(end) for end in self.ends)
        return (self._turned(float(value)) - low) / (high - low) if high > low else 0.5

    def ticks(self, most_letters: int) -> list[tuple[float, str]]:
        """Positions and labels, as many and as long as there is room for."""
        if self.ends is None:
            step = -(-len(self.choices) // max(2, most_letters // 6))
            labelled = range(0, len(self.choices), step)
            room = max(5, most_letters // len(labelled) - 1)
            return [(self._at(i), figures.shortened(shown(self.choices[i]), room)) for i in labelled]
        low, high = (self._turned(end) for end in self.ends)
        if high == low:
            return [(0.5, number(self.ends[0]))]
        return [((self._turned(value) - low) / (high - low), number(value)) for value in self._round_values()]

    def _at(self, index: int) -> float:
        return index / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5

    def _turned(self, value: float) -> float:
        return math.log10(value) if self.parameter.scale == "log" else value

    def _round_values(self) -> list[float]:
        """Round values between the ends, which are among them on a logarithmic scale."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        assert self.ends is not None
        low, high = self.ends
        if self.parameter.scale == "linear":
            locator = MaxNLocator(4, integer=self.parameter.kind == "int", steps=[1, 2, 5, 10])
            return [value for value in locator.tick_values(low, high) if low <= value <= high]
        between = [float(v) for v in LogLocator(numticks=6).tick_values(low, high) if 1.6 * low < v < high / 1.6]
        return [low, *between, high]


def scale(path: str, parameter: Parameter, trials: Iterable[Trial]) -> Scale:
    """The scale of a parameter, wide enough for every value that it had."""
    had = [trial.task.values[path] for trial in trials if path in trial.task.values]
    ends = [end for end in (parameter.low, parameter.high) if end is not None]
    if ends and all(map(_is_number, had)) and (min(ends + had) > 0 or parameter.scale == "linear"):
        return Scale(path, parameter, ends=(min(ends + had), max(ends + had)))
    choices = list({write_scalar(value): value for value in [*parameter.values, *had]}.values())
    return Scale(path, parameter, choices=tuple(sorted(choices) if all(map(_is_number, choices)) else choices))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class ObjectiveAxis:
    """The axis of an objective.

    Args:
        end: Where it ends on its bad side, so that a few very bad trials do not squeeze all others; None if it is as
            wide as the values are.
    """

    objective: Objective
    log: bool
    end: float | None

    @property
    def label(self) -> str:
        better = "lower" if self.objective.direction == "min" else "higher"
        return f"{figures.shortened(clean(self.objective.name), 40)}\n({better} is better)"

    def held(self, value: float) -> float:
        """The value, or the end of the axis if it lies beyond."""
        if self.end is None:
            return value
        return min(value, self.end) if self.objective.direction == "min" else max(value, self.end)

    def lies_beyond(self, value: float) -> bool:
        return not math.isnan(value) and self.held(value) != value

    def set_up(self, axes: Axes, along: str = "y") -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        if self.log:
            (axes.set_yscale if along == "y" else axes.set_xscale)("log")
            axis = axes.yaxis if along == "y" else axes.xaxis
            axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            axis.set_minor_formatter(NullFormatter())


def objective_axis(objective: Objective, values: Sequence[float]) -> ObjectiveAxis:
    axis = ObjectiveAxis(objective, False, figures.far_from_most(values, objective.direction == "min"))
    shown = [value for value in values if not axis.lies_beyond(value)]
    return replace(axis, log=objective.direction == "min" and figures.spans_magnitudes(shown))
