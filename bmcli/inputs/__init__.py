"""Kinds of column: each is fitted on the training rows, encodes rows to arrays, and repeats that in a model.

Three views of the same fitted state, which must agree:

- `encode` turns raw rows into an array on disk (numpy, once per data set);
- `encoder` is the same function as a Keras layer on raw inputs, for serving;
- `feature` opens the encoded array inside the model (casting, scaling, one-hot, embedding), on the device.

A served model takes text for texts, and for categories, dates and booleans that are text, where "" is a missing
cell, and arrays for the rest, where NaN is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn as RawColumn
from bmcli.raw_columns import RowFault as RowFault
from bmcli.raw_columns import is_file_column, is_text_column, to_numbers, to_texts
from bmcli.recipe.fields import Kind
from bmcli.specs import MANY_COLUMNS, Column, DataSpec

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class Feature:
    """An input opened inside a model.

    Args:
        tensor: Floating point, `(batch, ...)`: vectors `(batch, features)`, sequences
            `(batch, steps, channels)`, images `(batch, height, width, channels)`.
        mask: `(batch, steps)`, false where a step is padding, or None if there is no padding.
    """

    column: Column
    tensor: Any
    mask: Any = None


class InputKind(Protocol):
    """What a module in this folder offers."""

    Options: type[Kind]

    def fit(self, name: str, rows: RawColumn, options: Any) -> Column:
        """Everything learned from the training rows.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column as a whole cannot, e.g. it has no values.
        """

    def check(self, rows: RawColumn, options: Any) -> None:
        """Raises RowFault for a cell that cannot be read as this kind, whatever the other rows hold."""

    def encode(self, rows: RawColumn, column: Column) -> np.ndarray:
        """Rows as an array `(rows, *column.shape)` of `column.dtype`; raises what `fit` does."""

    def build_encoder(self, column: Column) -> keras.layers.Layer:
        """A layer from raw rows, `(batch, *raw_shape)` of `raw_dtype`, to what `encode` gives."""

    def build_feature(self, column: Column, encoded: Any) -> Feature:
        """The encoded tensor as floating-point features, inside the trained model."""


def kind_of(column: Column) -> InputKind:
    """The part that fitted a column."""
    part: InputKind = parts.load("inputs", column.kind)
    return part


def build_cross_feature(cross: Column, encoded: Mapping[str, Any]) -> Feature:
    """Which combination of categories a row has, one-hot or as an embedding, inside the trained model.

    Args:
        cross: One of `DataSpec.crosses`.
        encoded: Encoded tensors by column.
    """
    import keras

    from bmcli.layers.cross import Cross

    state = cross.state
    layer = Cross(state["sizes"], state["buckets"])
    combined = layer(
        [_to_positions(kind, encoded[name]) for kind, name in zip(state["kinds"], state["columns"], strict=True)]
    )
    if state["dimension"]:
        return Feature(cross, keras.layers.Embedding(layer.width, state["dimension"])(combined))
    return Feature(cross, keras.ops.one_hot(combined, layer.width))


def _to_positions(kind: str, encoded: Any) -> Any:
    """Positions from 0, `(batch,)`, of an encoded category, a binned number, or a yes or no."""
    import keras

    # What is binned, or yes or no, stands first, and perhaps a flag after it.
    first = encoded if len(encoded.shape) == 1 else encoded[:, 0]
    if kind != "boolean":
        return first
    missing = keras.ops.logical_and(keras.ops.not_equal(first, 0), keras.ops.not_equal(first, 1))
    return keras.ops.where(missing, 2, keras.ops.cast(first, "int32"))


NETWORK_NAME = "network"
"""Name of the trained network inside a served one, which no input of either has."""


def make_tensor_names(columns: Iterable[Column]) -> dict[str, str]:
    """Names of Keras inputs by column name, each once, as the signature of a SavedModel allows."""
    names: dict[str, str] = {}
    taken = {NETWORK_NAME}
    for column in columns:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", column.name)
        name = plain if plain[:1].isalnum() else f"column_{plain}"
        while name in taken:
            name += "_"
        names[column.name] = name
        taken.add(name)
    return names


def build_serving_inputs(spec: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keras inputs for raw rows, and the encoded tensors a network takes, both by column name.

    A trained network becomes a served one by `keras.Model(raw, network(encoded))`. Keras warns where the
    name of an input had to differ from its column's.
    """
    import keras

    names = make_tensor_names(spec.inputs)
    raw = {
        column.name: keras.Input(column.raw_shape, dtype=column.raw_dtype, name=names[column.name])
        for column in spec.inputs
    }
    return raw, {name: tensor for each in encoders(spec.inputs) for name, tensor in each(raw).items()}


@dataclass(frozen=True)
class Encoder:
    """The layer that encodes a column, or many columns alike at once."""

    columns: tuple[Column, ...]
    layer: Any

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Encoded tensors from raw ones, both by column."""
        if len(self.columns) == 1:
            return {self.columns[0].name: self.layer(raw[self.columns[0].name])}
        encoded = self.layer([raw[column.name] for column in self.columns])
        return {column.name: tensor for column, tensor in zip(self.columns, encoded, strict=True)}


def encoders(columns: Sequence[Column]) -> list[Encoder]:
    """The layers that encode some columns.

    Columns alike share one where there are many, since each layer costs its time whenever a model is made.
    """
    return [
        Encoder(
            tuple(some), kind_of(some[0]).build_encoder(some[0]) if len(some) == 1 else _stacking(some).encoder_of(some)
        )
        for some in _alike(columns, "encoder_of")
    ]


def features(columns: Sequence[Column], encoded: Mapping[str, Any], stacked: bool) -> list[Feature]:
    """The features of some columns.

    Args:
        encoded: Tensors by column.
        stacked: Columns alike may be one feature where there are many.
    """
    found = []
    for some in _alike(columns, "feature_of") if stacked else [[column] for column in columns]:
        tensors = [encoded[column.name] for column in some]
        alone = len(some) == 1
        found.append(
            kind_of(some[0]).build_feature(some[0], tensors[0]) if alone else _stacking(some).feature_of(some, tensors)
        )
    return found


def _alike(columns: Sequence[Column], way: str) -> list[list[Column]]:
    """Columns that are computed together, in the order of the first of each: of one kind that can, and of one key."""
    groups: dict[Any, list[Column]] = {}
    for place, column in enumerate(columns):
        can = len(columns) >= MANY_COLUMNS and hasattr(kind_of(column), way)
        key = _stacking([column]).stack_key(column) if can else None
        groups.setdefault(place if key is None else (column.kind, key), []).append(column)
    return list(groups.values())


class Stacking(Protocol):
    """What a module in this folder offers beside if it computes columns alike together."""

    def stack_key(self, column: Column) -> Any:
        """The same for columns that can be computed together; None for one that cannot."""

    def encoder_of(self, columns: Sequence[Column]) -> keras.layers.Layer:
        """A layer from a list of raw tensors to the list of what `encode` gives."""

    def feature_of(self, columns: Sequence[Column], encoded: Sequence[Any]) -> Feature:
        """One feature of all; only for kinds whose features take an operation each."""


def _stacking(columns: Sequence[Column]) -> Stacking:
    part: Stacking = parts.load("inputs", columns[0].kind)
    return part


def to_serving_array(rows: RawColumn, column: Column) -> np.ndarray:
    """Cells as a served model takes them, `(rows, *raw_shape)` of `raw_dtype`.

    Text and the bytes of files come as objects, `""` where missing.

    Raises:
        RowFault: A cell is no number, or a file cannot be read.
        BmcliError: The cells are of another shape than those that the column was fitted on.
    """
    import numpy as np

    if is_file_column(rows):
        told = ~rows.missing()
        return np.array([rows.read(row) if told[row] else b"" for row in range(len(rows))], object)
    if column.raw_dtype == "string":
        cells: Any = rows if is_text_column(rows) else to_texts(rows)
        return np.array(cells.fill_null("").to_pylist(), object)
    if column.kind == "image":
        values = np.asarray(rows)
    elif column.kind == "category":
        values = np.asarray(rows).reshape(len(rows), *column.raw_shape)
    else:
        values = to_numbers(rows)
    if tuple(values.shape[1:]) != column.raw_shape:
        check_shape(values, column)
    return values.astype(column.raw_dtype)


def check_shape(rows: np.ndarray, column: Column) -> None:
    """Raises BmcliError unless each row has the shape that the column was fitted on."""
    received = tuple(rows.shape[1:])
    if received != column.raw_shape:
        raise BmcliError(
            f"column {quoted(column.name)}: expected rows of shape {column.raw_shape}, received {received}."
        )
