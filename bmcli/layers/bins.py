"""Numbers of bins as one-hot vectors."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class Bins(keras.layers.Layer):
    """Each of the first channels as a one-hot vector; further channels follow as they are.

    Args:
        channels: Channels that hold numbers of bins.
        bins: Bins of each.

    Input shape:
        `(batch, ..., channels + further)`.

    Output shape:
        `(batch, ..., channels * bins + further)`.
    """

    def __init__(self, channels: int, bins: int, **kwargs: Any) -> None:
        # Without autocast, since half precision rounds numbers above 256.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.channels, self.bins = channels, bins

    def call(self, inputs):
        places = keras.ops.cast(inputs[..., : self.channels], "int32")
        chosen = keras.ops.one_hot(places, self.bins, dtype=self.compute_dtype)
        flat = keras.ops.reshape(chosen, (-1, *inputs.shape[1:-1], self.channels * self.bins))
        further = keras.ops.cast(inputs[..., self.channels :], self.compute_dtype)
        return keras.ops.concatenate([flat, further], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "bins": self.bins}
