"""The trials of a search as a table for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from bmcli.printable import clean
from bmcli.trials import SearchResult, Trial


def render_trials_csv(search: SearchResult) -> str:
    """CSV as RFC 4180 writes it, a row for each trial.

    Columns: trial, state, reason, each objective, each parameter by its path, epochs, seconds, continues. A cell is
    empty where there is nothing: a parameter that a candidate does not have, an objective that was not measured. Texts
    stand as they are, lists and null as JSON. A text with which a spreadsheet would begin a formula gets an
    apostrophe before it; numbers stay numbers.
    """
    objectives = [objective.name for objective in search.objectives]
    paths = list(search.parameters)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(
        map(_format_cell, ["trial", "state", "reason", *objectives, *paths, "epochs", "seconds", "continues"]),
    )
    for trial in search.trials:
        writer.writerow(
            [*_make_leading_cells(trial, objectives), *_make_value_cells(trial, paths), *_make_trailing_cells(trial)]
        )
    return file.getvalue()


def _make_leading_cells(trial: Trial, objectives: list[str]) -> list[str]:
    reason = trial.result.reason if trial.result else ""
    measured = [trial.objectives.get(name) for name in objectives]
    return [
        _format_cell(trial.task.name),
        trial.state,
        _format_cell(reason),
        *("" if value is None or not math.isfinite(value) else _format_cell(value) for value in measured),
    ]


def _make_value_cells(trial: Trial, paths: list[str]) -> list[str]:
    return [_format_cell(trial.task.values[path]) if path in trial.task.values else "" for path in paths]


def _make_trailing_cells(trial: Trial) -> list[str]:
    if trial.result is None:
        return ["", "", _format_cell(trial.task.continues or "")]
    return [
        _format_cell(trial.result.epochs),
        _format_cell(round(trial.result.seconds, 3)),
        _format_cell(trial.task.continues or ""),
    ]


def _format_cell(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    # What spreadsheets take for a formula, after the blanks that some of them skip.
    return f"'{clean(value)}" if value[:1] in ("\t", "\r") or value.strip()[:1] in _FORMULA_SIGNS else clean(value)


_FORMULA_SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
