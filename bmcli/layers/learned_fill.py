"""Learned numbers that replace missing ones."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class LearnedFill(keras.layers.Layer):
    """Replacement of NaN by a weight of the channel, whose initial value is 0.

    Args:
        padded: A step that is NaN in all channels is padding, and stays NaN.

    Input shape:
        `(batch, ..., channels)`, of floating point.

    Output shape:
        The same.
    """

    def __init__(self, padded: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padded = padded

    def build(self, input_shape):
        self.fill = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="fill")

    def call(self, inputs):
        missing = keras.ops.isnan(inputs)
        if self.padded:
            missing = keras.ops.logical_and(missing, ~keras.ops.all(missing, axis=-1, keepdims=True))
        return keras.ops.where(missing, keras.ops.cast(self.fill, inputs.dtype), inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padded": self.padded}
