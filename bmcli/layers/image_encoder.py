"""Raw pictures to those a network sees, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class ImageEncoder(keras.layers.Layer):
    """Converts channels and resizes, bilinearly; uint8 pictures stay uint8.

    Args:
        size: Height and width of the output.
        channels: 1 or 3 to convert between grey and colour, or the number of channels the pictures have.

    Input shape:
        `(batch, height, width)` or `(batch, height, width, channels)` of the layer's dtype, uint8 or float32.

    Output shape:
        `(batch, *size, channels)` of the same dtype.
    """

    def __init__(self, size: Sequence[int], channels: int, dtype: str = "uint8", **kwargs: Any) -> None:
        # The layer's own policy stays float32: Keras computes in no integers.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.pixel_dtype = [int(side) for side in size], channels, dtype

    def call(self, inputs):
        pictures = inputs[..., tf.newaxis] if inputs.shape.rank == 3 else inputs
        if self.channels == 1 and pictures.shape[-1] == 3:
            pictures = tf.image.rgb_to_grayscale(pictures)
        elif self.channels == 3 and pictures.shape[-1] == 1:
            pictures = tf.image.grayscale_to_rgb(pictures)
        if list(pictures.shape[1:3]) == self.size:
            return pictures
        resized = tf.image.resize(pictures, self.size, method="bilinear")
        return tf.saturate_cast(tf.round(resized), "uint8") if self.pixel_dtype == "uint8" else resized

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "size": self.size, "channels": self.channels, "dtype": self.pixel_dtype}
