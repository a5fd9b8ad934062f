"""The batch size that `auto` stands for: measured once for each machine and model, then remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from bmcli.training.autotune import measurement_cache
from bmcli.training.autotune.compilation import measure_step_seconds
from bmcli.training.feed import Feed
from bmcli.training.train_step import CompiledSteps

MIN_BATCH_SIZE = 16
MIN_STEPS_PER_EPOCH = 16  # A larger batch would leave too few steps to learn from.
MIN_GAIN = 1.05  # What doubling must add to the examples per second, to be more than noise.


def choose_batch_size(build_steps: Callable[[int], CompiledSteps], feed: Feed, rows: tf.Tensor, cache: Path) -> int:
    """The largest power of two that fits into memory and still trains more examples per second.

    It leaves at least 16 steps in an epoch. On several workers the chief decides.
    """
    smallest = min(MIN_BATCH_SIZE, feed.count)
    first = build_steps(smallest)
    key = measurement_cache.make_key(first, feed.count)
    known = measurement_cache.read_value(cache / "batch", key, "batch_size")
    whole = isinstance(known, int) and not isinstance(known, bool) and 0 < known <= feed.count
    (size,) = first.placement.broadcast_from_chief([known if whole else 0])
    if size:
        return int(size)
    best, rate = smallest, smallest / measure_step_seconds([first], feed, rows)[0]
    while 2 * best * MIN_STEPS_PER_EPOCH <= feed.count:
        following = _measure_throughput(build_steps, 2 * best, feed, rows)
        (higher,) = first.placement.broadcast_from_chief([float(following > MIN_GAIN * rate)])
        if not higher:
            break
        best, rate = 2 * best, following
    if first.placement.is_chief:
        measurement_cache.write_values(cache / "batch", key, {"batch_size": best, "examples_per_second": rate})
    return best


def _measure_throughput(build_steps: Callable[[int], CompiledSteps], size: int, feed: Feed, rows: tf.Tensor) -> float:
    """Examples per second; 0 if they do not fit into memory."""
    try:
        return size / measure_step_seconds([build_steps(size)], feed, rows)[0]
    except tf.errors.ResourceExhaustedError:
        return 0.0
