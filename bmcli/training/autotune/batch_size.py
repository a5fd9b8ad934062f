"""The batch size that `auto` stands for: measured once for each machine and model, then remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from bmcli.training.autotune import measurement_cache
from bmcli.training.autotune.compilation import seconds_a_step
from bmcli.training.feed import Feed
from bmcli.training.train_step import CompiledSteps

SMALLEST = 16
STEPS_AN_EPOCH = 16  # A larger batch would leave too few steps to learn from.
GAIN = 1.05  # What doubling must add to the examples per second, to be more than noise.


def choose(make: Callable[[int], CompiledSteps], feed: Feed, rows: tf.Tensor, cache: Path) -> int:
    """The largest power of two that fits into memory and still trains more examples per second.

    It leaves at least 16 steps in an epoch. On several workers the chief decides.
    """
    smallest = min(SMALLEST, feed.count)
    first = make(smallest)
    key = measurement_cache.key(first, feed.count)
    known = measurement_cache.recall(cache / "batch", key, "batch_size")
    whole = isinstance(known, int) and not isinstance(known, bool) and 0 < known <= feed.count
    (size,) = first.placement.from_chief([known if whole else 0])
    if size:
        return int(size)
    best, rate = smallest, smallest / seconds_a_step([first], feed, rows)[0]
    while 2 * best * STEPS_AN_EPOCH <= feed.count:
        following = _rate(make, 2 * best, feed, rows)
        (higher,) = first.placement.from_chief([float(following > GAIN * rate)])
        if not higher:
            break
        best, rate = 2 * best, following
    if first.placement.chief:
        measurement_cache.keep(cache / "batch", key, {"batch_size": best, "examples_per_second": rate})
    return best


def _rate(make: Callable[[int], CompiledSteps], size: int, feed: Feed, rows: tf.Tensor) -> float:
    """Examples per second; 0 if they do not fit into memory."""
    try:
        return size / seconds_a_step([make(size)], feed, rows)[0]
    except tf.errors.ResourceExhaustedError:
        return 0.0
