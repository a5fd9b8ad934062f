"""A finished search: its winner with its evaluation, the best trials, and the files that it wrote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bmcli.disk import format_path
from bmcli.messages import format_duration
from bmcli.number_texts import write_signed
from bmcli.terminal.formats import format_number, format_value
from bmcli.terminal.search_progress import format_states
from bmcli.trials import RECIPE_TRIAL

if TYPE_CHECKING:
    from bmcli.commands.tune import TuningResult
    from bmcli.evaluation.improvement import Improvement
    from bmcli.terminal.console import Console
    from bmcli.trials import SearchResult, Trial

MAX_TRIALS = 5


def to_json(result: TuningResult) -> dict[str, Any]:
    search = result.search
    return {
        "best": {"recipe": str(result.study.best), "run": search.run, "metrics": dict(search.test)},
        "improvement": None if result.improvement is None else result.improvement.to_json(),
        "verdict": list(search.verdict),
        "trials": [_trial_to_json(trial) for trial in search.trials],
        "seconds": round(search.seconds, 3),
        "stop_reasons": list(search.stop_reasons),
    }


def _trial_to_json(trial: Trial) -> dict[str, Any]:
    result = trial.result
    measured = {} if result is None else {k: v for k, v in result.objectives.items() if math.isfinite(v)}
    return {
        "name": trial.task.name,
        "state": trial.state,
        "values": dict(trial.task.values),
        "objectives": measured,
        "epochs": result.epochs if result else 0,
        "seconds": round(result.seconds, 3) if result else 0.0,
        "continues": trial.task.continues,
        "reason": result.reason if result else "",
    }


def print_result(console: Console, result: TuningResult) -> None:
    search, study = result.search, result.study
    console.print_text(_format_summary(search))
    console.print_table("", *_tabulate_best_trials(search))
    if search.confirmed:
        console.print_text("")
        console.print_table(f"{search.first.name} with other seeds", *_tabulate_confirmed(search))
    if result.improvement is not None:
        console.print_text("")
        console.print_table(*_tabulate_improvement(result.improvement), mixed=True)
    elif search.test:
        console.print_text("")
        console.print_table("the winner, evaluated", ["metric", "value"], list(search.test.items()), mixed=True)
    if search.verdict:
        console.print_text(f"\n{' '.join(search.verdict)}")
    written = ", ".join(format_path(file) for file in (study.best, study.report, study.table))
    console.print_text(f"\nwrote {written}" + (f"\nrun  {search.run}" if search.run else ""))


def _format_summary(search: SearchResult) -> str:
    count = len(search.trials)
    trials = f"{count} trial{'' if count == 1 else 's'} in {format_duration(search.seconds)}: {format_states(search)}."
    return " ".join([trials, *search.stop_reasons])


def _format_name(trial: str, search: SearchResult) -> str:
    return trial + (" recipe" if trial == RECIPE_TRIAL else "") + (" *" if trial == search.winner else "")


def _tabulate_best_trials(search: SearchResult) -> tuple[list[str], list[list[str]]]:
    """Make columns and rows of a table of the best trials, and of the recipe as it is written."""
    first, names = search.first, search.short_names()
    done = [trial for trial in search.candidates() if trial.state == "done" and trial.measured(first) is not None]
    done.sort(key=lambda trial: first.score(trial.objectives[first.name]))
    rows = [
        [
            _format_name(trial.task.name, search),
            *(format_number(trial.measured(objective)) for objective in search.objectives),
            *(format_value(trial.task.values[path]) if path in trial.task.values else "-" for path in names),
        ]
        for trial in [*done[:MAX_TRIALS], *(trial for trial in done[MAX_TRIALS:] if trial.is_recipe)]
    ]
    return ["trial", *(objective.name for objective in search.objectives), *names.values()], rows


def _tabulate_improvement(improvement: Improvement) -> tuple[str, list[str], list[list[object]]]:
    """Make title, columns and rows of a table of the winner beside the recipe as it is written."""
    rows: list[list[object]] = [
        [
            each.metric,
            each.first,
            each.second,
            write_signed(each.difference),
            "" if each.interval is None else f"{write_signed(each.interval.low)} to {write_signed(each.interval.high)}",
            {"first": "worse", "second": "better", "": ""}[each.better],
        ]
        for each in improvement.differences.values()
    ]
    intervals = [each.interval for each in improvement.differences.values() if each.interval]
    heading = f"{intervals[0].percent} interval" if intervals else "interval"
    title = f"the winner, evaluated on {improvement.rows:,} {improvement.split} rows"
    return title, ["metric", "as written", "winner", "difference", heading, ""], rows


def _tabulate_confirmed(search: SearchResult) -> tuple[list[str], list[list[object]]]:
    """Make columns and rows of a table of the candidates that were trained again, the best first."""
    ordered = sorted(search.confirmed, key=lambda each: search.first.score(each.mean))
    rows: list[list[object]] = [
        [
            _format_name(each.trial, search),
            *map(format_number, (each.searched, each.mean, each.spread, each.shrinkage(search.first))),
            len(each.values),
        ]
        for each in ordered
    ]
    return ["trial", "searched", "mean", "spread", "shrinkage", "seeds"], rows
