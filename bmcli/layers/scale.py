"""Fixed offset and scale for every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class FixedScaling(keras.layers.Layer):
    """`(x - offset) / scale`, computed in float32 and given in the compute dtype.

    Args:
        offset, scale: A number for every channel; no scale is 0.

    Input shape:
        `(batch, ..., channels)`, of any numeric dtype.

    Output shape:
        The same.
    """

    def __init__(self, offset: Sequence[float], scale: Sequence[float], **kwargs: Any) -> None:
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
