"""Boolean input: words for yes and no, or arrays of 0 and 1.

Cells are encoded as 1 and 0. A missing cell becomes the share of yes in the training rows; it is flagged if these have
missing cells.
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
    def _check_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        words = tuple(word.strip().lower() for word in value)
        if not all(words):
            raise fault("words", "expected words, received an empty one: an empty cell is always missing.")
        return words

    @model_validator(mode="after")
    def _check_difference(self) -> Options:
        both = sorted(set(self.yes) & set(self.no))
        if both:
            raise fault("words", f"{quoted(both[0])} means both yes and no.", "Remove it from one of the lists.")
        return self


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the share of yes, and whether any cell is missing."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    values = _read_values(rows, options.yes, options.no)
    present = values[~np.isnan(values)]
    if not present.size:
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
        state={"yes": list(options.yes), "no": list(options.no), "fill": float(present.mean()), "flag": flag},
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a cell that is neither yes nor no."""
    _read_values(rows, options.yes, options.no)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode cells as 1, 0 or the share of yes, followed by the flags of missing cells; float32 `(rows, channels)`."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    if not raw_columns.is_text_column(rows):
        check_shape(rows, column)
    values = _read_values(rows, column.state["yes"], column.state["no"])
    missing = np.isnan(values)
    encoded = np.where(missing, np.float32(column.state["fill"]), values)  # float32 as in the layer, for equal bits
    return np.concatenate([encoded, missing.astype("float32")], axis=1) if column.state["flag"] else encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = column.state
    return BooleanEncoder(state["yes"], state["no"], state["fill"], state["flag"])


def get_stack_key(column: Column) -> Any:
    """Return the raw dtype and the words of a column of single values without a flag; None for other columns."""
    state = column.state
    return None if state["flag"] or column.raw_shape else (column.raw_dtype, *state["yes"], "", *state["no"])


def build_stacked_encoder(columns: Sequence[Column]) -> keras.layers.Layer:
    """Build one layer that encodes the columns as the channels of one array."""
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = columns[0].state
    return BooleanEncoder(state["yes"], state["no"], [column.state["fill"] for column in columns])


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded)


def _read_values(rows: RawColumn, yes: Any, no: Any) -> np.ndarray:
    """Read cells as 1, 0, or NaN where missing; float32 `(rows, values of a row)`.

    Raises:
        RowFault: A cell is neither yes nor no.
    """
    import numpy as np

    if raw_columns.is_text_column(rows):
        return _read_words(rows, yes, no)
    values = np.asarray(rows, "float32").reshape(len(rows), -1)
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise RowFault(
            row, f"expected 0 or 1, received {raw_columns.format_cell(rows, row)}.", "Read it as `kind: number`."
        )
    return values


def _read_words(rows: RawColumn, yes: Any, no: Any) -> np.ndarray:
    import numpy as np

    values, missing = raw_columns.to_booleans(rows, yes, no)
    wrong = np.isnan(values) & ~missing
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowFault(
            row,
            f"expected yes or no, received {raw_columns.format_cell(rows, row)}.",
            "List the words as `yes: [...]` and `no: [...]`.",
        )
    return values[:, np.newaxis]
