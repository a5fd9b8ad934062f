"""Axes of searched parameters and of objectives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmcli.printable import clean
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.search import SearchParameter
from bmcli.reports import figures
from bmcli.reports.page import format_number, format_value
from bmcli.trials import SearchObjective, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNUSED_POSITION = 1.14
"""Position, beyond the end of the axis, of candidates without the parameter."""


@dataclass(frozen=True)
class ParameterScale:
    """The axis of a parameter, from 0 to 1.

    Args:
        bounds: Of the range of a number; None for a choice.
        choices: In the order of the recipe, or ascending if all are numbers; empty for a range.
    """

    path: str
    parameter: SearchParameter
    bounds: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether the order of positions is an order of values."""
        return len(self.choices) < 3 or all(map(_is_number, self.choices))

    def position(self, trial: Trial) -> float | None:
        """Get the position of a candidate; None if it does not have this parameter, or no number in a range.

        The recipe as it is written may have `auto` there, or 0 on a logarithmic scale.
        """
        if self.path not in trial.task.values:
            return None
        value = trial.task.values[self.path]
        if self.bounds is not None and not _is_on_scale(value, self.parameter):
            return None
        if self.bounds is None:
            return self._at([write_scalar(choice) for choice in self.choices].index(write_scalar(value)))
        low, high = (self._transform(end) for end in self.bounds)
        return (self._transform(float(value)) - low) / (high - low) if high > low else 0.5

    def ticks(self, max_characters: int) -> list[tuple[float, str]]:
        """List positions and labels, in number and length for the given total of characters."""
        if self.bounds is None:
            step = -(-len(self.choices) // max(2, max_characters // 6))
            indices = range(0, len(self.choices), step)
            max_label = max(5, max_characters // len(indices) - 1)
            return [(self._at(i), figures.shorten(format_value(self.choices[i]), max_label)) for i in indices]
        low, high = (self._transform(end) for end in self.bounds)
        if high == low:
            return [(0.5, format_number(self.bounds[0]))]
        return [
            ((self._transform(value) - low) / (high - low), format_number(value)) for value in self._list_round_values()
        ]

    def _at(self, index: int) -> float:
        return index / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5

    def _transform(self, value: float) -> float:
        return math.log10(value) if self.parameter.scale == "log" else value

    def _list_round_values(self) -> list[float]:
        """List round values between the bounds; on a logarithmic scale with the bounds."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        assert self.bounds is not None
        low, high = self.bounds
        if self.parameter.scale == "linear":
            locator = MaxNLocator(4, integer=self.parameter.kind == "int", steps=[1, 2, 5, 10])
            return [value for value in locator.tick_values(low, high) if low <= value <= high]
        between = [float(v) for v in LogLocator(numticks=6).tick_values(low, high) if 1.6 * low < v < high / 1.6]
        return [low, *between, high]


def make_scale(path: str, parameter: SearchParameter, trials: Iterable[Trial]) -> ParameterScale:
    """Make the scale of a parameter, which covers all values of the trials."""
    used_values = [trial.task.values[path] for trial in trials if path in trial.task.values]
    bounds = [end for end in (parameter.low, parameter.high) if end is not None]
    if bounds:
        numbers = bounds + [value for value in used_values if _is_on_scale(value, parameter)]
        return ParameterScale(path, parameter, bounds=(min(numbers), max(numbers)))
    choices = list({write_scalar(value): value for value in [*parameter.values, *used_values]}.values())
    return ParameterScale(path, parameter, choices=tuple(sorted(choices) if all(map(_is_number, choices)) else choices))


def _is_on_scale(value: Any, parameter: SearchParameter) -> bool:
    """Whether a value is a number that the scale of a range can show."""
    return _is_number(value) and (parameter.scale == "linear" or value > 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class ObjectiveAxis:
    """The axis of an objective.

    Args:
        end: Limit on the worse side, which excludes a few very bad trials; None if all values are shown.
    """

    objective: SearchObjective
    log: bool
    end: float | None

    @property
    def label(self) -> str:
        better = "lower" if self.objective.direction == "min" else "higher"
        return f"{figures.shorten(clean(self.objective.name), 40)}\n({better} is better)"

    def clip(self, value: float) -> float:
        """Clip a value to the end of the axis."""
        if self.end is None:
            return value
        return min(value, self.end) if self.objective.direction == "min" else max(value, self.end)

    def is_clipped(self, value: float) -> bool:
        return not math.isnan(value) and self.clip(value) != value

    def format_axis(self, axes: Axes, direction: str = "y") -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        if self.log:
            (axes.set_yscale if direction == "y" else axes.set_xscale)("log")
            axis = axes.yaxis if direction == "y" else axes.xaxis
            axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
            axis.set_minor_formatter(NullFormatter())


def make_objective_axis(objective: SearchObjective, values: Sequence[float]) -> ObjectiveAxis:
    axis = ObjectiveAxis(objective, False, figures.find_outlier_limit(values, objective.direction == "min"))
    shown = [value for value in values if not axis.is_clipped(value)]
    return replace(axis, log=objective.direction == "min" and figures.spans_magnitudes(shown))
