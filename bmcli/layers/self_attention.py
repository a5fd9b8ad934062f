"""Self-attention with rotary positions, fewer heads of keys and values, and a cache of the steps before."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bmcli.layers.incremental import IncrementalLayer

_NEVER = -1e9  # a score whose softmax is 0; of infinities alone it would be NaN
_WAVELENGTH = 10_000.0


@keras.saving.register_keras_serializable(package="bmcli")
class SelfAttention(IncrementalLayer):
    """Attention of the steps of a sequence to each other (Vaswani et al. 2017, section 3.2).

    Args:
        heads: Number of heads.
        size: Width of a head.
        key_value_heads: Number of heads of keys and values, of which each serves `heads / key_value_heads` heads of
            queries (Ainslie et al. 2023); by default `heads`.
        rotary: Whether queries and keys are rotated by their positions (Su et al. 2021, section 3.2).
        causal: Whether no step attends to later ones.
        dropout: Rate of dropout of the attention weights.
        kernel_initializer, kernel_regularizer: Of all weights, as of a Keras layer.

    Input shape:
        `(batch, steps, width)`, and a mask `(batch, steps)` that is false at padding.

    Output shape:
        The same as that of the steps.
    """

    def __init__(
        self,
        heads: int,
        size: int,
        key_value_heads: int | None = None,
        rotary: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.size, self.key_value_heads = heads, size, key_value_heads or heads
        if heads % self.key_value_heads:
            raise ValueError(f"{heads} heads cannot share {self.key_value_heads} heads of keys and values")
        if rotary and size % 2:
            raise ValueError(f"rotary positions need heads of an even width, received {size}")
        self.rotary, self.causal, self.dropout = rotary, causal, dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.supports_masking = True

    def build(self, input_shape):
        width, key_width = input_shape[-1], self.key_value_heads * self.size
        self.query_dense = self._build_dense("query", 0, width, self.heads * self.size)
        self.key_dense = self._build_dense("key", 1, width, key_width)
        self.value_dense = self._build_dense("value", 2, width, key_width)
        self.output_dense = self._build_dense("output", 3, self.heads * self.size, width)
        self.drop = keras.layers.Dropout(self.dropout) if self.dropout else None

    def _build_dense(self, name: str, number: int, width: int, units: int) -> keras.layers.Dense:
        config = self.kernel_initializer.get_config()
        if config.get("seed") is not None:
            # One seed would give the same numbers again: queries would equal keys.
            config = {**config, "seed": config["seed"] + number}
        layer = keras.layers.Dense(
            units, kernel_initializer=type(self.kernel_initializer).from_config(config),
            kernel_regularizer=self.kernel_regularizer, dtype=self.dtype_policy, name=name,
        )  # fmt: skip
        layer.build((None, None, width))
        return layer

    def call(self, inputs, mask=None, training=None):
        steps = inputs.shape[1]
        positions = ops.arange(steps)
        queries, keys, values = self._project(inputs, positions)
        allowed = ops.expand_dims(positions, 0) <= ops.expand_dims(positions, 1) if self.causal else None
        if mask is not None:
            valid = ops.cast(mask, "bool")[:, None, None, :]
            allowed = valid if allowed is None else ops.logical_and(valid, allowed)
        return self._attend(queries, keys, values, allowed, training)

    def _project(self, inputs: Any, positions: Any) -> tuple[Any, Any, Any]:
        """Compute queries, keys and values, `(batch, heads, steps, size)`, of steps at some positions."""
        queries = self._split_heads(self.query_dense(inputs), self.heads)
        keys = self._split_heads(self.key_dense(inputs), self.key_value_heads)
        values = self._split_heads(self.value_dense(inputs), self.key_value_heads)
        if self.rotary:
            queries, keys = (_rotate(each, positions) for each in (queries, keys))
        return queries, keys, values

    def _split_heads(self, tensor: Any, heads: int) -> Any:
        tensor = ops.reshape(tensor, (-1, tensor.shape[1], heads, self.size))
        return ops.transpose(tensor, (0, 2, 1, 3))

    def _attend(self, queries: Any, keys: Any, values: Any, allowed: Any, training: bool | None) -> Any:
        """Average values by attention, `(batch, steps, width)`.

        Args:
            allowed: Whether a query may attend to a key, `(batch or 1, 1, queries, keys)` or `(queries, keys)`; None
                for all.
        """
        if self.key_value_heads != self.heads:
            keys, values = (ops.repeat(each, self.heads // self.key_value_heads, axis=1) for each in (keys, values))
        # In float32, because `_NEVER` is outside the range of float16.
        scores = ops.cast(ops.matmul(queries * self.size**-0.5, ops.transpose(keys, (0, 1, 3, 2))), "float32")
        if allowed is not None:
            scores = ops.where(allowed, scores, _NEVER)
        weights = ops.cast(ops.softmax(scores, axis=-1), values.dtype)
        if self.drop is not None:
            weights = self.drop(weights, training=training)
        merged = ops.transpose(ops.matmul(weights, values), (0, 2, 1, 3))
        return self.output_dense(ops.reshape(merged, (-1, merged.shape[1], self.heads * self.size)))

    def make_cache(self, batch: int, steps: int) -> dict[str, Any]:
        shape = (batch, self.key_value_heads, steps, self.size)
        return {name: ops.zeros(shape, self.compute_dtype) for name in ("keys", "values")}

    def advance(self, inputs: Any, cache: dict[str, Any], position: Any) -> tuple[Any, dict[str, Any]]:
        if not self.causal:
            raise ValueError(f"{self.name} attends to later steps, so it cannot be computed step by step")
        queries, keys, values = self._project(inputs, ops.reshape(position, (1,)))
        start = (0, 0, position, 0)
        cache = {
            "keys": ops.slice_update(cache["keys"], start, keys),
            "values": ops.slice_update(cache["values"], start, values),
        }
        allowed = ops.reshape(ops.arange(cache["keys"].shape[2]) <= position, (1, -1))
        return self._attend(queries, cache["keys"], cache["values"], allowed, False), cache

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "size": self.size,
            "key_value_heads": self.key_value_heads,
            "rotary": self.rotary,
            "causal": self.causal,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _rotate(tensor: Any, positions: Any) -> Any:
    """Rotate pairs of channels, `(batch, heads, steps, size)`, by angles that grow with the position of their step.

    A channel of the first half is paired with that of the second half at the same place.
    """
    half = tensor.shape[-1] // 2
    rates = ops.convert_to_tensor(_WAVELENGTH ** (-np.arange(half, dtype="float32") / half))
    angles = ops.cast(ops.expand_dims(positions, 1), "float32") * ops.expand_dims(rates, 0)
    cosines, sines = ops.cast(ops.cos(angles), tensor.dtype), ops.cast(ops.sin(angles), tensor.dtype)
    first, second = tensor[..., :half], tensor[..., half:]
    return ops.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
