"""Encoded pictures to those a network sees: for preparing data, and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.image_encoder import fitted


@keras.saving.register_keras_serializable(package="bmcli")
class PictureDecoder(keras.layers.Layer):
    """Decodes JPEG, PNG, BMP and the first frame of GIF, converts channels and resizes.

    Transparency is dropped, 16 bits a channel become 8, and what a camera noted about its orientation is not applied.

    Args:
        size: Height and width of the output.
        channels: 1 for grey, 3 for colour.
        fit: As of `fitted`.

    Input shape:
        `(batch,)`, the bytes of a file each, as strings; an empty one stands for a missing picture, which is black.

    Output shape:
        `(batch, *size, channels)`, uint8.
    """

    def __init__(self, size: Sequence[int], channels: int, fit: str = "stretch", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.fit = [int(side) for side in size], channels, fit

    def decode(self, data):
        """One picture, `(height, width, channels)`, from its bytes."""
        decoded = tf.io.decode_image(data, channels=0, dtype=tf.uint8, expand_animations=False)
        decoded = tf.ensure_shape(decoded, (None, None, None))
        small = fitted(decoded[tf.newaxis], self.size, self.fit, antialias=True)[0]
        # Grey is one channel, or two with transparency.
        places = tf.where(tf.shape(small)[2] < 3, tf.constant([0, 0, 0]), tf.constant([0, 1, 2]))
        picture = tf.gather(small, places, axis=2)
        return tf.image.rgb_to_grayscale(picture) if self.channels == 1 else picture

    def call(self, inputs):
        shape = (*self.size, self.channels)

        def picture(data):
            return tf.cond(tf.equal(data, ""), lambda: tf.zeros(shape, tf.uint8), lambda: self.decode(data))

        return tf.map_fn(picture, inputs, fn_output_signature=tf.TensorSpec(shape, tf.uint8))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, *self.size, self.channels), "uint8")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "channels": self.channels, "fit": self.fit}
