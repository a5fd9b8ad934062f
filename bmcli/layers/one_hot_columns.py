"""One-hot vectors of many columns by one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class OneHotColumns(keras.layers.Layer):
    """Concatenated one-hot vectors of many columns; all zeros for a position beyond the width of its column.

    Args:
        widths: Width of each column's vector.

    Input shape:
        A list of `(batch,)` of integers, one per column.

    Output shape:
        `(batch, sum of widths)`.
    """

    def __init__(self, widths: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.widths = [int(width) for width in widths]

    def call(self, inputs):
        columns = np.repeat(np.arange(len(self.widths), dtype="int32"), self.widths)
        codes = np.concatenate([np.arange(width, dtype="int32") for width in self.widths])
        positions = tf.gather(tf.stack(inputs, axis=1), columns, axis=1)
        return tf.cast(positions == codes, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0][0], sum(self.widths)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "widths": self.widths}
