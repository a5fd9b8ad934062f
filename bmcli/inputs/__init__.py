"""Kinds of inputs: each is fitted on the training rows, encodes rows to arrays, and does the same inside a model.

A kind has three functions on the same fitted state, which must agree:

- `encode` turns raw rows into an array on disk (NumPy, once per data set);
- `build_encoder` makes a Keras layer with the same result on raw inputs, for serving;
- `build_feature` turns encoded tensors into features inside the model (casting, scaling, one-hot, embedding).

The inputs of a served model are strings for text, and for categories, dates and booleans that are text in the source;
"" is a missing cell. The other inputs are numbers; NaN is a missing cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, is_file_column, is_text_column, to_numbers, to_texts
from bmcli.recipe.fields import Kind
from bmcli.specs import MANY_COLUMNS, Column, DataSpec

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class Feature:
    """An input as features inside a model.

    Args:
        tensor: Floating point, `(batch, ...)`: vectors `(batch, features)`, sequences
            `(batch, steps, channels)`, images `(batch, height, width, channels)`.
        mask: Boolean `(batch, steps)`, false where a step is padding; None if there is no padding.
    """

    column: Column
    tensor: Any
    mask: Any = None


class InputKind(Protocol):
    """Interface of the modules of this folder."""

    Options: type[Kind]

    def fit(self, name: str, rows: RawColumn, options: Any) -> Column:
        """Fit a column on the training rows.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column cannot be used, e.g. it has no values.
        """

    def check(self, rows: RawColumn, options: Any) -> None:
        """Raise RowFault for a cell that cannot be read as this kind, independently of other rows."""

    def encode(self, rows: RawColumn, column: Column) -> np.ndarray:
        """Encode rows to an array `(rows, *column.shape)` of `column.dtype`; raise as `fit` does."""

    def build_encoder(self, column: Column) -> keras.layers.Layer:
        """Build the layer from raw rows, `(batch, *raw_shape)` of `raw_dtype`, to the result of `encode`."""

    def build_feature(self, column: Column, encoded: Any) -> Feature:
        """Turn the encoded tensor into floating-point features, inside the trained model."""


def kind_of(column: Column) -> InputKind:
    """Return the module that fitted a column."""
    part: InputKind = parts.load("inputs", column.kind)
    return part


def build_cross_feature(cross: Column, encoded: Mapping[str, Any]) -> Feature:
    """Build the feature of a cross, one-hot or as an embedding of the combination of categories.

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
    """Convert an encoded category, binned number or boolean to integers from 0, `(batch,)`."""
    import keras

    # Bins and booleans are in the first channel; the second is the flag of missing cells, if there is one.
    first = encoded if len(encoded.shape) == 1 else encoded[:, 0]
    if kind != "boolean":
        return first
    missing = keras.ops.logical_and(keras.ops.not_equal(first, 0), keras.ops.not_equal(first, 1))
    return keras.ops.where(missing, 2, keras.ops.cast(first, "int32"))


NETWORK_NAME = "network"
"""Name of the trained network inside a served one. No input has it: Keras cannot save a model that contains another one
with the name of an input."""


BACKBONE_NAME = "backbone"
"""Name of the part of a saved network before its heads. No input has it, for the same reason."""


def make_tensor_names(columns: Iterable[Column]) -> dict[str, str]:
    """Make unique names of Keras inputs by column, with the characters that a SavedModel's signature allows."""
    return make_unique_names((column.name for column in columns), (NETWORK_NAME, BACKBONE_NAME))


def make_unique_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Make names that are allowed in TensorFlow, of which none is another or a taken one."""
    unique: dict[str, str] = {}
    taken = set(taken)
    for original in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", original)
        name = plain if plain[:1].isalnum() else f"column_{plain}"  # Names in TensorFlow begin with a letter or digit.
        while name in taken:
            name += "_"
        unique[original] = name
        taken.add(name)
    return unique


def build_serving_inputs(spec: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build Keras inputs of raw rows, and from them the encoded inputs of a network, both by column.

    `keras.Model(raw, network(encoded))` is the served model. Keras warns if an input's name differs from its column's.
    """
    import keras

    names = make_tensor_names(spec.inputs)
    raw = {
        column.name: keras.Input(column.raw_shape, dtype=column.raw_dtype, name=names[column.name])
        for column in spec.inputs
    }
    return raw, {name: tensor for each in build_encoders(spec.inputs) for name, tensor in each(raw).items()}


@dataclass(frozen=True)
class Encoder:
    """A layer that encodes one column, or several stacked columns at once."""

    columns: tuple[Column, ...]
    layer: Any

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Encode raw tensors; both are by column."""
        if len(self.columns) == 1:
            return {self.columns[0].name: self.layer(raw[self.columns[0].name])}
        encoded = self.layer([raw[column.name] for column in self.columns])
        return {column.name: tensor for column, tensor in zip(self.columns, encoded, strict=True)}


def build_encoders(columns: Sequence[Column]) -> list[Encoder]:
    """Build the layers that encode columns.

    From `MANY_COLUMNS` on, stackable columns share a layer, because each layer takes time whenever a model is built.
    """
    return [
        Encoder(
            tuple(group),
            kind_of(group[0]).build_encoder(group[0])
            if len(group) == 1
            else _load_stackable(group).build_stacked_encoder(group),
        )
        for group in _group_stackable(columns, "build_stacked_encoder")
    ]


def build_features(columns: Sequence[Column], encoded: Mapping[str, Any], stacked: bool) -> list[Feature]:
    """Build the features of columns.

    Args:
        encoded: Encoded tensors by column.
        stacked: Join stackable columns to one feature, from `MANY_COLUMNS` on.
    """
    features = []
    for group in _group_stackable(columns, "build_stacked_feature") if stacked else [[column] for column in columns]:
        tensors = [encoded[column.name] for column in group]
        if len(group) == 1:
            features.append(kind_of(group[0]).build_feature(group[0], tensors[0]))
        else:
            features.append(_load_stackable(group).build_stacked_feature(group, tensors))
    return features


def _group_stackable(columns: Sequence[Column], function: str) -> list[list[Column]]:
    """Group columns that are computed together, in the order of their first column.

    Args:
        function: Name of the function of `StackableKind` that the kind must have.
    """
    groups: dict[Any, list[Column]] = {}
    for position, column in enumerate(columns):
        is_stackable = len(columns) >= MANY_COLUMNS and hasattr(kind_of(column), function)
        key = _load_stackable([column]).get_stack_key(column) if is_stackable else None
        groups.setdefault(position if key is None else (column.kind, key), []).append(column)
    return list(groups.values())


class StackableKind(Protocol):
    """Additional functions of a module of this folder that computes several columns together."""

    def get_stack_key(self, column: Column) -> Any:
        """Return a key; columns of one key can be computed together. None for a column that cannot."""

    def build_stacked_encoder(self, columns: Sequence[Column]) -> keras.layers.Layer:
        """Build a layer from the list of raw tensors to the list of the results of `encode`."""

    def build_stacked_feature(self, columns: Sequence[Column], encoded: Sequence[Any]) -> Feature:
        """Build one feature of all columns; only for kinds whose features need operations for each column."""


def _load_stackable(columns: Sequence[Column]) -> StackableKind:
    part: StackableKind = parts.load("inputs", columns[0].kind)
    return part


def to_serving_array(rows: RawColumn, column: Column) -> np.ndarray:
    """Convert cells to the input of a served model, `(rows, *raw_shape)` of `raw_dtype`.

    Text and bytes of files have dtype object, `""` where missing.

    Raises:
        RowFault: A cell is not a number, or a file cannot be read.
        BmcliError: The cells have another shape than those on which the column was fitted.
    """
    import numpy as np

    if is_file_column(rows):
        is_missing = rows.missing()
        return np.array([b"" if is_missing[row] else rows.read(row) for row in range(len(rows))], object)
    if column.raw_dtype == "string":
        cells: Any = rows if is_text_column(rows) else to_texts(rows)
        # Objects and not NumPy strings, whose width would be that of the longest text for every row.
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
    """Raise BmcliError unless the rows have the shape on which the column was fitted."""
    received = tuple(rows.shape[1:])
    if received != column.raw_shape:
        raise BmcliError(
            f"column {quoted(column.name)}: expected rows of shape {column.raw_shape}, received {received}."
        )
