"""Encoding of raw boolean cells as numbers, for serving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class BooleanEncoder(keras.layers.Layer):
    """1 for yes, 0 for no, and another number where a cell is missing or neither.

    Args:
        yes, no: Words in lower case.
        fill: Number for a missing cell, or one for every channel.
        flag: Append a channel for every channel, 1 where it is missing and 0 otherwise.

    Input shape:
        `(batch,)` of text or numbers, or `(batch, ...)` of numbers; NaN is missing.
        Or a list of one `(batch,)` per channel.

    Output shape:
        `(batch, channels)`, or twice the channels with `flag`, float32. For a list, a list of `(batch, 1)`.
    """

    def __init__(
        self,
        yes: Sequence[str],
        no: Sequence[str],
        fill: float | Sequence[float],
        flag: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.yes, self.no = list(yes), list(no)
        self.fill, self.flag = fill, flag

    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            return tf.split(self._encoded(tf.stack(inputs, axis=1)), len(inputs), axis=1)
        return self._encoded(inputs)

    def _encoded(self, inputs):
        cells = tf.reshape(inputs, [tf.shape(inputs)[0], math.prod(inputs.shape[1:])])
        if cells.dtype == tf.string:
            words = tf.strings.lower(tf.strings.strip(cells), encoding="utf-8")[..., tf.newaxis]
            yes, no = (tf.reduce_any(words == tf.constant(each), axis=-1) for each in (self.yes, self.no))
        else:
            yes, no = cells == 1, cells == 0
        missing = ~(yes | no)
        encoded = tf.where(missing, tf.constant(self.fill, "float32"), tf.cast(yes, "float32"))
        return tf.concat([encoded, tf.cast(missing, "float32")], axis=1) if self.flag else encoded

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "yes": self.yes, "no": self.no, "fill": self.fill, "flag": self.flag}
