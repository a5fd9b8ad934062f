"""One-hot vectors of bin numbers."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class Bins(keras.layers.Layer):
    """One-hot vectors of the first channels; further channels follow unchanged.

    Args:
        channels: Number of channels that hold bin numbers.
        bins: Number of bins of each.

    Input shape:
        `(batch, ..., channels + further)`.

    Output shape:
        `(batch, ..., channels * bins + further)`.
    """

    def __init__(self, channels: int, bins: int, **kwargs: Any) -> None:
        # Without autocast, because 16-bit floats round integers above 256.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.channels, self.bins = channels, bins

    def call(self, inputs):
        places = keras.ops.cast(inputs[..., : self.channels], "int32")
        one_hot = keras.ops.one_hot(places, self.bins, dtype=self.compute_dtype)
        flat = keras.ops.reshape(one_hot, (-1, *inputs.shape[1:-1], self.channels * self.bins))
        further = keras.ops.cast(inputs[..., self.channels :], self.compute_dtype)
        return keras.ops.concatenate([flat, further], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "bins": self.bins}
