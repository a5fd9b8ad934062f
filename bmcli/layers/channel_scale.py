"""Channel scale: reduces the influence of a residual branch at the start of training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmcli")
class ChannelScale(keras.layers.Layer):
    """Each channel times a learned number, small at first (Touvron et al. 2021, "LayerScale").

    Args:
        start: Initial factor of all channels.

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        The same.
    """

    def __init__(self, start: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.start), name="scale"
        )

    def call(self, inputs):
        return inputs * ops.cast(self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}
