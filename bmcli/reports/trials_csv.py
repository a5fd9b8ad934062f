"""The trials of a search as a table for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from bmcli.console import clean
from bmcli.trials import Searched, Trial


def table(searched: Searched) -> str:
    """CSV as RFC 4180 writes it, a row for each trial.

    Columns: trial, state, reason, each objective, each parameter by its path, epochs, seconds, continues. A cell is
    empty where there is nothing: a parameter that a candidate does not have, an objective that was not measured. Texts
    stand as they are, lists and null as JSON. A text with which a spreadsheet would begin a formula gets an
    apostrophe before it; numbers stay numbers.
    """
    objectives = [objective.name for objective in searched.objectives]
    paths = list(searched.parameters)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(
        map(_cell, ["trial", "state", "reason", *objectives, *paths, "epochs", "seconds", "continues"]),
    )
    for trial in searched.trials:
        writer.writerow([*_begin(trial, objectives), *_values(trial, paths), *_end(trial)])
    return file.getvalue()


def _begin(trial: Trial, objectives: list[str]) -> list[str]:
    reason = trial.result.reason if trial.result else ""
    measured = [trial.objectives.get(name) for name in objectives]
    return [
        _cell(trial.task.name),
        trial.state,
        _cell(reason),
        *("" if value is None or not math.isfinite(value) else _cell(value) for value in measured),
    ]


def _values(trial: Trial, paths: list[str]) -> list[str]:
    return [_cell(trial.task.values[path]) if path in trial.task.values else "" for path in paths]


def _end(trial: Trial) -> list[str]:
    if trial.result is None:
        return ["", "", _cell(trial.task.continues or "")]
    return [_cell(trial.result.epochs), _cell(round(trial.result.seconds, 3)), _cell(trial.task.continues or "")]


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    # What spreadsheets take for a formula, after the blanks that some of them skip.
    return f"'{clean(value)}" if value[:1] in ("\t", "\r") or value.strip()[:1] in _FORMULA else clean(value)


_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
