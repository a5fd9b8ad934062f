"""Whether XLA makes the step of a model faster here: measured once, then remembered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from bmcli.training import memory
from bmcli.training.feed import Feed
from bmcli.training.step import Steps

WORTHWHILE_S = 20.0  # Compiling takes 2 to 5 s on a CPU; a shorter training cannot win it back.
ROUNDS = 4
FASTER = 1.15  # XLA must win by more than the noise of a measurement.


def choose(make: Callable[[bool], Steps], feed: Feed, rows: tf.Tensor, steps_in_all: int, cache: Path) -> Steps:
    """The steps, compiled with XLA or not, whichever is faster on this machine.

    The first answer is remembered below `cache`, so that the same recipe gives the same bits again: XLA and plain
    kernels round differently. On several workers the chief decides.
    """
    plain = make(False)
    key = memory.key(plain, feed.count, steps_in_all)
    remembered = memory.recall(cache / "jit", key, "jit")
    (known,) = plain.placement.from_chief([float(remembered) if isinstance(remembered, bool) else -1.0])
    if known >= 0:
        return make(True) if known else plain
    seconds = _measured(plain, make, feed, rows, steps_in_all)
    (faster,) = plain.placement.from_chief([float(seconds[0] > FASTER * seconds[1])])
    if plain.placement.chief:
        memory.keep(cache / "jit", key, {"jit": bool(faster), "plain_s": seconds[0], "xla_s": _finite(seconds[1])})
    return make(True) if faster else plain


def _measured(
    plain: Steps, make: Callable[[bool], Steps], feed: Feed, rows: tf.Tensor, steps_in_all: int
) -> tuple[float, float]:
    """Seconds of a step without and with XLA; infinite for XLA where it cannot pay."""
    if feed.count < plain.batch:
        return 0.0, math.inf
    (plain_s,) = seconds_a_step([plain], feed, rows)
    (slow,) = plain.placement.from_chief([float(plain_s * steps_in_all > WORTHWHILE_S)])
    if not slow:
        return plain_s, math.inf
    plain_s, xla_s = seconds_a_step([plain, make(True)], feed, rows)
    return plain_s, xla_s


def seconds_a_step(ways: Sequence[Steps], feed: Feed, rows: tf.Tensor) -> list[float]:
    """Seconds of one step of each way once compiled; every variable is as before afterwards.

    The ways take turns and the best of each counts, so that other work on the machine does not decide.
    """
    before = ways[0].snapshot()
    best = [math.inf] * len(ways)
    try:
        for turn in range(ROUNDS + 1):
            for way, steps in enumerate(ways):
                feed.open(rows, steps.batch)
                block = feed.block(0, 1 if turn == 0 else min(8, feed.count // steps.batch))
                start = time.perf_counter()
                steps.many(block)
                if turn:  # the first one compiles
                    best[way] = min(best[way], (time.perf_counter() - start) / block.count)
    finally:
        ways[0].put_back(before)
    return best


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
