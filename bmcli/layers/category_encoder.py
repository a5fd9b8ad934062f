"""Encoding of raw categories as vocabulary positions, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.canonical import Spelling
from bmcli.layers.canonical_texts import canonicalize
from bmcli.raw_columns import MISSING_INTEGER


@keras.saving.register_keras_serializable(package="bmcli")
class CategoryEncoder(keras.layers.Layer):
    """Position of each category in a vocabulary of n; n for a missing cell, n + 1 for an unknown one.

    Args:
        classes: The vocabulary, as text even where the keys are integers.
        key_dtype: `string` or `int64`, of which MISSING_INTEGER is a missing cell.
        buckets: If more than 0, the position is a hash of the text into n buckets, and no text is unknown.
        separator: Text between several categories of a cell; spaces around categories are ignored.
        length: Largest number of distinct categories of a cell with several, the first ones; padding is n + 2.
        spelling: The canonical form of the vocabulary, to which texts are converted.

    Input shape:
        `(batch,)` or `(batch, 1)` of `key_dtype`.

    Output shape:
        `(batch,)`, or `(batch, length)` with a separator, int32.
    """

    def __init__(
        self,
        classes: Sequence[str],
        key_dtype: str = "string",
        buckets: int = 0,
        separator: str | None = None,
        length: int | None = None,
        spelling: Spelling = "raw",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.classes, self.key_dtype, self.buckets = list(classes), key_dtype, buckets
        self.separator, self.length, self.spelling = separator, length, spelling
        self.count = buckets or len(self.classes)
        if not buckets:
            self.table = self._table()

    def call(self, inputs):
        cells = tf.reshape(inputs, [-1])
        if self.buckets and self.key_dtype == "int64":
            cells = tf.where(cells == MISSING_INTEGER, "", tf.strings.as_string(cells))
        return self.positions(cells)

    def positions(self, cells: Any) -> Any:
        """Look up cells `(batch,)`, which must be text if they are hashed."""
        cells = tf.convert_to_tensor(cells)
        if self.separator is None:
            return self._look_up(canonicalize(cells, self.spelling) if cells.dtype == tf.string else cells)
        # Distinct categories of each cell in one operation: `unique` of row and position combined to one number.
        values = tf.strings.split(cells, self.separator)
        values = values.with_values(canonicalize(tf.strings.strip(values.values), self.spelling))
        values = tf.ragged.boolean_mask(values, values != "")
        places = tf.cast(self._look_up(values.values), "int64")
        pairs, _ = tf.unique(values.value_rowids() * (self.count + 2) + places)
        each = pairs // (self.count + 2)
        places = tf.RaggedTensor.from_value_rowids(tf.cast(pairs % (self.count + 2), "int32"), each, values.nrows())
        empty = (places.row_lengths() == 0)[:, tf.newaxis] & (tf.range(self.length) == 0)
        return tf.where(empty, self.count, places.to_tensor(self.count + 2, shape=[None, self.length]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0],) if self.separator is None else (input_shape[0], self.length)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classes": self.classes,
            "key_dtype": self.key_dtype,
            "buckets": self.buckets,
            "separator": self.separator,
            "length": self.length,
            "spelling": self.spelling,
        }

    def _table(self) -> tf.lookup.StaticHashTable:
        is_text = self.key_dtype == "string"
        keys = [*self.classes, ""] if is_text else [*map(int, self.classes), MISSING_INTEGER]
        values = tf.range(len(keys), dtype="int64")
        return tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(keys, self.key_dtype), values),
            default_value=self.count + 1,
        )

    def _look_up(self, cells):
        if not self.buckets:
            return tf.cast(self.table.lookup(cells), "int32")
        hashed = tf.cast(tf.strings.to_hash_bucket_fast(cells, self.buckets), "int32")
        return tf.where(cells == "", self.buckets, hashed)
