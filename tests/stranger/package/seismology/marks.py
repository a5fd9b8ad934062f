"""Marks target: a word for each reading of a row, such as `rise peak fall`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from bmcli.data.targets import TargetGuess
from bmcli.errors import BmcliError
from bmcli.raw_columns import RawColumn, RowFault, to_texts
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile

OBJECTIVE = "marking"
ONE_CLASS = False
State = None
PADDING = -1
WORDS = {"peak", "dip", "slope"}


class Options(TargetOptions):
    """A mark for each reading, separated by blanks."""

    kind: Literal["marks"] = "marks"


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise texts of the words of a seismologist."""
    words = profile.example.split()
    return TargetGuess("marks", 0.95, "a mark for each reading") if words and set(words) <= WORDS else None


def fit(name: str, rows: Any, options: Options) -> Column:
    """Fit the marks of the training rows, sorted, and the length of the longest row."""
    words = _read_rows(rows)
    marks = sorted({word for row in words for word in row})
    if len(marks) < 2:
        raise BmcliError(
            f"target '{name}': expected at least two marks, received {marks}.", path=f"data.targets.{name}"
        )
    return Column(name, "marks", (max(map(len, words)),), "int32", raw_dtype="string", state={"marks": marks})


def check(rows: Any, options: Options) -> None:
    """Refuse a row without marks."""
    _read_rows(rows)


def encode(rows: Any, column: Column) -> np.ndarray:
    """Encode rows as indices of marks, followed by -1, int32 `(rows, steps)`."""
    import numpy as np

    (steps,), indices = column.shape, {mark: index for index, mark in enumerate(column.state["marks"])}
    words = _read_rows(rows)
    encoded = np.full((len(words), steps), PADDING, "int32")
    for position, row in enumerate(words):
        if len(row) > steps or not set(row) <= set(indices):
            raise RowFault(position, f"expected up to {steps} of the marks {', '.join(indices)}.")
        encoded[position, : len(row)] = [indices[word] for word in row]
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the indices of marks unchanged; -1 is no mark."""
    return encoded


def index_classes(rows: Any, options: Options) -> None:
    """A mark that no training row has is a fault."""


def count_classes(truth: np.ndarray, column: Column) -> None:
    """A row has several marks, so that rows cannot be counted by mark."""


def _read_rows(rows: Any) -> list[list[str]]:
    words = [(text or "").split() for text in to_texts(rows).to_pylist()]
    for position, row in enumerate(words):
        if not row:
            raise RowFault(position, "expected marks, received nothing.", "Remove the row.")
    return words
