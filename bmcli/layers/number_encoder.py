"""Encoding of raw numbers, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="bmcli")
class NumberEncoder(keras.layers.Layer):
    """Numbers with missing ones filled and flagged, and scaled channels; padding stays NaN.

    Args:
        fill, offset, scale: A number for every channel: `(where(missing, fill, x) - offset) / scale`.
        flag: Append a channel for every channel, 1 where it was missing and 0 otherwise.
        padded: A step with all channels missing is padding, and stays NaN.
        log: First apply `sign(x) * log(1 + |x|)`.
        learned: Missing numbers stay NaN, because a later layer fills them.
        knots, heights: A rising, piecewise linear curve for every channel, which is applied before scaling.
        edges: Edges of bins for every channel; a number is replaced by the number of its bin.

    Input shape:
        `(batch,)`, one channel, or `(batch, ..., channels)`, of the layer's dtype; NaN is missing.
        Or a list of one `(batch,)` per channel.

    Output shape:
        `(batch, ..., channels)`, or twice the channels with `flag`, float32. For a list, a list of `(batch, 1)`.
    """

    def __init__(
        self,
        fill: Sequence[float],
        offset: Sequence[float],
        scale: Sequence[float],
        flag: bool = False,
        padded: bool = False,
        log: bool = False,
        learned: bool = False,
        knots: Sequence[Sequence[float]] = (),
        heights: Sequence[Sequence[float]] = (),
        edges: Sequence[Sequence[float]] = (),
        **kwargs: Any,
    ) -> None:
        # Without autocast, because half precision would lose the digits for which a column is read as float64.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.fill, self.offset, self.scale = list(fill), list(offset), list(scale)
        self.flag, self.padded, self.log, self.learned = flag, padded, log, learned
        self.knots, self.heights, self.edges = knots, heights, edges

    def call(self, inputs):
        if isinstance(inputs, (list, tuple)):
            return tf.split(self._encoded(tf.stack(inputs, axis=1)), len(inputs), axis=1)
        return self._encoded(inputs)

    def _encoded(self, inputs):
        values = tf.cast(inputs, self.dtype)
        values = values[:, tf.newaxis] if values.shape.rank == 1 else values
        fill, offset, scale = (tf.constant(each, self.dtype) for each in (self.fill, self.offset, self.scale))
        missing = tf.math.is_nan(values)
        values = self._logarithm(values) if self.log else values
        encoded = tf.cast((self._apply_curves(tf.where(missing, fill, values)) - offset) / scale, "float32")
        if self.learned:
            encoded = tf.where(missing, tf.constant(float("nan"), "float32"), encoded)
        if self.flag:
            encoded = tf.concat([encoded, tf.cast(missing, "float32")], axis=-1)
        if self.padded:
            padding = tf.reduce_all(missing, axis=-1, keepdims=True)
            encoded = tf.where(padding, tf.constant(float("nan"), "float32"), encoded)
        return encoded

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "fill": self.fill,
            "offset": self.offset,
            "scale": self.scale,
            "flag": self.flag,
            "padded": self.padded,
            "log": self.log,
            "learned": self.learned,
            "knots": self.knots,
            "heights": self.heights,
            "edges": self.edges,
        }

    def _logarithm(self, values):
        # In float64, as NumPy does when data is prepared, so that serving gives the same numbers.
        wide = tf.cast(values, "float64")
        return tf.cast(tf.sign(wide) * tf.math.log1p(tf.abs(wide)), self.dtype)

    def _apply_curves(self, values):
        """Apply the curves or bins of the channels."""
        if not self.knots and not self.edges:
            return values
        channels = values.shape[-1]
        flat = tf.transpose(tf.reshape(values, [-1, channels]))  # `searchsorted` takes one row per channel
        if self.edges:
            edges = tf.constant(_pad_rows(self.edges, np.inf), self.dtype)
            results = tf.cast(tf.searchsorted(edges, flat, side="right"), self.dtype)
        else:
            results = self._interpolate(flat)
        return tf.reshape(tf.transpose(results), tf.shape(values))

    def _interpolate(self, flat):
        """Interpolate values `(channels, values)` on the curves of their channels."""
        # Channels may have different numbers of knots: infinite ones fill the rows, and the last height continues.
        knots = tf.constant(_pad_rows(self.knots, np.inf), self.dtype)
        last = [heights[-1] for heights in self.heights]
        heights = tf.constant(_pad_rows(self.heights, last), self.dtype)
        ends = tf.constant([[each[0], each[-1]] for each in self.knots], self.dtype)
        flat = tf.clip_by_value(flat, ends[:, :1], ends[:, 1:])
        left = tf.searchsorted(knots, flat, side="right") - 1
        low, high = (tf.gather(knots, place, batch_dims=1) for place in (left, left + 1))
        bottom, top = (tf.gather(heights, place, batch_dims=1) for place in (left, left + 1))
        return bottom + (flat - low) / (high - low) * (top - bottom)


def _pad_rows(lists: Sequence[Sequence[float]], filler: Any) -> np.ndarray:
    """Arrange lists of different lengths as rows, each with at least one filler at its end."""
    table = np.empty((len(lists), 1 + max(map(len, lists))))
    table[:] = np.reshape(filler, (-1, 1))
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return table
