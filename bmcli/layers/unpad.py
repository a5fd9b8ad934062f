"""Padding of sequences, stored as NaN, converted to zeros and a mask."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class Unpad(keras.layers.Layer):
    """A sequence with zeros instead of NaN, and the mask of its valid steps.

    Input shape:
        `(batch, steps, channels)`; padding steps are NaN in all channels.

    Output shape:
        The same without NaN, and a mask `(batch, steps)`, false where a step is padding.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})

    def call(self, inputs):
        padding = keras.ops.isnan(inputs)
        values = keras.ops.where(padding, keras.ops.zeros_like(inputs), inputs)
        return values, keras.ops.logical_not(keras.ops.all(padding, axis=-1))
