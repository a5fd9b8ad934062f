"""Dropout that XLA computes cheaply on a CPU.

XLA repeats the set-up of TensorFlow's random-number generator for every element, which makes dropout up to 50 times
slower than the layer before it. A hash of the element's position and the seed costs next to nothing, and is fused with
the operations around it. The seeds are still Keras', so that checkpoints and replicas need no change.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from bmcli import private_api


def use_hashed_dropout() -> AbstractContextManager[None]:
    """Let Keras' layers that are traced inside the context draw their masks from a hash."""
    return private_api.replace_stateless_dropout(_hashed_dropout)


def _hashed_dropout(
    x: Any, rate: float, seed: Any, rng_alg: Any = None, noise_shape: Any = None, name: Any = None
) -> Any:
    """Replace `tf.nn.experimental.stateless_dropout`: 0 with probability `rate`, otherwise `x / (1 - rate)`."""
    shape = _static_shape(x) if noise_shape is None else tf.unstack(tf.convert_to_tensor(noise_shape), x.shape.rank)
    # Compared as integers, which saves the conversion of every element to a float.
    kept = draw_uint32(shape, seed) >= tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)
    return tf.where(kept, x / tf.cast(1.0 - rate, x.dtype), tf.zeros((), x.dtype))


def draw_uint32(shape: Sequence[Any], seed: Any) -> Any:
    """Compute random uint32 numbers from a seed.

    Two rounds of the mixing function lowbias32 (Wellons 2018, "Prospecting for hash functions") over position and seed.

    Args:
        shape: Of less than 2^31 elements.
        seed: Two integers.
    """
    # Seeds may be negative or have 64 bits: their low 32 bits enter the hash.
    low = tf.constant(0xFFFFFFFF, tf.int64)
    first, second = tf.unstack(tf.cast(tf.bitwise.bitwise_and(tf.cast(seed, tf.int64), low), tf.uint32))
    # Each round has a key that is mixed from both integers, so that neighbouring seeds give unrelated masks.
    key = _mix_bits(_xor(_mix_bits(first + _uint32(0x9E3779B9)), second))
    other = _mix_bits(_xor(_mix_bits(key + _uint32(0x85EBCA6B)), first + second * _uint32(0xC2B2AE35)))
    places = tf.cast(tf.range(tf.reduce_prod(tf.stack(list(shape)))), tf.uint32)
    return tf.reshape(_mix_bits(_xor(_mix_bits(places + key), other)), shape)


def _mix_bits(x: Any) -> Any:
    x = _xor(x, _shift_right(x, 16)) * _uint32(0x7FEB352D)
    x = _xor(x, _shift_right(x, 15)) * _uint32(0x846CA68B)
    return _xor(x, _shift_right(x, 16))


def _xor(x: Any, y: Any) -> Any:
    return tf.bitwise.bitwise_xor(x, y)


def _shift_right(x: Any, bits: int) -> Any:
    return tf.bitwise.right_shift(x, _uint32(bits))


def _uint32(value: int) -> Any:
    return tf.constant(value, tf.uint32)


def _static_shape(x: Any) -> list[Any]:
    """Sizes of a tensor, as Python integers where they are known when it is traced."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]
