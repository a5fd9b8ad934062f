"""The learning-rate finder for `auto`: the rate at which the loss falls fastest while the rate rises.

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
SMOOTHING = 0.9  # decay of the exponential mean: the losses of single batches are noisy
LAG = 9  # steps by which that mean is behind, SMOOTHING / (1 - SMOOTHING)
DIVERGENCE_FACTOR = 4.0  # ratio to the lowest loss so far at which the test ends
SLOPE_WINDOW = 5  # steps before and after a step over which the slope is measured
MIN_STEPS = 4 * SLOPE_WINDOW  # with fewer steps no slope is reliable


def find_learning_rate(steps: CompiledSteps, feed: Feed, rows: tf.Tensor) -> float:
    """Find a learning rate by a range test of 100 steps; the values of all variables are restored.

    Args:
        steps: Steps whose optimizer has a constant learning rate.

    Raises:
        BmcliError: The loss falls at no rate.
    """
    rates, losses = _run_range_test(steps, feed, rows)
    rate = find_steepest(rates, losses)
    (rate,) = steps.placement.broadcast_from_chief([rate])
    if not rate:
        raise BmcliError(
            f"the loss fell at no learning rate from {LOWEST:g} to {HIGHEST:g}, so that `auto` finds none.",
            path="train.optimizer.learning_rate", suggestion="Give a number, such as 1e-3.",
        )  # fmt: skip
    return rate


def _run_range_test(steps: CompiledSteps, feed: Feed, rows: tf.Tensor) -> tuple[list[float], list[float]]:
    """Train with rates that rise by equal factors; returns the rates and the loss of each batch."""
    before, full = steps.snapshot(), feed.count // steps.batch
    feed.start_epoch(rows, steps.batch)
    rates: list[float] = []
    losses: list[float] = []
    try:
        for number in range(STEPS):
            steps.optimizer.learning_rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
            steps.meters.reset()
            if steps.train_block(feed.read_block(number % full, 1)) != NO_STEP:
                break
            rates.append(float(steps.optimizer.learning_rate))
            losses.append(steps.meters.loss())
            # `not <`, because a comparison with NaN is false.
            if not losses[-1] < DIVERGENCE_FACTOR * max(min(losses), 1e-12) and len(losses) > MIN_STEPS:
                break
    finally:
        steps.restore_snapshot(before)
    return rates, losses


def find_steepest(rates: list[float], losses: list[float]) -> float:
    """Find the rate at which the smoothed loss falls fastest before its minimum; 0 if it never falls.

    Args:
        rates: Rates that rise by equal factors.
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
    """Compute exponential means of the losses."""
    mean, smooth = 0.0, []
    for count, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        smooth.append(mean / (1.0 - SMOOTHING**count))  # corrects the bias of a mean that begins with 0, as in Adam
    return np.array(smooth)
