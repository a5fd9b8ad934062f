"""Raw categories to their positions, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class CategoryEncoder(keras.layers.Layer):
    """Position of each category in a vocabulary of n; n if the text is empty, n + 1 if it is none of them.

    Args:
        classes: The vocabulary, as text also where the keys are whole numbers.
        key_dtype: `string` or `int64`; whole numbers are never missing.

    Input shape:
        `(batch,)` or `(batch, 1)` of `key_dtype`.

    Output shape:
        `(batch,)`, int32.
    """

    def __init__(self, classes: Sequence[str], key_dtype: str = "string", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.classes, self.key_dtype = list(classes), key_dtype
        count = len(self.classes)
        keys = [*self.classes, ""] if key_dtype == "string" else [int(name) for name in self.classes]
        values = tf.range(len(keys), dtype="int64")
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(keys, key_dtype), values), default_value=count + 1
        )

    def call(self, inputs):
        return tf.cast(self.table.lookup(tf.reshape(inputs, [-1])), "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "key_dtype": self.key_dtype}
