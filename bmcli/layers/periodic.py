"""Periodic embeddings of numbers, from which a network learns steps and peaks more easily."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmcli")
class Periodic(keras.layers.Layer):
    """Sines and cosines of learned frequencies for each number, then a separate dense layer with relu for each.

    Gorishniy, Rubachev and Babenko 2022, section 3.3, where it is called PLR.

    Args:
        frequencies: Number of frequencies of each number.
        deviation: Standard deviation of the initial frequencies, in cycles per unit of the number.
        width: Width of the embedding of a number.

    Input shape:
        `(batch, numbers)`.

    Output shape:
        `(batch, numbers, width)`.
    """

    def __init__(self, frequencies: int, deviation: float, width: int, **kwargs: Any) -> None:
        # Without autocast of inputs and frequencies: half precision has too few bits for angles of many cycles.
        super().__init__(**{**kwargs, "autocast": False})
        self.frequencies, self.deviation, self.width = frequencies, deviation, width

    def build(self, input_shape):
        numbers, waves = input_shape[-1], 2 * self.frequencies
        self.rates = self.add_weight(
            shape=(numbers, self.frequencies),
            initializer=keras.initializers.RandomNormal(stddev=self.deviation),
            autocast=False,
            name="rates",
        )
        bound = 1 / math.sqrt(waves)
        self.kernel = self.add_weight(
            shape=(numbers, waves, self.width),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(numbers, self.width), initializer=keras.initializers.RandomUniform(-bound, bound), name="bias"
        )

    def call(self, inputs):
        angles = 2 * math.pi * ops.expand_dims(ops.cast(inputs, "float32"), -1) * ops.cast(self.rates, "float32")
        waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        waves, kernel, bias = (ops.cast(each, self.compute_dtype) for each in (waves, self.kernel, self.bias))
        return ops.relu(ops.einsum("bnk,nkw->bnw", waves, kernel) + bias)

    def compute_output_shape(self, input_shape):
        return *input_shape, self.width

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "frequencies": self.frequencies,
            "deviation": self.deviation,
            "width": self.width,
        }
