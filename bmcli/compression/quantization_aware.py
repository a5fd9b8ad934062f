"""Quantisation-aware training: a network is trained with rounded weights and activations.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3. The integers are those of LiteRT: weights symmetric around 0 with a scale for each channel, activations
within a range that holds 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import private_api
from bmcli.compression.methods.round import (
    LEVELS,
    find_rounded_layers,
    list_kernels,
    round_to_levels,
    round_weights,
    scale_axes,
)
from bmcli.errors import BmcliError
from bmcli.recipe.compression import QuantizeAwareOptions
from bmcli.training.hooks import StepHook

_RANGE_STEPS = 255  # between the smallest and the largest integer of activations
_MOMENTUM = 0.99  # of the ranges, for which Jacob et al. want "close to 1"


class QuantizationAware(StepHook):
    """Quantisation-aware training: layers compute with rounded weights and activations from some step on.

    Only the `call` of layers is replaced: weights and names stay as they are, and a saved network is a plain one.

    Args:
        first: Optimizer steps after which rounding begins; ranges of activations are tracked from the start.
        iterations: The optimizer's variable that counts its steps.
    """

    replaces_network = True

    def __init__(self, model: keras.Model, options: QuantizeAwareOptions, first: int, iterations: Any) -> None:
        self._first, self._iterations, self._weights = first, iterations, options.weights
        self._is_tracking = False
        layers = find_rounded_layers(model)
        if not layers:
            raise BmcliError("no layer can be quantised.", path="train.quantize_aware",
                             suggestion="Use dense or convolutional layers.")  # fmt: skip
        activations = options.activations == "int8"
        # The lowest and the highest input of each layer, `(2,)`. In mixed precision Keras would cast them to 16 bits.
        self._ranges = [
            keras.Variable(np.zeros(2, "float32"), trainable=False, autocast=False, name="range")
            for _ in (layers if activations else ())
        ]
        for number, layer in enumerate(layers):
            layer.call = partial(self._call_quantized, layer, layer.call, self._ranges[number] if activations else None)

    @property
    def variables(self) -> list[Any]:
        return list(self._ranges)

    @property
    def statistics(self) -> list[Any]:
        return list(self._ranges)

    def is_settled(self, step: int) -> bool:
        return step > self._first

    def finish(self, model: keras.Model) -> None:
        round_weights(model, self._weights)

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Let ranges track the activations of layers that are traced inside the context."""
        # The same layers are traced for evaluation too, whose rows must not change what is trained.
        self._is_tracking = True
        try:
            yield
        finally:
            self._is_tracking = False

    def _call_quantized(
        self, layer: Any, call: Callable[..., Any], range_: Any, inputs: Any, *more: Any, **options: Any
    ) -> Any:
        if range_ is not None:
            inputs = self._quantize_activations(inputs, range_)
        # Inside the scope the layer reads these values instead of its variables.
        values = [(weight, self._quantize_weight(layer, weight)) for weight in list_kernels(layer)]
        with keras.StatelessScope(state_mapping=values):
            return call(inputs, *more, **options)

    def _quantize_weight(self, layer: Any, weight: Any) -> Any:
        value = tf.convert_to_tensor(private_api.get_uncast_value(weight))
        nearest = round_to_levels(value, scale_axes(layer, weight), LEVELS[self._weights])
        # The gradient of rounding is 0 almost everywhere; a straight-through estimator passes it on unchanged.
        return self._select_by_step(value, value + tf.stop_gradient(nearest - value))

    def _quantize_activations(self, inputs: Any, range_: Any) -> Any:
        if self._is_tracking:
            self._update_range(inputs, range_)
        return self._select_by_step(
            inputs, tf.cast(fake_quantize(tf.cast(inputs, tf.float32), range_.value), inputs.dtype)
        )

    def _update_range(self, inputs: Any, range_: Any) -> None:
        values = tf.cast(tf.stop_gradient(inputs), tf.float32)
        # The range includes 0, which padding and ReLU produce and one of the integers must represent exactly.
        extremes = tf.stack([tf.minimum(tf.reduce_min(values), 0.0), tf.maximum(tf.reduce_max(values), 0.0)])
        step = tf.cast(self._iterations.value, tf.float32)
        # The first batches have a smaller momentum, so that the initial zeros soon have no influence.
        rate = 1.0 - tf.minimum(_MOMENTUM, (1.0 + step) / (10.0 + step))
        range_.assign(range_.value + rate * (extremes - range_.value))

    def _select_by_step(self, plain: Any, other: Any) -> Any:
        if not self._first:
            return other
        return tf.where(self._iterations.value >= self._first, tf.cast(other, plain.dtype), plain)


def fake_quantize(values: Any, range_: Any) -> Any:
    """Round activations to the values of the 256 integers of a range; 0 is one of them.

    Gradients pass unchanged where a value lies in the range, and are 0 outside of it.

    Args:
        range_: The lowest value, at most 0, and the highest, at least 0; `(2,)`.
    """
    low, high = tf.unstack(range_)
    scale = tf.maximum((high - low) / _RANGE_STEPS, 1e-8)
    zero = tf.round(-low / scale)
    inside = tf.clip_by_value(values, -zero * scale, (_RANGE_STEPS - zero) * scale)
    return inside + tf.stop_gradient(tf.round(inside / scale) * scale - inside)
