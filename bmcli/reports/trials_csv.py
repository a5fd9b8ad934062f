"""The trials of a search as a CSV file."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from bmcli.printable import clean
from bmcli.trials import SearchResult, Trial


def render_trials_csv(search: SearchResult) -> str:
    """Render a CSV file by RFC 4180 with a row for each trial.

    Columns: trial, state, reason, each objective, each parameter by its path, epochs, seconds, continues. A cell is
    empty where a candidate does not have the parameter, or an objective has no value. Texts are written as they are,
    lists and null as JSON. Text that a spreadsheet would read as a formula gets an apostrophe in front; numbers stay
    numbers.
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
    values = [trial.objectives.get(name) for name in objectives]
    return [
        _format_cell(trial.task.name),
        trial.state,
        _format_cell(reason),
        *("" if value is None or not math.isfinite(value) else _format_cell(value) for value in values),
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
    # Spreadsheets read text with these signs as a formula, some of them also after blanks.
    return f"'{clean(value)}" if value[:1] in ("\t", "\r") or value.strip()[:1] in _FORMULA_SIGNS else clean(value)


_FORMULA_SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
