"""Encoding of raw pictures for a network, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def fit_pictures(pictures: Any, size: Sequence[int], fit: str, antialias: bool = False) -> Any:
    """Resize pictures `(batch, height, width, channels)` bilinearly; uint8 stays uint8.

    Args:
        size: New height and width.
        fit: `stretch` ignores the aspect ratio; `pad` keeps it and fills the rest with 0; `crop` keeps it and cuts off
            the rest, equally on both sides.
        antialias: Average all pixels that become one, instead of interpolating between the nearest.
    """
    if list(pictures.shape[1:3]) == list(size):
        return pictures
    if fit == "crop":
        pictures = _crop_to_aspect(pictures, *size)
    resize = tf.image.resize_with_pad if fit == "pad" else _stretch
    shape = (pictures.shape[0], *size, pictures.shape[-1])
    resized = tf.ensure_shape(resize(pictures, *size, method="bilinear", antialias=antialias), shape)
    return tf.saturate_cast(tf.round(resized), tf.uint8) if pictures.dtype == tf.uint8 else resized


def _stretch(pictures: Any, height: int, width: int, **options: Any) -> Any:
    return tf.image.resize(pictures, (height, width), **options)


def _crop_to_aspect(pictures: Any, height: int, width: int) -> Any:
    """Cut out the largest window in the middle with the aspect ratio of `height` and `width`."""
    whole = tf.shape(pictures)[1:3]
    # The height that belongs to the width, and the other way round: one of the two exceeds the picture and is cut.
    matching = tf.cast(tf.round(tf.cast(whole[::-1], tf.float32) * (height / width, width / height)), tf.int32)
    window = tf.clip_by_value(matching, 1, whole)
    first = (whole - window) // 2
    last = first + window
    return pictures[:, first[0] : last[0], first[1] : last[1]]


@keras.saving.register_keras_serializable(package="bmcli")
class ImageEncoder(keras.layers.Layer):
    """Pictures with other channels and another size, bilinearly; uint8 stays uint8.

    Args:
        size: Height and width of the output.
        channels: 1 or 3 to convert between grey and colour, or the number of channels of the pictures.
        fit: `stretch`, `pad` or `crop`; see `fit_pictures`.

    Input shape:
        `(batch, height, width)` or `(batch, height, width, channels)` of the layer's dtype, uint8 or float32.

    Output shape:
        `(batch, *size, channels)` of the same dtype.
    """

    def __init__(
        self, size: Sequence[int], channels: int, dtype: str = "uint8", fit: str = "stretch", **kwargs: Any
    ) -> None:
        # `dtype` is not passed on: Keras allows no integers as the compute type of a layer.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.size, self.channels, self.pixel_dtype = [int(side) for side in size], channels, dtype
        self.fit = fit

    def call(self, inputs):
        pictures = inputs[..., tf.newaxis] if inputs.shape.rank == 3 else inputs
        if self.channels == 1 and pictures.shape[-1] == 3:
            pictures = tf.image.rgb_to_grayscale(pictures)
        elif self.channels == 3 and pictures.shape[-1] == 1:
            pictures = tf.image.grayscale_to_rgb(pictures)
        return fit_pictures(pictures, self.size, self.fit)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            **config,
            "size": self.size,
            "channels": self.channels,
            "dtype": self.pixel_dtype,
            "fit": self.fit,
        }
