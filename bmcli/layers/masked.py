"""Masked: tells the Keras layers behind it which steps are padding."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class Masked(keras.layers.Layer):
    """Passes a sequence on with a mask attached, which Keras' recurrent, attention and pooling layers use.

    Input shape:
        A list of the sequence `(batch, steps, width)` and its mask `(batch, steps)`, false at padding.

    Output shape:
        That of the sequence.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        # A tensor of its own: the mask must not stick to the layer's input.
        return keras.ops.copy(inputs[0])

    def compute_mask(self, inputs, previous_mask=None):
        mask = keras.ops.cast(inputs[1], "bool")
        # A sequence of padding alone keeps its first step: Keras' mean over no steps is not a number.
        is_first = keras.ops.arange(mask.shape[1]) == 0
        return keras.ops.logical_or(mask, keras.ops.logical_and(is_first, ~keras.ops.any(mask, 1, keepdims=True)))

    def compute_output_shape(self, input_shape):
        return input_shape[0]
