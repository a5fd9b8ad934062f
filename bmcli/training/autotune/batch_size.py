"""The batch-size finder for `auto`; results are cached by machine and model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from bmcli.training.autotune import measurement_cache
from bmcli.training.autotune.compilation import measure_step_seconds
from bmcli.training.feed import Feed
from bmcli.training.train_step import CompiledSteps

MIN_BATCH_SIZE = 16
MIN_STEPS_PER_EPOCH = 16  # with a larger batch an epoch would have too few steps
MIN_GAIN = 1.05  # ratio of examples per second that doubling must reach; less may be noise


def choose_batch_size(build_steps: Callable[[int], CompiledSteps], feed: Feed, rows: tf.Tensor, cache: Path) -> int:
    """Double the batch size while that trains more examples per second and fits into memory."""
    smallest = min(MIN_BATCH_SIZE, feed.count)
    first = build_steps(smallest)
    key = measurement_cache.make_key(first, feed.count)
    cached = measurement_cache.read_value(cache / "batch", key, "batch_size")
    is_valid = isinstance(cached, int) and not isinstance(cached, bool) and 0 < cached <= feed.count
    # Workers may have different caches and measure different speeds, but must train with one size: the chief decides.
    (size,) = first.placement.broadcast_from_chief([cached if is_valid else 0])
    if size:
        return int(size)
    best, speed = smallest, smallest / measure_step_seconds([first], feed, rows)[0]
    while 2 * best * MIN_STEPS_PER_EPOCH <= feed.count:
        doubled_speed = _measure_throughput(build_steps, 2 * best, feed, rows)
        (is_faster,) = first.placement.broadcast_from_chief([float(doubled_speed > MIN_GAIN * speed)])
        if not is_faster:
            break
        best, speed = 2 * best, doubled_speed
    if first.placement.is_chief:
        measurement_cache.write_values(cache / "batch", key, {"batch_size": best, "examples_per_second": speed})
    return best


def _measure_throughput(build_steps: Callable[[int], CompiledSteps], size: int, feed: Feed, rows: tf.Tensor) -> float:
    """Measure the examples per second; 0 if the batch does not fit into memory."""
    try:
        return size / measure_step_seconds([build_steps(size)], feed, rows)[0]
    except tf.errors.ResourceExhaustedError:
        return 0.0
