"""Position embeddings, from which a transformer knows the order of its tokens."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np

from bmcli.layers.incremental import IncrementalLayer


@keras.saving.register_keras_serializable(package="bmcli")
class Positions(IncrementalLayer):
    """Sum of each token and a vector that depends on its position.

    Args:
        kind: `learned`, one trained vector per position; `sinusoidal`, the fixed sinusoids of Vaswani et al. 2017,
            section 3.5.

    Input shape:
        `(batch, steps, width)` with known steps and, for sinusoidal, an even width.

    Output shape:
        The same.
    """

    def __init__(self, kind: Literal["learned", "sinusoidal"] = "learned", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.supports_masking = True

    def build(self, input_shape):
        _, steps, width = input_shape
        # A weight even where it is fixed: a constant would be stored in every graph that is exported.
        self.table = self.add_weight(
            shape=(steps, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02) if self.kind == "learned" else _sinusoids,
            trainable=self.kind == "learned",
            name="table",
        )

    def call(self, inputs):
        return inputs + keras.ops.cast(self.table, inputs.dtype)

    def make_cache(self, batch: int, steps: int) -> tuple[()]:
        return ()

    def advance(self, inputs: Any, cache: tuple[()], position: Any) -> tuple[Any, tuple[()]]:
        row = keras.ops.take(self.table, keras.ops.reshape(position, (1,)), axis=0)
        return inputs + keras.ops.cast(row, inputs.dtype), cache

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def _sinusoids(shape: tuple[int, int], dtype: Any = None) -> Any:
    """Compute sines in even columns and cosines in odd ones, of wavelengths from 2 pi to 10,000 times 2 pi."""
    steps, width = shape
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(steps)[:, None] * rates[None, :]
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(steps, width)
    return keras.ops.convert_to_tensor(table.astype("float32"), dtype=dtype)
