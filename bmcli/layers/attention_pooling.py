"""Pooling over the steps of a sequence by a learned query."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_NEVER = -1e9  # a score whose softmax is 0; of infinities alone it would be NaN


@keras.saving.register_keras_serializable(package="bmcli")
class AttentionPooling(keras.layers.Layer):
    """Mean over the valid steps, weighted by the softmax of their scores for a learned query; zeros if there is none.

    Yang et al. 2016, section 2.2: a step's score is the product of the query with the tanh of a dense layer.

    Args:
        units: Width of the dense layer and the query; by default that of the steps.

    Input shape:
        `(batch, steps, width)`, and a mask `(batch, steps)` that is false at padding.

    Output shape:
        `(batch, width)`.
    """

    def __init__(self, units: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True

    def build(self, input_shape):
        width = input_shape[-1]
        units = self.units or width
        self.kernel = self.add_weight(shape=(width, units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.query = self.add_weight(shape=(units, 1), initializer="glorot_uniform", name="query")

    def call(self, inputs, mask=None):
        keys = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias)
        # In float32, because `_NEVER` is outside the range of float16.
        scores = ops.cast(ops.matmul(keys, self.query), "float32")
        steps = inputs
        if mask is not None:
            valid = ops.expand_dims(ops.cast(mask, "bool"), -1)
            scores = ops.where(valid, scores, ops.full_like(scores, _NEVER))
            steps = ops.where(valid, inputs, ops.zeros_like(inputs))
        weights = ops.cast(ops.softmax(scores, axis=1), inputs.dtype)
        return ops.sum(weights * steps, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return {**super().get_config(), "units": self.units}
