"""The report of a search: what won, what it is worth, and what mattered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bmcli.console import clean
from bmcli.reports import search_figures
from bmcli.reports.importance import importance
from bmcli.reports.page import Cell, Heading, Row, duration, number, number_cell, page, shown, value_cell
from bmcli.trials import Confirmed, Objective, Searched, State, Trial

if TYPE_CHECKING:
    from markupsafe import Markup


def report(searched: Searched) -> str:
    """The page as HTML, one file that needs nothing else."""
    measured = [trial for trial in searched.candidates() if trial.measured(searched.first) is not None]
    trials_head, trials = _trials(searched)
    return page(
        "tune.html",
        {
            "searched": searched,
            "first": searched.first,
            "counts": _counts(searched),
            "reasons": _reasons(searched),
            "values": _winning_values(searched),
            "confirmed": _confirmed(searched),
            "confirmed_head": _CONFIRMED_HEAD,
            "winner": winner(searched),
            "test": [Row((Cell(clean(name)), number_cell(value))) for name, value in searched.test.items()],
            "test_head": [Heading("metric"), Heading("value", True)],
            "measured": len(measured),
            "history": search_figures.history(searched) if measured else None,
            "curves": search_figures.curves(searched) if measured and search_figures.has_curves(searched) else None,
            "rungs": search_figures.rungs(searched),
            "parallel": search_figures.parallel(searched) if len(measured) > 1 and searched.parameters else None,
            "importances": [importance(searched, one) for one in searched.objectives],
            "fronts": [_front(searched, cost, place) for place, cost in enumerate(searched.objectives[1:])],
            "slices": search_figures.slices(searched) if measured else [],
            "trials_head": trials_head,
            "trials": trials,
        },
    )


@dataclass(frozen=True)
class Winner:
    """The winner, and what it is worth.

    Args:
        searched: What the search measured.
        confirmed: Means over seeds, if it was trained again.
        shrinkage: How much worse the mean over seeds is than what the search had measured.
    """

    name: str
    searched: float | None
    confirmed: Confirmed | None
    shrinkage: float | None


def winner(searched: Searched) -> Winner | None:
    if searched.winner is None:
        return None
    confirmed = next((one for one in searched.confirmed if one.trial == searched.winner), None)
    measured = searched.trial(searched.winner).measured(searched.first)
    shrunk = None if confirmed is None else confirmed.shrinkage(searched.first)
    return Winner(searched.winner, measured, confirmed, shrunk)


_STATES: tuple[State | Literal["running"], ...] = ("done", "stopped", "failed", "refused", "running")


def _counts(searched: Searched) -> list[tuple[str, int]]:
    """How many trials are in which state, those without any left out."""
    counted = Counter(trial.state for trial in searched.trials)
    return [(state, counted[state]) for state in _STATES if counted[state]]


def _reasons(searched: Searched) -> list[tuple[str, str, int]]:
    """State, reason and how often, for trials that did not come to their end; the most frequent first."""
    counted = Counter(
        (trial.state, clean(trial.result.reason or "no reason is known"))
        for trial in searched.trials
        if trial.result is not None and trial.state in ("failed", "refused")
    )
    return [(state, reason, count) for (state, reason), count in counted.most_common(12)]


def _winning_values(searched: Searched) -> list[tuple[str, str]]:
    """Path and value of the winner, or of the best so far."""
    best = searched.trial(searched.winner) if searched.winner else searched.best()
    if best is None:
        return []
    there = [path for path in searched.parameters if path in best.task.values]
    return [(clean(path), shown(best.task.values[path])) for path in there]


_CONFIRMED_HEAD = [
    Heading("trial"), Heading("searched", True), Heading("mean over seeds", True), Heading("spread", True),
    Heading("shrinkage", True), Heading("each seed"),
]  # fmt: skip


def _confirmed(searched: Searched) -> list[Row]:
    """Candidates that were trained again, the best mean first."""
    ordered = sorted(searched.confirmed, key=lambda one: searched.first.score(one.mean))
    return [
        Row(
            (
                Cell(one.trial),
                number_cell(one.searched),
                number_cell(one.mean),
                number_cell(one.spread),
                number_cell(one.shrinkage(searched.first)),
                Cell(", ".join(map(number, one.values))),
            ),
            best=one.trial == searched.winner,
        )
        for one in ordered
    ]


def seed_spread(searched: Searched) -> float | None:
    """Standard deviation of the first objective over seeds, pooled over the candidates that were trained again."""
    variances = [(one.spread**2, len(one.values) - 1) for one in searched.confirmed if one.spread is not None]
    degrees = sum(weight for _, weight in variances)
    return (sum(variance * weight for variance, weight in variances) / degrees) ** 0.5 if degrees else None


@dataclass(frozen=True)
class _Front:
    """How much quality a cost buys.

    Args:
        enough: The cheapest trial within one spread over seeds of the best; None if the spread is not known.
    """

    cost: Objective
    drawn: Markup
    head: list[Heading]
    rows: list[Row]
    spread: float | None
    best: Trial
    enough: Trial | None
    ratio: float | None


def _front(searched: Searched, cost: Objective, place: int) -> _Front | None:
    first = searched.first
    front = searched.front((first, cost))
    if not front:
        return None
    spread = seed_spread(searched)
    best = min(front, key=lambda trial: first.score(trial.objectives[first.name]))
    enough = cheapest_within(searched, cost, spread)
    return _Front(
        cost,
        search_figures.front(searched, cost, spread, f"front-{place}"),
        [
            Heading("trial"),
            Heading(cost.name, True),
            Heading(first.name, True),
            Heading("worse than the best by", True),
        ],
        [_front_row(searched, trial, best, cost, enough) for trial in front],
        spread,
        best,
        enough,
        _ratio(enough.objectives[cost.name], best.objectives[cost.name]) if enough else None,
    )


def cheapest_within(searched: Searched, cost: Objective, spread: float | None) -> Trial | None:
    """The trial that costs least of those whose first objective is within one spread of the best."""
    first = searched.first
    front = searched.front((first, cost))
    if spread is None or not front:
        return None
    limit = min(first.score(trial.objectives[first.name]) for trial in front) + spread
    return next(trial for trial in front if first.score(trial.objectives[first.name]) <= limit)


def _ratio(small: float, large: float) -> float | None:
    return small / large if small > 0 and large > 0 else None


def _front_row(searched: Searched, trial: Trial, best: Trial, cost: Objective, enough: Trial | None) -> Row:
    first = searched.first
    behind = first.score(trial.objectives[first.name]) - first.score(best.objectives[first.name])
    cells = (
        Cell(trial.task.name),
        number_cell(trial.objectives[cost.name]),
        number_cell(trial.objectives[first.name]),
        number_cell(behind),
    )
    return Row(cells, best=enough is not None and trial.task.name == enough.task.name)


def _trials(searched: Searched) -> tuple[list[Heading], list[Row]]:
    """All trials; columns in which no trial has anything are left out."""
    names = searched.short_names()
    head = [
        Heading("trial"), Heading("state"), *(Heading(clean(one.name), True) for one in searched.objectives),
        *(Heading(clean(names[path]), one.kind in ("int", "float")) for path, one in searched.parameters.items()),
        Heading("epochs", True), Heading("time", True), Heading("continues"), Heading("reason"),
    ]  # fmt: skip
    rows = [_trial_cells(searched, trial) for trial in searched.trials]
    filled = [place for place in range(len(head)) if any(row[place].text for row in rows)]
    return [head[place] for place in filled], [
        Row(tuple(row[place] for place in filled), best=trial.task.name == searched.winner)
        for trial, row in zip(searched.trials, rows, strict=True)
    ]


def _trial_cells(searched: Searched, trial: Trial) -> tuple[Cell, ...]:
    values, result = trial.task.values, trial.result
    return (
        Cell(trial.task.name),
        Cell(trial.state, trial.state),
        *(number_cell(trial.measured(one)) for one in searched.objectives),
        *(value_cell(values[path]) if path in values else Cell("") for path in searched.parameters),
        number_cell(result.epochs if result else None),
        number_cell(result.seconds, duration(result.seconds)) if result else Cell(""),
        Cell(trial.task.continues or ""),
        Cell(clean(result.reason) if result else "", "long"),
    )
