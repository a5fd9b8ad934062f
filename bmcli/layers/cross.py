"""Cross of several categories: one category for each combination."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

_GOLDEN = 2_654_435_769  # 2**32 over the golden ratio: multiples of it spread evenly (Knuth, volume 3, section 6.4)


@keras.saving.register_keras_serializable(package="bmcli")
class Cross(keras.layers.Layer):
    """Number of a combination of positions, which is hashed if there are more combinations than buckets.

    Args:
        sizes: Number of positions of each input.
        buckets: Largest number of categories.

    Input shape:
        A list of `(batch,)`, positions from 0, of any numeric dtype.

    Output shape:
        `(batch,)`, int32, below `width`.
    """

    def __init__(self, sizes: Sequence[int], buckets: int, **kwargs: Any) -> None:
        # Without autocast, because 16-bit floats round positions above 256.
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.sizes, self.buckets = list(sizes), buckets
        self.width = min(buckets, math.prod(self.sizes))

    def call(self, inputs):
        combined = keras.ops.cast(inputs[0], "int64")
        for size, positions in zip(self.sizes[1:], inputs[1:], strict=True):
            combined = combined * size + keras.ops.cast(positions, "int64")
        if self.width < math.prod(self.sizes):
            # The first remainder keeps the product below 2**63; the last steps scale the hash from 2**32 to buckets.
            combined = combined % 2**31 * _GOLDEN % 2**32 * self.buckets // 2**32
        return keras.ops.cast(combined, "int32")

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sizes": self.sizes, "buckets": self.buckets}
