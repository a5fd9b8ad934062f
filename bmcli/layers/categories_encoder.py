"""Encoding of raw categories of many columns as vocabulary positions, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.canonical import Spelling
from bmcli.layers.canonical_texts import canonicalize
from bmcli.raw_columns import MISSING_INTEGER


@keras.saving.register_keras_serializable(package="bmcli")
class CategoriesEncoder(keras.layers.Layer):
    """`CategoryEncoder` for many columns at once, with one lookup table.

    Args:
        vocabularies: Vocabulary of every column, as text even where the keys are integers.
        key_dtype: `string` or `int64`, of which MISSING_INTEGER is a missing cell.
        spelling: The canonical form of the vocabularies, to which texts are converted.

    Input shape:
        A list of `(batch,)` of `key_dtype`, one per column.

    Output shape:
        A list of `(batch,)`, int32.
    """

    def __init__(
        self,
        vocabularies: Sequence[Sequence[str]],
        key_dtype: str = "string",
        spelling: Spelling = "raw",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.vocabularies, self.key_dtype = [list(each) for each in vocabularies], key_dtype
        self.spelling = spelling
        self.table = self._table()

    def call(self, inputs):
        cells = tf.stack(inputs, axis=1)
        if self.key_dtype == "string":
            cells = tf.reshape(canonicalize(tf.reshape(cells, [-1]), self.spelling), [-1, len(self.vocabularies)])
        else:
            cells = tf.strings.as_string(cells)
        # One operation for all columns: a graph with a table for each of thousands takes minutes to build.
        positions = tf.cast(self.table.lookup(tf.add(tf.constant(self._prefixes()), cells)), "int32")
        unknown = np.array([len(each) + 1 for each in self.vocabularies], "int32")
        return tf.unstack(tf.where(positions < 0, unknown, positions), axis=1)

    def compute_output_shape(self, input_shape):
        return [(batch,) for (batch,) in input_shape]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabularies": self.vocabularies,
            "key_dtype": self.key_dtype,
            "spelling": self.spelling,
        }

    def _prefixes(self) -> np.ndarray:
        """Number of each column, which keeps its categories apart from those of other columns."""
        return np.array([f"{place} " for place in range(len(self.vocabularies))], object)

    def _table(self) -> tf.lookup.StaticHashTable:
        missing = "" if self.key_dtype == "string" else str(MISSING_INTEGER)
        words = [[*each, missing] for each in self.vocabularies]
        keys = [prefix + word for prefix, each in zip(self._prefixes(), words, strict=True) for word in each]
        values = [place for each in words for place in range(len(each))]
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values, "int64"))
        return tf.lookup.StaticHashTable(initializer, default_value=-1)
