"""The learning rate that `auto` stands for: where the loss falls fastest while the rate rises.

The range test of Smith 2017, section 3.3.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.training.feed import Feed
from bmcli.training.train_step import NO_STEP, CompiledSteps

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
SMOOTHING = 0.9  # Losses of single batches are noise; each counts so much less than the next.
LAG = 9  # steps, MEMORY / (1 - MEMORY), by which their mean is behind
DIVERGENCE_FACTOR = 4.0  # times the lowest loss so far
SLOPE_WINDOW = 5  # steps before and after, over which the fall is measured
MIN_STEPS = 4 * SLOPE_WINDOW  # steps that tell anything


def find_learning_rate(steps: CompiledSteps, feed: Feed, rows: tf.Tensor) -> float:
    """A learning rate from a range test of a hundred steps; every variable is as before afterwards.

    Args:
        steps: With an optimizer whose rate is a plain variable.

    Raises:
        BmcliError: The loss falls with no rate.
    """
    tried, losses = _run_range_test(steps, feed, rows)
    rate = find_steepest(tried, losses)
    (rate,) = steps.placement.broadcast_from_chief([rate])
    if not rate:
        raise BmcliError(
            f"the loss fell with no rate from {LOWEST:g} to {HIGHEST:g}, so none can be found.",
            path="train.optimizer.learning_rate", suggestion="Name one, as 1e-3.",
        )  # fmt: skip
    return rate


def _run_range_test(steps: CompiledSteps, feed: Feed, rows: tf.Tensor) -> tuple[list[float], list[float]]:
    """Rates that rise by equal factors, and the loss of each batch that was learned from with them."""
    before, full = steps.snapshot(), feed.count // steps.batch
    feed.start_epoch(rows, steps.batch)
    tried: list[float] = []
    losses: list[float] = []
    try:
        for number in range(STEPS):
            steps.optimizer.learning_rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
            steps.meters.reset()
            if steps.train_block(feed.read_block(number % full, 1)) != NO_STEP:
                break
            tried.append(float(steps.optimizer.learning_rate))
            losses.append(steps.meters.loss())
            if not losses[-1] < DIVERGENCE_FACTOR * max(min(losses), 1e-12) and len(losses) > MIN_STEPS:
                break
    finally:
        steps.restore_snapshot(before)
    return tried, losses


def find_steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest before it is lowest; 0 if it never falls.

    Args:
        rates: Rates, each a factor higher than the one before.
    """
    smooth = _smooth_losses(losses)
    lowest = int(np.argmin(smooth)) if len(smooth) > MIN_STEPS else 0
    if lowest <= SLOPE_WINDOW or smooth[lowest] >= smooth[0]:
        return 0.0
    falls = [
        smooth[max(place - SLOPE_WINDOW, 0)] - smooth[min(place + SLOPE_WINDOW, lowest)]
        for place in range(SLOPE_WINDOW, lowest + 1)
    ]
    return rates[max(SLOPE_WINDOW + int(np.argmax(falls)) - LAG, 0)]


def _smooth_losses(losses: list[float]) -> np.ndarray:
    """Exponential means of the losses, corrected for their beginning."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        found.append(mean / (1.0 - SMOOTHING**count))
    return np.array(found)
