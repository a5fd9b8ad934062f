"""Number tokens: embeddings of numbers for a transformer."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmcli")
class NumberTokens(keras.layers.Layer):
    """Each number times a learned vector, plus a learned offset (Gorishniy et al. 2021, section 3.3).

    Args:
        width: Width of a token.

    Input shape:
        `(batch, numbers)`.

    Output shape:
        `(batch, numbers, width)`.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def build(self, input_shape):
        bound = 1 / math.sqrt(self.width)
        self.kernel, self.bias = (
            self.add_weight(
                shape=(input_shape[-1], self.width),
                initializer=keras.initializers.RandomUniform(-bound, bound),
                name=name,
            )
            for name in ("kernel", "bias")
        )

    def call(self, inputs):
        return ops.expand_dims(inputs, -1) * self.kernel + self.bias

    def compute_output_shape(self, input_shape):
        return *input_shape, self.width

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}
