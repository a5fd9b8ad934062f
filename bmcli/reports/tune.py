"""The report of a search: what won, what it is worth, and what mattered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bmcli.printable import clean
from bmcli.reports import search_figures
from bmcli.reports.importance import analyse_importance
from bmcli.reports.page import (
    Cell,
    Heading,
    Row,
    format_duration,
    format_number,
    format_value,
    make_number_cell,
    make_value_cell,
    render_page,
)
from bmcli.trials import ConfirmedCandidate, SearchObjective, SearchResult, Trial, TrialState

if TYPE_CHECKING:
    from markupsafe import Markup


def render_search(search: SearchResult) -> str:
    """The page as HTML, one file that needs nothing else."""
    measured = [trial for trial in search.candidates() if trial.measured(search.first) is not None]
    trials_head, trials = _tabulate_trials(search)
    return render_page(
        "tune.html",
        {
            "searched": search,
            "first": search.first,
            "counts": _count_states(search),
            "reasons": _count_reasons(search),
            "values": _list_winning_values(search),
            "confirmed": _make_confirmed_rows(search),
            "confirmed_head": _CONFIRMED_HEADINGS,
            "winner": summarize_winner(search),
            "test": [Row((Cell(clean(name)), make_number_cell(value))) for name, value in search.test.items()],
            "test_head": [Heading("metric"), Heading("value", True)],
            "measured": len(measured),
            "history": search_figures.draw_history(search) if measured else None,
            "curves": search_figures.draw_curves(search) if measured and search_figures.has_curves(search) else None,
            "rungs": search_figures.list_rungs(search),
            "parallel": search_figures.draw_parallel(search) if len(measured) > 1 and search.parameters else None,
            "importances": [analyse_importance(search, one) for one in search.objectives],
            "fronts": [_make_front_view(search, cost, place) for place, cost in enumerate(search.objectives[1:])],
            "slices": search_figures.draw_slices(search) if measured else [],
            "trials_head": trials_head,
            "trials": trials,
        },
    )


@dataclass(frozen=True)
class WinnerSummary:
    """The winner, and what it is worth.

    Args:
        searched: What the search measured.
        confirmed: Means over seeds, if it was trained again.
        shrinkage: How much worse the mean over seeds is than what the search had measured.
    """

    name: str
    searched: float | None
    confirmed: ConfirmedCandidate | None
    shrinkage: float | None


def summarize_winner(search: SearchResult) -> WinnerSummary | None:
    if search.winner is None:
        return None
    confirmed = next((one for one in search.confirmed if one.trial == search.winner), None)
    measured = search.trial(search.winner).measured(search.first)
    shrunk = None if confirmed is None else confirmed.shrinkage(search.first)
    return WinnerSummary(search.winner, measured, confirmed, shrunk)


_STATES: tuple[TrialState | Literal["running"], ...] = ("done", "stopped", "failed", "refused", "running")


def _count_states(search: SearchResult) -> list[tuple[str, int]]:
    """How many trials are in which state, those without any left out."""
    counted = Counter(trial.state for trial in search.trials)
    return [(state, counted[state]) for state in _STATES if counted[state]]


def _count_reasons(search: SearchResult) -> list[tuple[str, str, int]]:
    """State, reason and how often, for trials that did not come to their end; the most frequent first."""
    counted = Counter(
        (trial.state, clean(trial.result.reason or "no reason is known"))
        for trial in search.trials
        if trial.result is not None and trial.state in ("failed", "refused")
    )
    return [(state, reason, count) for (state, reason), count in counted.most_common(12)]


def _list_winning_values(search: SearchResult) -> list[tuple[str, str]]:
    """Path and value of the winner, or of the best so far."""
    best = search.trial(search.winner) if search.winner else search.best()
    if best is None:
        return []
    there = [path for path in search.parameters if path in best.task.values]
    return [(clean(path), format_value(best.task.values[path])) for path in there]


_CONFIRMED_HEADINGS = [
    Heading("trial"), Heading("searched", True), Heading("mean over seeds", True), Heading("spread", True),
    Heading("shrinkage", True), Heading("each seed"),
]  # fmt: skip


def _make_confirmed_rows(search: SearchResult) -> list[Row]:
    """Candidates that were trained again, the best mean first."""
    ordered = sorted(search.confirmed, key=lambda one: search.first.score(one.mean))
    return [
        Row(
            (
                Cell(one.trial),
                make_number_cell(one.searched),
                make_number_cell(one.mean),
                make_number_cell(one.spread),
                make_number_cell(one.shrinkage(search.first)),
                Cell(", ".join(map(format_number, one.values))),
            ),
            best=one.trial == search.winner,
        )
        for one in ordered
    ]


def compute_seed_spread(search: SearchResult) -> float | None:
    """Standard deviation of the first objective over seeds, pooled over the candidates that were trained again."""
    variances = [(one.spread**2, len(one.values) - 1) for one in search.confirmed if one.spread is not None]
    degrees = sum(weight for _, weight in variances)
    return (sum(variance * weight for variance, weight in variances) / degrees) ** 0.5 if degrees else None


@dataclass(frozen=True)
class _FrontView:
    """How much quality a cost buys.

    Args:
        enough: The cheapest trial within one spread over seeds of the best; None if the spread is not known.
    """

    cost: SearchObjective
    drawn: Markup
    head: list[Heading]
    rows: list[Row]
    spread: float | None
    best: Trial
    enough: Trial | None
    ratio: float | None


def _make_front_view(search: SearchResult, cost: SearchObjective, place: int) -> _FrontView | None:
    first = search.first
    front = search.front((first, cost))
    if not front:
        return None
    spread = compute_seed_spread(search)
    best = min(front, key=lambda trial: first.score(trial.objectives[first.name]))
    enough = find_cheapest_within(search, cost, spread)
    return _FrontView(
        cost,
        search_figures.draw_front(search, cost, spread, f"front-{place}"),
        [
            Heading("trial"),
            Heading(cost.name, True),
            Heading(first.name, True),
            Heading("worse than the best by", True),
        ],
        [_make_front_row(search, trial, best, cost, enough) for trial in front],
        spread,
        best,
        enough,
        _compute_ratio(enough.objectives[cost.name], best.objectives[cost.name]) if enough else None,
    )


def find_cheapest_within(search: SearchResult, cost: SearchObjective, spread: float | None) -> Trial | None:
    """The trial that costs least of those whose first objective is within one spread of the best."""
    first = search.first
    front = search.front((first, cost))
    if spread is None or not front:
        return None
    limit = min(first.score(trial.objectives[first.name]) for trial in front) + spread
    return next(trial for trial in front if first.score(trial.objectives[first.name]) <= limit)


def _compute_ratio(small: float, large: float) -> float | None:
    return small / large if small > 0 and large > 0 else None


def _make_front_row(
    search: SearchResult, trial: Trial, best: Trial, cost: SearchObjective, enough: Trial | None
) -> Row:
    first = search.first
    behind = first.score(trial.objectives[first.name]) - first.score(best.objectives[first.name])
    cells = (
        Cell(trial.task.name),
        make_number_cell(trial.objectives[cost.name]),
        make_number_cell(trial.objectives[first.name]),
        make_number_cell(behind),
    )
    return Row(cells, best=enough is not None and trial.task.name == enough.task.name)


def _tabulate_trials(search: SearchResult) -> tuple[list[Heading], list[Row]]:
    """All trials; columns in which no trial has anything are left out."""
    names = search.short_names()
    head = [
        Heading("trial"), Heading("state"), *(Heading(clean(one.name), True) for one in search.objectives),
        *(Heading(clean(names[path]), one.kind in ("int", "float")) for path, one in search.parameters.items()),
        Heading("epochs", True), Heading("time", True), Heading("continues"), Heading("reason"),
    ]  # fmt: skip
    rows = [_make_trial_cells(search, trial) for trial in search.trials]
    filled = [place for place in range(len(head)) if any(row[place].text for row in rows)]
    return [head[place] for place in filled], [
        Row(tuple(row[place] for place in filled), best=trial.task.name == search.winner)
        for trial, row in zip(search.trials, rows, strict=True)
    ]


def _make_trial_cells(search: SearchResult, trial: Trial) -> tuple[Cell, ...]:
    values, result = trial.task.values, trial.result
    return (
        Cell(trial.task.name),
        Cell(trial.state, trial.state),
        *(make_number_cell(trial.measured(one)) for one in search.objectives),
        *(make_value_cell(values[path]) if path in values else Cell("") for path in search.parameters),
        make_number_cell(result.epochs if result else None),
        make_number_cell(result.seconds, format_duration(result.seconds)) if result else Cell(""),
        Cell(trial.task.continues or ""),
        Cell(clean(result.reason) if result else "", "long"),
    )
