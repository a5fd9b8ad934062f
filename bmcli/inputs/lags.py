"""Past values of a column as numbers: those of earlier rows, in the order of the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bmcli import parts
from bmcli.inputs import Feature, Guess, InputTraits
from bmcli.raw_columns import ColumnCells, RawColumn, RowFault, to_numbers, to_texts
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np

_NUMBER = "number"  # the kind that fits and encodes the past values


class Options(InputOptions):
    """Values of a column in earlier rows of the source."""

    AUGMENTED_AS: ClassVar[str | None] = "number"

    kind: Literal["lags"] = "lags"
    of: str = Field(min_length=1, description="Column of numbers whose past values are the input; a target is allowed.")
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=10**6)], ...], Field(min_length=1, max_length=10_000)] = Field(
        default=(1,),
        description="Number of rows by which each value lies before its own row, such as [1, 2, 24]. Without such a "
        "row it is missing.",
    )
    within: str | None = Field(
        default=None,
        description="Column of groups, such as shops: only earlier rows of the same group are counted.",
    )
    scale: Literal["standard", "minmax", "quantile", "none"] = Field(
        default="standard", description="Scale of the values, as of an input of kind `number`."
    )
    missing: Literal["mean", "median", "zero", "learned"] = Field(
        default="mean", description="Replacement of missing values, as of an input of kind `number`."
    )
    flag: bool = Field(default=False, description="Add a channel for each step that is 1 where its value is missing.")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of,) if self.within is None else (self.of, self.within)


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise nothing: whether the order of rows matters is not seen in the cells of a column."""
    return None


def check(rows: RawColumn, options: Options) -> None:
    """Refuse cells of the column `of` that are not numbers."""
    to_numbers(rows)


def derive(columns: Sequence[RawColumn], options: Options, times: np.ndarray | None) -> np.ndarray:
    """Collect the past values of each row, `(rows, steps)`, NaN where there is no earlier row."""
    import numpy as np

    values = to_numbers(columns[0])
    if values.size != len(values):
        raise RowFault(0, f"expected one number a row, received an array of shape {tuple(values.shape[1:])}.")
    values = values.reshape(-1)
    groups = np.zeros(len(values), "int32") if options.within is None else _encode_groups(columns[1])
    order = np.argsort(groups, kind="stable")  # rows of a group together, in the order of the source
    if times is not None:
        _require_order(times, groups, order)
    past = np.full((len(values), len(options.steps)), np.nan, values.dtype)
    for position, step in enumerate(options.steps):
        earlier, later = order[:-step], order[step:]
        is_same = groups[earlier] == groups[later]
        past[later[is_same], position] = values[earlier[is_same]]
    return past


def _encode_groups(column: RawColumn) -> np.ndarray:
    import numpy as np

    indices = to_texts(column).combine_chunks().dictionary_encode().indices
    if indices.null_count:
        row = int(np.argmax(np.asarray(indices.is_null())))
        raise RowFault(row, "expected the group of the row, received nothing.", "Fill it in, or leave the row out.")
    return np.asarray(indices)


def _require_order(times: np.ndarray, groups: np.ndarray, order: np.ndarray) -> None:
    """Require that the times of each group do not decrease: the past of a row would be its future."""

    is_wrong = (groups[order[1:]] == groups[order[:-1]]) & (times[order[1:]] < times[order[:-1]])
    if is_wrong.any():
        row = int(order[1:][is_wrong].min())
        raise RowFault(
            row, "its time is before that of the row before it, so that its past would hold its future.",
            "Sort the rows by time.",
        )  # fmt: skip


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit a column of the kind `number`, which encodes the past values."""
    number = parts.load("inputs", _NUMBER)
    fitted: Column = number.fit(
        name, rows, number.Options(scale=options.scale, missing=options.missing, flag=options.flag)
    )
    return fitted


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    encoded: np.ndarray = parts.load("inputs", _NUMBER).encode(rows, column)
    return encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    layer: Any = parts.load("inputs", _NUMBER).build_encoder(column)
    return layer


def build_feature(column: Column, encoded: Any) -> Feature:
    feature: Feature = parts.load("inputs", _NUMBER).build_feature(column, encoded)
    return feature


def get_traits(column: Column) -> InputTraits:
    traits: InputTraits = parts.load("inputs", _NUMBER).get_traits(column)
    return traits
