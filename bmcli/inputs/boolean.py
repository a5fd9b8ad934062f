"""Yes or no: words, or arrays of 0 and 1.

Encoded as 1 and 0. A missing cell is the share of yes among the training rows, and is flagged if those have
such cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from bmcli import raw_columns
from bmcli.errors import BmcliError
from bmcli.inputs import Feature, check_shape
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import Kind, fault
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np


class Options(Kind):
    """One boolean per row, or an array of booleans."""

    kind: Literal["boolean"] = "boolean"
    yes: tuple[str, ...] = Field(
        default=raw_columns.YES_WORDS, min_length=1, description="Words for true, in any case."
    )
    no: tuple[str, ...] = Field(default=raw_columns.NO_WORDS, min_length=1, description="Words for false, in any case.")

    @field_validator("yes", "no")
    @classmethod
    def _words_say_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        words = tuple(word.strip().lower() for word in value)
        if not all(words):
            raise fault("words", "an empty cell is missing, neither yes nor no.")
        return words

    @model_validator(mode="after")
    def _words_differ(self) -> Options:
        both = sorted(set(self.yes) & set(self.no))
        if both:
            raise fault("words", f"{quoted(both[0])} stands for both yes and no.", "Leave it in one of them.")
        return self


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """The share of yes, and whether any cell is missing."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    values = _read(rows, options.yes, options.no)
    told = values[~np.isnan(values)]
    if not told.size:
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    flag = bool(np.isnan(values).any())
    width = values.shape[1]
    return Column(
        name=name,
        kind="boolean",
        shape=(width * (2 if flag else 1),),
        dtype="float32",
        raw_shape=() if raw_columns.is_text_column(rows) else tuple(rows.shape[1:]),
        raw_dtype="string" if raw_columns.is_text_column(rows) else "float32",
        state={"yes": list(options.yes), "no": list(options.no), "fill": float(told.mean()), "flag": flag},
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuses a cell that is neither yes nor no."""
    _read(rows, options.yes, options.no)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """1, 0 or the share of yes, then 1 for each cell that is missing; float32 `(rows, channels)`."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    if not raw_columns.is_text_column(rows):
        check_shape(rows, column)
    values = _read(rows, column.state["yes"], column.state["no"])
    missing = np.isnan(values)
    encoded = np.where(missing, np.float32(column.state["fill"]), values)
    return np.concatenate([encoded, missing.astype("float32")], axis=1) if column.state["flag"] else encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = column.state
    return BooleanEncoder(state["yes"], state["no"], state["fill"], state["flag"])


def stack_key(column: Column) -> Any:
    """One cell a row, never missing, of one raw dtype and the same words."""
    state = column.state
    return None if state["flag"] or column.raw_shape else (column.raw_dtype, *state["yes"], "", *state["no"])


def encoder_of(columns: Sequence[Column]) -> keras.layers.Layer:
    """One layer for all, as the channels of one array."""
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = columns[0].state
    return BooleanEncoder(state["yes"], state["no"], [column.state["fill"] for column in columns])


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded)


def _read(rows: RawColumn, yes: Any, no: Any) -> np.ndarray:
    """1, 0, or NaN where missing; float32 `(rows, cells of a row)`.

    Raises:
        RowFault: A cell is neither.
    """
    import numpy as np

    if raw_columns.is_text_column(rows):
        return _words(rows, yes, no)
    values = np.asarray(rows, "float32").reshape(len(rows), -1)
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise RowFault(
            row, f"expected 0 or 1, received {raw_columns.format_cell(rows, row)}.", "Read it as `kind: number`."
        )
    return values


def _words(rows: RawColumn, yes: Any, no: Any) -> np.ndarray:
    import numpy as np

    found, missing = raw_columns.to_booleans(rows, yes, no)
    wrong = np.isnan(found) & ~missing
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowFault(
            row,
            f"expected yes or no, received {raw_columns.format_cell(rows, row)}.",
            "Name the words as `yes: [...]` and `no: [...]`.",
        )
    return found[:, np.newaxis]
