"""Count target: one integer of at least 0 a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli.column_records import StrictRecord
from bmcli.data.targets import TargetGuess, describe_numbers, doubt_quantity, read_notation, require_numbers
from bmcli.errors import BmcliError
from bmcli.notation import NumberNotation
from bmcli.number_texts import write_number, write_values
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, suggest_notation
from bmcli.recipe.numbers import NotationOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "count"
ONE_CLASS = False


class State(StrictRecord):
    """The mean of the training rows, and how a number is written."""

    mean: float
    notation: dict[Literal["decimal", "thousands", "unit"], str] = Field(default={})


class Options(TargetOptions, NotationOptions):
    """A count per row, such as events per hour."""

    kind: Literal["count"] = "count"


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise integers from 0 or 1 on, with a variance above the mean."""
    if not profile.is_integer or not 0 <= profile.minimum <= 1 or profile.variance <= profile.mean:
        return None
    options, described = describe_numbers(profile)
    low, high = write_values(profile.name, [profile.minimum, profile.maximum])
    why = f"integers from {low} to {high}, treated as counts{described}"
    return TargetGuess("count", 0.6, why, options, doubt=doubt_quantity(profile))


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the mean of the training rows, `state["mean"]`, with which an objective initialises its output."""
    with suggest_notation(rows, options.notation):
        values = _read_counts(rows, options.notation)
    notation = options.notation.to_options()
    if values.min() == values.max():
        raise BmcliError(
            f"target {quoted(name)}: every training row has the value {write_number(values[0])}, so there is nothing "
            "to learn.",
            path=f"data.targets.{name}",
        )
    return Column(
        name=name,
        kind="count",
        shape=(),
        dtype="float32",
        raw_dtype="float32",
        state={"mean": float(values.mean(dtype="float64")), **({"notation": notation} if notation else {})},
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuse cells that are not integers of at least 0."""
    _read_counts(rows, options.notation)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode counts as float32 `(rows,)`; a missing, negative or fractional number is a fault."""
    return _read_counts(rows, read_notation(column)).astype("float32")


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the counts as float64 `(rows,)`."""
    return encoded.astype("float64")


def index_classes(rows: RawColumn, options: Options) -> None:
    """There are no classes."""


def count_classes(truth: np.ndarray, column: Column) -> None:
    """There are no classes."""


def _read_counts(rows: RawColumn, notation: NumberNotation) -> np.ndarray:
    import numpy as np

    values = require_numbers(rows, notation)
    wrong = (values < 0) | (values != np.rint(values))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowFault(
            row,
            f"expected a whole number of at least 0, received {write_number(values[row])}.",
            option="Predict it as {kind: number}.",
        )
    large = values > np.finfo("float32").max
    if large.any():
        limit = np.finfo("float32").max
        raise RowFault(
            int(np.argmax(large)),
            f"expected a count of at most {write_number(float(limit))}, received {write_number(values[large][0])}.",
        )
    return values
