"""Attaches a mask to a sequence, from which later Keras layers know the steps of padding."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class Masked(keras.layers.Layer):
    """A sequence with a mask, which Keras' recurrent, attention and pooling layers use.

    Input shape:
        A list of the sequence `(batch, steps, width)` and its mask `(batch, steps)`, false at padding.

    Output shape:
        That of the sequence.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        # Keras stores the mask at the tensor; without a copy it would be at the layer's input too.
        return keras.ops.copy(inputs[0])

    def compute_mask(self, inputs, previous_mask=None):
        mask = keras.ops.cast(inputs[1], "bool")
        # The first step of a sequence of padding alone counts as valid: Keras' mean over no steps is NaN.
        is_first = keras.ops.arange(mask.shape[1]) == 0
        return keras.ops.logical_or(mask, keras.ops.logical_and(is_first, ~keras.ops.any(mask, 1, keepdims=True)))

    def compute_output_shape(self, input_shape):
        return input_shape[0]
