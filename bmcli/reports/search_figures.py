"""Figures of the report of a search."""

from __future__ import annotations

import bisect
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.printable import clean
from bmcli.reports import figures, scales
from bmcli.reports.figures import BLUE, GREY, ORANGE, RED
from bmcli.reports.page import format_number
from bmcli.trials import SearchObjective, SearchResult, Trial

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
_MARKER_STYLES: dict[str, dict[str, Any]] = {
    "done": {"marker": "o", "s": 22, "color": BLUE, "linewidths": 0},
    "paused": {"marker": "o", "s": 22, "facecolors": "none", "edgecolors": BLUE, "linewidths": 1},
    "stopped": {"marker": "D", "s": 16, "facecolors": "none", "edgecolors": GREY, "linewidths": 1},
    "diverged": {"marker": "^", "s": 22, "facecolors": "none", "edgecolors": RED, "linewidths": 1},
    "failed": {"marker": "x", "s": 26, "color": RED, "linewidths": 1.4},
    "refused": {"marker": "+", "s": 30, "color": GREY, "linewidths": 1.4},
}


def draw_history(search: SearchResult) -> Markup:
    """Draw the first objective of all trials in order of creation, and the best so far."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        numbered_trials = list(enumerate(search.trials, 1))
        _scatter_trials(axes, [(float(place), trial) for place, trial in numbered_trials], search)
        best = _list_best_so_far(search)
        if best:
            points = [
                (place, _make_axis(search).clip(value)) for place, value in [*best, (len(numbered_trials), best[-1][1])]
            ]
            axes.step(*zip(*points, strict=True), where="post", color=ORANGE, label="best so far", zorder=1)
        axes.set_xlabel("trial")
        axes.set_xlim(0.5 - 0.02 * len(numbered_trials), len(numbered_trials) + 0.5 + 0.02 * len(numbered_trials))
        figures.set_integer_ticks(axes)
        axes.set_ylabel(_make_axis(search).label)
        figure.legend(loc="outside upper left", ncols=6, handletextpad=0.4, columnspacing=1.4)

    alt_text = f"{clean(search.first.name)} of {len(search.trials)} trials in order of creation"
    return figures.render_svg("history", alt_text, (WIDTH, 3.2), draw)


def draw_slices(search: SearchResult) -> list[tuple[str, Markup]]:
    """Draw the first objective of all candidates against each parameter."""
    return [(path, _draw_slice(search, path, f"slice-{place}")) for place, path in enumerate(search.parameters)]


def _draw_slice(search: SearchResult, path: str, figure_id: str) -> Markup:
    trials = search.candidates()
    scale = scales.make_scale(path, search.parameters[path], search.trials)
    spacing = 1 / max(1, len(scale.choices) - 1)
    generator = random.Random(0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        points = [(position, trial) for trial in trials if (position := scale.position(trial)) is not None]
        if scale.bounds is None:  # jitter, so that points of one choice do not hide each other
            points = [(position + 0.5 * spacing * (generator.random() - 0.5), trial) for position, trial in points]
        _scatter_trials(axes, points, search)
        ticks = scale.ticks(38)
        axes.set_xticks([position for position, _ in ticks], [label for _, label in ticks])
        margin = 0.06 if scale.bounds else 0.6 * spacing
        axes.set_xlim(-margin, 1 + margin)

    alt_text = f"{clean(search.first.name)} against {clean(path)}"
    return figures.render_svg(figure_id, alt_text, (3.5, 2.2), draw)


def _scatter_trials(axes: Axes, points: Sequence[tuple[float, Trial]], search: SearchResult) -> None:
    """Draw trials with a marker for each state; those without a value at the edge of the worse side."""
    figures.draw_grid(axes)
    axis, states = _make_axis(search), _classify_trials(search)
    clipped = [place for place, trial in points if axis.is_clipped(_get_objective(trial, search))]
    for state, style in _MARKER_STYLES.items():
        of_state = [
            (place, _get_objective(trial, search)) for place, trial in points if states[trial.task.name] == state
        ]
        visible = [(place, value) for place, value in of_state if math.isfinite(value) and not axis.is_clipped(value)]
        missing = [place for place, value in of_state if math.isnan(value)]
        label = f"{state} ({len(of_state)})"
        if visible:
            axes.scatter(*zip(*visible, strict=True), label=label, zorder=3, **style)
        _scatter_at_edge(axes, missing, axis, label=None if visible else label, **style)
    arrow = "^" if axis.objective.direction == "min" else "v"
    _scatter_at_edge(axes, clipped, axis, label=f"outside the axis ({len(clipped)})", marker=arrow, s=22, color=GREY)
    for place, trial in points:
        if trial.task.name == search.winner:
            height = axis.clip(_get_objective(trial, search))
            axes.scatter([place], [height], marker="*", s=150, color=ORANGE, zorder=5, label="winner", linewidths=0)
    axis.format_axis(axes)
    # The same limits in all figures, so that they can be compared.
    _set_limits(axes, axis, [value for trial in search.trials if (value := trial.measured(search.first)) is not None])


def _scatter_at_edge(axes: Axes, places: Sequence[float], axis: scales.ObjectiveAxis, **style: Any) -> None:
    if places:
        height = 0.97 if axis.objective.direction == "min" else 0.03
        axes.scatter(places, [height] * len(places), transform=axes.get_xaxis_transform(), zorder=3, **style)


def _get_objective(trial: Trial, search: SearchResult) -> float:
    """Get the first objective, NaN if the trial has none."""
    value = trial.measured(search.first)
    return math.nan if value is None else value


def _classify_trials(search: SearchResult) -> dict[str, str]:
    """Map trials to states; `paused` is a trial at a rung below the last, which only the best trials pass."""
    last_epoch = max((_get_epoch_limit(trial) for trial in search.trials), default=math.inf)
    return {
        trial.task.name: "paused" if trial.state == "done" and _get_epoch_limit(trial) < last_epoch else trial.state
        for trial in search.trials
    }


def _get_epoch_limit(trial: Trial) -> float:
    return math.inf if trial.task.until is None else trial.task.until


def _list_best_so_far(search: SearchResult) -> list[tuple[int, float]]:
    """List number, from 1, and value of each trial that was better than all before it."""
    best: list[tuple[int, float]] = []
    for place, trial in enumerate(search.trials, 1):
        value = trial.measured(search.first)
        if trial.state != "done" or value is None:
            continue
        if not best or search.first.score(value) < search.first.score(best[-1][1]):
            best.append((place, value))
    return best


def _make_axis(search: SearchResult, objective: SearchObjective | None = None) -> scales.ObjectiveAxis:
    objective = objective or search.first
    values = [value for trial in search.trials if (value := trial.measured(objective)) is not None]
    return scales.make_objective_axis(objective, values)


def draw_parallel(search: SearchResult) -> Markup:
    """Draw parallel coordinates: a line for each candidate through its values, with the objective last."""
    from matplotlib.collections import LineCollection

    trials = [trial for trial in search.candidates() if trial.measured(search.first) is not None]
    rows = [scales.make_scale(path, parameter, search.trials) for path, parameter in search.parameters.items()]
    names = search.short_names()
    objective_row = _ObjectiveRow.from_trials(_make_axis(search), trials)
    quality = _rank_scores([search.first.score(trial.objectives[search.first.name]) for trial in trials])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axis("off")
        axes.set_xlim(-0.42, 1.24)
        axes.set_ylim(len(rows) + 0.5, -0.25)
        order = sorted(range(len(trials)), key=lambda i: quality[i])  # the best are drawn last
        colours = figures.make_colour_map()
        lines = LineCollection(
            [[*_list_crossings(trials[i], rows, i), (objective_row.position(trials[i]), len(rows))] for i in order],
            colors=[(*colours(quality[i])[:3], 0.25 + 0.7 * quality[i] ** 2) for i in order],
            linewidths=[0.7 + 1.3 * quality[i] ** 4 for i in order],
        )
        axes.add_collection(lines)
        for place, row in enumerate(rows):
            _draw_axis_row(axes, place, names[row.path], row.ticks(60))
            if any(row.position(trial) is None for trial in trials):
                axes.plot([scales.UNUSED_POSITION] * 2, [place - 0.07, place + 0.07], color="black", linewidth=0.8)
                axes.text(
                    scales.UNUSED_POSITION, place + 0.12, "not set", ha="center", va="top", fontsize=7.5, zorder=6
                )
        _draw_axis_row(axes, len(rows), search.first.name, objective_row.ticks())

    alt_text = f"parameters of {len(trials)} candidates, coloured by {clean(search.first.name)}"
    return figures.render_svg("parallel", alt_text, (WIDTH, 0.62 * (len(rows) + 1) + 0.2), draw)


@dataclass(frozen=True)
class _ObjectiveRow:
    """The last axis: the objective, scaled from 0 to 1."""

    axis: scales.ObjectiveAxis
    low: float
    high: float

    @classmethod
    def from_trials(cls, axis: scales.ObjectiveAxis, trials: Sequence[Trial]) -> _ObjectiveRow:
        values = [axis.clip(trial.objectives[axis.objective.name]) for trial in trials]
        return cls(axis, min(values), max(values))

    def position(self, trial: Trial) -> float:
        return self._at(self.axis.clip(trial.objectives[self.axis.objective.name]))

    def ticks(self) -> list[tuple[float, str]]:
        if self.low == self.high:
            return [(0.5, format_number(self.low))]
        mid = math.sqrt(self.low * self.high) if self.axis.log else (self.low + self.high) / 2
        labels = [(self._at(value), format_number(value)) for value in (self.low, mid, self.high)]
        if self.axis.end in (self.low, self.high):
            worst = 2 if self.axis.objective.direction == "min" else 0
            labels[worst] = (labels[worst][0], f"{labels[worst][1]} or worse")
        return labels

    def _at(self, value: float) -> float:
        if self.low == self.high:
            return 0.5
        if self.axis.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _list_crossings(trial: Trial, rows: Sequence[scales.ParameterScale], number: int) -> list[tuple[float, float]]:
    """List the points of a candidate's line on the axes; lines through one choice have different offsets."""
    offset = 0.06 * (number * 0.618 % 1 - 0.5)
    points = []
    for place, row in enumerate(rows):
        position = row.position(trial)
        crossing = scales.UNUSED_POSITION if position is None else position
        points.append((crossing + (offset if row.bounds is None or position is None else 0.0), float(place)))
    return points


def _rank_scores(scores: Sequence[float]) -> list[float]:
    """Compute the share of the other scores that are worse, from 0 to 1; equal scores have equal shares."""
    if len(scores) < 2:
        return [1.0] * len(scores)
    ordered = sorted(scores)
    worse = [len(scores) - bisect.bisect_right(ordered, score) for score in scores]
    return [count / max(worse) if max(worse) else 1.0 for count in worse]


def _draw_axis_row(axes: Axes, place: int, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    """Draw one horizontal axis with its name to the left and its ticks below."""
    axes.plot([0, 1], [place, place], color="black", linewidth=0.8, zorder=5)
    axes.text(-0.06, place, _wrap_name(clean(name)), ha="right", va="center", fontsize=8.5, zorder=6)
    for position, label in ticks:
        axes.plot([position] * 2, [place, place + 0.07], color="black", linewidth=0.8, zorder=5)
        axes.text(position, place + 0.12, label, ha="center", va="top", fontsize=7.5, zorder=6)


def _wrap_name(name: str, max_length: int = 22) -> str:
    """Break a path or metric after dots and slashes into at most three lines."""
    lines = [""]
    for part in re.findall(r"[^./]*[./]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > max_length:
            lines.append("")
        lines[-1] += part
    return "\n".join(figures.shorten(line, max_length) for line in lines[-3:])


def has_curves(search: SearchResult) -> bool:
    """Whether a candidate has values of more than one epoch."""
    finished = (trial.result for trial in search.candidates())
    return any(result and sum(score is not None for score in result.curve) > 1 for result in finished)


def draw_curves(search: SearchResult) -> Markup:
    """Draw the first objective by epoch, with a thin line for each candidate and the rungs where trials paused."""
    sign = 1 if search.first.direction == "min" else -1
    curves = [(trial, _list_points(trial, sign)) for trial in search.candidates() if trial.result is not None]
    # Trials that diverged do not widen the axis.
    values = [
        value
        for trial, points in curves
        if trial.state not in ("diverged", "failed")
        for _, value in points
        if math.isfinite(value)
    ]
    axis = scales.make_objective_axis(search.first, values)
    best_name = search.winner or (best.task.name if (best := search.best()) else None)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        states, labelled = _classify_trials(search), set[str]()
        for trial, points in curves:
            if len(points) == 0:
                continue
            state = "the best" if trial.task.name == best_name else states[trial.task.name]
            label = None if state in labelled else state
            labelled.add(state)
            # A line through a single epoch would be invisible.
            marker = "." if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, **_CURVE_STYLES[state])
        for rung in list_rungs(search):
            axes.axvline(rung, color="black", linewidth=0.7, linestyle=(0, (1, 3)), zorder=1)
            axes.annotate(
                str(rung), (rung, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
                ha="center", fontsize=7.5,
            )  # fmt: skip
        axis.format_axis(axes)
        _set_limits(axes, axis, values)
        axes.set_xlabel("epoch")
        figures.set_integer_ticks(axes)
        axes.set_ylabel(axis.label)
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.6, columnspacing=1.4)

    return figures.render_svg("curves", f"{clean(search.first.name)} after each epoch", (WIDTH, 3.4), draw)


def _set_limits(axes: Axes, axis: scales.ObjectiveAxis, values: Sequence[float]) -> None:
    """Set the limits of the vertical axis around these values."""
    if not values:
        return
    low, high = min(map(axis.clip, values)), max(map(axis.clip, values))
    if low < high and axis.log:
        margin = (high / low) ** 0.08
        axes.set_ylim(low / margin, high * margin)
    elif low < high:
        axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


_CURVE_STYLES: dict[str, dict[str, Any]] = {
    "done": {"color": BLUE, "linewidth": 0.8, "alpha": 0.6, "zorder": 3},
    "paused": {"color": BLUE, "linewidth": 0.8, "alpha": 0.6, "zorder": 3},
    "stopped": {"color": GREY, "linewidth": 0.8, "alpha": 0.8, "linestyle": (0, (4, 2)), "zorder": 2},
    "diverged": {"color": RED, "linewidth": 0.9, "alpha": 0.8, "linestyle": (0, (4, 2)), "zorder": 2},
    "failed": {"color": RED, "linewidth": 0.9, "alpha": 0.8, "zorder": 2},
    "refused": {"color": GREY, "linewidth": 0.8, "zorder": 2},
    "the best": {"color": ORANGE, "linewidth": 2.0, "zorder": 4},
}


def _list_points(trial: Trial, sign: int) -> list[tuple[int, float]]:
    """List epochs and values; a value that is not finite is a gap."""
    assert trial.result is not None
    curve = trial.result.curve
    if not any(score is not None for score in curve):
        return []
    epochs_before = max(0, trial.result.epochs - len(curve))
    return [(epochs_before + i, math.nan if score is None else sign * score) for i, score in enumerate(curve, 1)]


def list_rungs(search: SearchResult) -> list[int]:
    """List the epochs at which trials paused that other trials continued."""
    continued = {trial.task.continues for trial in search.trials}
    return sorted({t.task.until for t in search.trials if t.task.until is not None and t.task.name in continued})


def draw_front(search: SearchResult, cost: SearchObjective, deviation: float | None, figure_id: str) -> Markup:
    """Draw the first objective against another, with their Pareto front."""
    first = search.first
    pair = (first, cost)
    done = [trial for trial in search.candidates() if trial.state == "done"]
    measured = [trial for trial in done if all(trial.measured(one) is not None for one in pair)]
    front = search.front(pair)
    front_names = {trial.task.name for trial in front}
    objective_axis, cost_axis = _make_axis(search), _make_axis(search, cost)

    def get_coordinates(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        points = [
            (cost_axis.clip(t.objectives[cost.name]), objective_axis.clip(t.objectives[first.name])) for t in trials
        ]
        return [x for x, _ in points], [y for _, y in points]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figures.draw_grid(axes)
        others = [trial for trial in measured if trial.task.name not in front_names]
        if others:
            axes.scatter(*get_coordinates(others), color=GREY, s=20, linewidths=0, label="dominated", zorder=2)
        axes.plot(
            *get_coordinates(front), color=BLUE, marker="o", markersize=5, linewidth=1.2, drawstyle="steps-post",
            label="Pareto front", zorder=3,
        )  # fmt: skip
        cost_axis.format_axis(axes, "x")
        objective_axis.format_axis(axes)
        for trial in front if len(front) <= 12 else (front[0], front[-1]):
            (x,), (y,) = get_coordinates([trial])
            axes.annotate(trial.task.name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=7.5, zorder=6)
        if deviation is not None:
            limit = min(first.score(trial.objectives[first.name]) for trial in front) + deviation
            level = limit if first.direction == "min" else -limit
            axes.axhline(
                level,
                color="black",
                linewidth=0.8,
                linestyle=(0, (1, 3)),
                label="best + one standard deviation over seeds",
            )
        axes.set_xlabel(cost_axis.label.replace("\n", " "))
        axes.set_ylabel(objective_axis.label)
        axes.margins(0.08)
        figure.legend(loc="outside upper left", ncols=4, handletextpad=0.6, columnspacing=1.4)

    return figures.render_svg(figure_id, f"{clean(first.name)} against {clean(cost.name)}", (WIDTH, 3.4), draw)
