"""Pooling over the steps of a sequence without its padding."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmcli")
class StepPooling(keras.layers.Layer):
    """Mean or maximum over the valid steps, or the last of them; zeros for a sequence without any.

    Args:
        mode: `mean`, `max` or `last`.

    Input shape:
        `(batch, steps, width)`, and a mask `(batch, steps)` that is false at padding.

    Output shape:
        `(batch, width)`.
    """

    def __init__(self, mode: Literal["mean", "max", "last"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            if self.mode == "last":
                return inputs[:, -1]
            return ops.mean(inputs, axis=1) if self.mode == "mean" else ops.max(inputs, axis=1)
        valid = ops.expand_dims(ops.cast(mask, "bool"), -1)
        if self.mode == "max":
            # A scalar, not a tensor of infinities: converters to other formats multiply by the mask, and 0 times
            # infinity is NaN.
            lowest = ops.where(valid, inputs, float("-inf"))
            return ops.where(ops.any(valid, axis=1), ops.max(lowest, axis=1), ops.zeros_like(inputs[:, 0]))
        if self.mode == "last":
            steps = ops.reshape(ops.arange(1, inputs.shape[1] + 1), (1, -1, 1))
            numbered = ops.where(valid, steps, 0)
            is_last = ops.logical_and(valid, numbered == ops.max(numbered, axis=1, keepdims=True))
            return ops.sum(ops.where(is_last, inputs, ops.zeros_like(inputs)), axis=1)
        # Counted and summed in float32: in half precision sums of a thousand steps lose digits.
        kept = ops.cast(ops.where(valid, inputs, ops.zeros_like(inputs)), "float32")
        count = ops.maximum(ops.sum(ops.cast(valid, "float32"), axis=1), 1.0)
        return ops.cast(ops.sum(kept, axis=1) / count, inputs.dtype)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}
