"""The report of a search: the winner, its confirmation, and the importance of the parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bmcli.number_texts import write_signed
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
from bmcli.trials import (
    RECIPE_TRIAL,
    TRIAL_STATES,
    ConfirmedCandidate,
    SearchObjective,
    SearchResult,
    Trial,
    TrialState,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from bmcli.evaluation.improvement import Improvement
    from bmcli.evaluation.intervals import Difference


def render_search(search: SearchResult, improvement: Improvement | None = None) -> str:
    """Render the page as a self-contained HTML file.

    Args:
        improvement: Of the winner over the recipe as it is written; None if they were not compared.
    """
    measured = [trial for trial in search.candidates() if trial.measured(search.first) is not None]
    trials_head, trials = _tabulate_trials(search)
    return render_page(
        "tune.html",
        {
            "search": search,
            "first": search.first,
            "counts": _count_states(search),
            "reasons": _count_reasons(search),
            "values": _list_winning_values(search),
            "confirmed": _make_confirmed_rows(search),
            "confirmed_head": _CONFIRMED_HEADINGS,
            "winner": summarize_winner(search),
            "verdict": [clean(sentence) for sentence in search.verdict],
            "improvement": [_make_improvement_row(each) for each in improvement.differences.values()]
            if improvement
            else [],
            "improvement_head": _IMPROVEMENT_HEADINGS,
            "test": [Row((Cell(clean(name)), make_number_cell(value))) for name, value in search.test.items()],
            "test_head": [Heading("metric"), Heading("value", True)],
            "measured": len(measured),
            "history": search_figures.draw_history(search) if measured else None,
            "curves": search_figures.draw_curves(search) if measured and search_figures.has_curves(search) else None,
            "rungs": search_figures.list_rungs(search),
            "parallel": search_figures.draw_parallel(search) if len(measured) > 1 and search.parameters else None,
            "analyses": [analyse_importance(search, one) for one in search.objectives],
            "fronts": [_make_front_view(search, cost, index) for index, cost in enumerate(search.objectives[1:])],
            "slices": search_figures.draw_slices(search) if measured else [],
            "trials_head": trials_head,
            "trials": trials,
        },
    )


@dataclass(frozen=True)
class WinnerSummary:
    """The winner with its results.

    Args:
        searched: Its result in the search.
        confirmed: Its results with other seeds, if it was trained again.
        shrinkage: The amount by which the mean over seeds is worse than the result in the search.
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


_IMPROVEMENT_HEADINGS = [
    Heading("metric"), Heading("recipe as written", True), Heading("winner", True), Heading("difference", True),
    Heading("confidence interval", True), Heading("result"),
]  # fmt: skip


def _make_improvement_row(difference: Difference) -> Row:
    interval = difference.interval
    return Row(
        (
            Cell(clean(difference.metric)),
            make_number_cell(difference.first),
            make_number_cell(difference.second),
            make_number_cell(difference.difference, write_signed(difference.difference)),
            Cell(f"{write_signed(interval.low)} to {write_signed(interval.high)}" if interval else "none", "number"),
            Cell(_describe_result(difference)) if interval else Cell(clean(difference.reason), "long"),
        )
    )


def _describe_result(difference: Difference) -> str:
    return {"first": "worse", "second": "better", "": "within noise" if difference.direction else ""}[difference.better]


_STATES: tuple[TrialState | Literal["running"], ...] = (*TRIAL_STATES, "running")


def _count_states(search: SearchResult) -> list[tuple[str, int]]:
    """Count the trials in each state that occurs."""
    counts = Counter(trial.state for trial in search.trials)
    return [(state, counts[state]) for state in _STATES if counts[state]]


def _count_reasons(search: SearchResult) -> list[tuple[str, str, int]]:
    """Count the reasons of diverged, failed and refused trials, the most frequent first: state, reason and count."""
    counts = Counter(
        (trial.state, clean(trial.result.reason or "unknown reason"))
        for trial in search.trials
        if trial.result is not None and trial.state in ("diverged", "failed", "refused")
    )
    return [(state, reason, count) for (state, reason), count in counts.most_common(12)]


def _list_winning_values(search: SearchResult) -> list[tuple[str, str]]:
    """List paths and values of the winner, or of the best trial so far."""
    best = search.trial(search.winner) if search.winner else search.best()
    if best is None:
        return []
    used_paths = [path for path in search.parameters if path in best.task.values]
    return [(clean(path), format_value(best.task.values[path])) for path in used_paths]


def _format_name(trial: str) -> str:
    return f"{trial} (recipe)" if trial == RECIPE_TRIAL else trial


_CONFIRMED_HEADINGS = [
    Heading("trial"), Heading("in the search", True), Heading("mean over seeds", True),
    Heading("standard deviation", True),
    Heading("shrinkage", True), Heading("each seed"),
]  # fmt: skip


def _make_confirmed_rows(search: SearchResult) -> list[Row]:
    """Make a row for each candidate that was trained again, the best mean first."""
    ordered = sorted(search.confirmed, key=lambda one: search.first.score(one.mean))
    return [
        Row(
            (
                Cell(_format_name(one.trial)),
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


def compute_seed_deviation(search: SearchResult) -> float | None:
    """Compute the standard deviation of the first objective over seeds, pooled over the confirmed candidates."""
    variances = [(one.spread**2, len(one.values) - 1) for one in search.confirmed if one.spread is not None]
    degrees = sum(weight for _, weight in variances)
    return (sum(variance * weight for variance, weight in variances) / degrees) ** 0.5 if degrees else None


@dataclass(frozen=True)
class _FrontView:
    """The Pareto front of the first objective and a cost, for the template.

    Args:
        standard_deviation: Of the first objective over seeds; None if it is unknown.
        cheapest: The cheapest trial within one standard deviation of the best; None if that is unknown.
        ratio: Cost of the cheapest divided by that of the best.
    """

    cost: SearchObjective
    drawn: Markup
    head: list[Heading]
    rows: list[Row]
    standard_deviation: float | None
    best: Trial
    cheapest: Trial | None
    ratio: float | None


def _make_front_view(search: SearchResult, cost: SearchObjective, index: int) -> _FrontView | None:
    first = search.first
    front = search.front((first, cost))
    if not front:
        return None
    deviation = compute_seed_deviation(search)
    best = min(front, key=lambda trial: first.score(trial.objectives[first.name]))
    cheapest = find_cheapest_within(search, cost, deviation)
    return _FrontView(
        cost,
        search_figures.draw_front(search, cost, deviation, f"front-{index}"),
        [
            Heading("trial"),
            Heading(cost.name, True),
            Heading(first.name, True),
            Heading("worse than the best by", True),
        ],
        [_make_front_row(search, trial, best, cost, cheapest) for trial in front],
        deviation,
        best,
        cheapest,
        _compute_ratio(cheapest.objectives[cost.name], best.objectives[cost.name]) if cheapest else None,
    )


def find_cheapest_within(search: SearchResult, cost: SearchObjective, deviation: float | None) -> Trial | None:
    """Find the cheapest trial whose first objective is within one standard deviation of the best."""
    first = search.first
    front = search.front((first, cost))
    if deviation is None or not front:
        return None
    limit = min(first.score(trial.objectives[first.name]) for trial in front) + deviation
    return next(trial for trial in front if first.score(trial.objectives[first.name]) <= limit)


def _compute_ratio(small: float, large: float) -> float | None:
    return small / large if small > 0 and large > 0 else None


def _make_front_row(
    search: SearchResult, trial: Trial, best: Trial, cost: SearchObjective, cheapest: Trial | None
) -> Row:
    first = search.first
    loss = first.score(trial.objectives[first.name]) - first.score(best.objectives[first.name])
    cells = (
        Cell(trial.task.name),
        make_number_cell(trial.objectives[cost.name]),
        make_number_cell(trial.objectives[first.name]),
        make_number_cell(loss),
    )
    return Row(cells, best=cheapest is not None and trial.task.name == cheapest.task.name)


def _tabulate_trials(search: SearchResult) -> tuple[list[Heading], list[Row]]:
    """Tabulate all trials, without columns that are empty for all."""
    names = search.short_names()
    head = [
        Heading("trial"), Heading("state"), *(Heading(clean(one.name), True) for one in search.objectives),
        *(Heading(clean(names[path]), one.kind in ("int", "float")) for path, one in search.parameters.items()),
        Heading("epochs", True), Heading("time", True), Heading("continues trial"), Heading("reason"),
    ]  # fmt: skip
    rows = [_make_trial_cells(search, trial) for trial in search.trials]
    filled = [index for index in range(len(head)) if any(row[index].text for row in rows)]
    return [head[index] for index in filled], [
        Row(tuple(row[index] for index in filled), best=trial.task.name == search.winner)
        for trial, row in zip(search.trials, rows, strict=True)
    ]


def _make_trial_cells(search: SearchResult, trial: Trial) -> tuple[Cell, ...]:
    values, result = trial.task.values, trial.result
    return (
        Cell(_format_name(trial.task.name)),
        Cell(trial.state, trial.state),
        *(make_number_cell(trial.measured(one)) for one in search.objectives),
        *(make_value_cell(values[path]) if path in values else Cell("") for path in search.parameters),
        make_number_cell(result.epochs if result else None),
        make_number_cell(result.seconds, format_duration(result.seconds)) if result else Cell(""),
        Cell(trial.task.continues or ""),
        Cell(clean(result.reason) if result else "", "long"),
    )
