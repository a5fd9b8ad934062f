"""Scaling of channels by fixed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class FixedScaling(keras.layers.Layer):
    """`(x - offset) / scale`, computed in float32 and returned in the compute dtype.

    Args:
        offset, scale: A number for every channel; scales must not be 0.

    Input shape:
        `(batch, ..., channels)`, of any numeric dtype.

    Output shape:
        The same.
    """

    def __init__(self, offset: Sequence[float], scale: Sequence[float], **kwargs: Any) -> None:
        # Without autocast: in half precision the inputs would lose digits before they are scaled.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.offset, self.scale = list(offset), list(scale)

    def call(self, inputs):
        values = keras.ops.cast(inputs, "float32")
        offset, scale = (keras.ops.convert_to_tensor(each, "float32") for each in (self.offset, self.scale))
        return keras.ops.cast((values - offset) / scale, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset, "scale": self.scale}
