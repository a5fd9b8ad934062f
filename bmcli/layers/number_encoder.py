"""Raw numbers to encoded ones, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class NumberEncoder(keras.layers.Layer):
    """Fills missing numbers, scales channels, flags what was missing, and keeps padding as NaN.

    Args:
        fill, offset, scale: A number for every channel: `(where(missing, fill, x) - offset) / scale`.
        flag: Append a channel of 0 and 1 for every channel, 1 where it was missing.
        padded: A step with all channels missing is padding, and stays NaN.

    Input shape:
        `(batch,)`, one channel, or `(batch, ..., channels)`, of the layer's dtype; NaN is missing.

    Output shape:
        `(batch, ..., channels)`, or twice the channels with `flag`, float32.
    """

    def __init__(
        self,
        fill: Sequence[float],
        offset: Sequence[float],
        scale: Sequence[float],
        flag: bool = False,
        padded: bool = False,
        **kwargs: Any,
    ) -> None:
        # Without autocast, since half precision would round what float64 was chosen to keep.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.fill, self.offset, self.scale = list(fill), list(offset), list(scale)
        self.flag, self.padded = flag, padded

    def call(self, inputs):
        values = tf.cast(inputs, self.dtype)
        values = values[:, tf.newaxis] if values.shape.rank == 1 else values
        fill, offset, scale = (tf.constant(each, self.dtype) for each in (self.fill, self.offset, self.scale))
        missing = tf.math.is_nan(values)
        encoded = tf.cast((tf.where(missing, fill, values) - offset) / scale, "float32")
        if self.flag:
            encoded = tf.concat([encoded, tf.cast(missing, "float32")], axis=-1)
        if self.padded:
            padding = tf.reduce_all(missing, axis=-1, keepdims=True)
            encoded = tf.where(padding, tf.constant(float("nan"), "float32"), encoded)
        return encoded

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "fill": self.fill,
            "offset": self.offset,
            "scale": self.scale,
            "flag": self.flag,
            "padded": self.padded,
        }
