"""Prediction of the time of a training step on several replicas, by a small model with measured constants.

A step computes the gradients of a replica's examples, exchanges and applies them, while the next examples are read:

    step = max(compute + exchange, input) + checkpoint

The model leaves out the ragged last batch of an epoch (which counts as its share of a full one), passes over validation
and test rows, starting and compiling, memory limits, and stragglers. Imports no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

TRAINING_PASSES = 3  # ratio of the FLOPs of forward and backward pass to those of the forward pass


@dataclass(frozen=True)
class Line:
    """The function `fixed + slope * x`; both constants are at least 0."""

    fixed: float
    slope: float

    def at(self, x: float) -> float:
        return self.fixed + self.slope * x


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Fit a line to positive measurements by least squares of relative errors.

    A line that would be negative somewhere is replaced by one through 0, or a flat one. One measurement gives a line
    through 0.
    """
    weights = [1 / y**2 for y in ys]  # relative errors, because the noise of a timing grows with it
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, xs, ys, strict=True)) / (spread or 1.0)
    if spread and slope <= 0:
        return Line(mean_y, 0.0)
    if not spread or mean_y < slope * mean_x:
        squares = sum(w * x * x for w, x in zip(weights, xs, strict=True))
        return Line(0.0, sum(w * x * y for w, x, y in zip(weights, xs, ys, strict=True)) / squares)
    return Line(mean_y - slope * mean_x, slope)


def fit_line_through_last(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Fit a line like `fit_line`, but exactly through the last measurement."""
    # The prediction for the whole batch then is the measurement. The slope is limited, so that a batch that is divided
    # gains no more than its share, even where caches make small batches faster.
    *before, (last_x, last_y) = zip(xs, ys, strict=True)
    squares = sum(((last_x - x) / y) ** 2 for x, y in before)
    slope = sum((last_x - x) * (last_y - y) / y**2 for x, y in before) / squares if before else math.inf
    slope = min(max(slope, 0.0), last_y / last_x)
    return Line(max(0.0, last_y - slope * last_x), slope)


@dataclass(frozen=True)
class Link:
    """Link between the members of a ring.

    Args:
        bandwidth: Bytes per second that a member sends while it receives the same number.
        latency_s: Seconds until a message without content has arrived.
    """

    bandwidth: float
    latency_s: float

    def all_reduce_s(self, size: float, members: int) -> float:
        """Predict the seconds of a ring all-reduce of `size` bytes.

        Patarasuk and Yuan 2009: 2 (n - 1) messages of 1/n of the bytes, which is the least possible traffic.
        """
        messages = 2 * (members - 1)
        return messages * (size / members / self.bandwidth + self.latency_s)


def fit_link(sizes: Sequence[float], seconds: Sequence[float], members: int) -> Link:
    """Fit a link to measured seconds of ring all-reduces of several sizes."""
    line, messages = fit_line(sizes, seconds), 2 * (members - 1)
    slope = line.slope or 1e-15  # no size made a difference
    return Link(messages / members / slope, line.fixed / messages)


@dataclass(frozen=True)
class Workload:
    """Work of a recipe, regardless of the machine.

    Args:
        examples: Rows of the training split.
        epochs: Largest number of epochs; stopping early is not foreseen.
        steps: Largest number of optimizer steps, or None.
        batch: Examples of a step over all replicas.
        example_bytes: Bytes that are read for one example.
        example_flops: Floating-point operations to train on one example, forward and backward.
        gradient_bytes: Bytes that are exchanged in each step.
        state_bytes: Bytes of a checkpoint: weights, optimizer slots and averages.
        streaming: Whether rows are read from disk; otherwise they are on the device, and gathering them is part of
            computing.
        checkpoint_time_s, checkpoint_steps: Interval of checkpoints; None for never.
    """

    examples: int
    epochs: int
    batch: int
    example_bytes: float
    example_flops: float
    gradient_bytes: float
    state_bytes: float
    streaming: bool
    steps: int | None = None
    checkpoint_time_s: float | None = None
    checkpoint_steps: int | None = None

    def total_steps(self, batch: int) -> float:
        """Number of steps to the end of the training; a ragged batch counts as its share of a full one."""
        return min(self.epochs * self.examples / batch, self.steps or math.inf)


@dataclass(frozen=True)
class ClusterModel:
    """Constants of a cluster of equal replicas.

    Args:
        compute: Seconds of a step by the number of examples of a replica.
        network: Link between the replicas.
        input: Bytes per second that a replica reads.
        snapshot, disk: Bytes per second at which a checkpoint is copied from the device, and written to disk.
    """

    compute: Line
    network: Link
    input: float
    snapshot: float
    disk: float


@dataclass(frozen=True)
class StepTime:
    """The time of a step; its parts add up to `seconds`.

    Args:
        batch: Examples over all replicas.
        compute_s: Computation on the replica with most examples.
        exchange_s: Exchange of gradients, which follows the computation.
        input_s: Waiting for examples after both.
        checkpoint_s: Share of one step of copying the state; it is written in the background.
        efficiency: Ratio of the speed to that of one replica times the number of replicas.
        epoch_s: Pass over the training rows.
        finish_s: All epochs.
        measured: Whether it was measured rather than predicted.
    """

    replicas: int
    batch: int
    compute_s: float
    exchange_s: float
    input_s: float
    checkpoint_s: float
    examples_per_second: float
    efficiency: float
    epoch_s: float
    finish_s: float
    measured: bool

    @property
    def seconds(self) -> float:
        return self.compute_s + self.exchange_s + self.input_s + self.checkpoint_s


def predict_step(work: Workload, cluster: ClusterModel, replicas: int) -> StepTime:
    """Predict the time of a step on several replicas, among which the batch is divided (strong scaling)."""
    alone, step = _predict_step(work, cluster, 1), _predict_step(work, cluster, replicas)
    return replace(step, efficiency=step.examples_per_second / (replicas * alone.examples_per_second))


def _predict_step(work: Workload, cluster: ClusterModel, replicas: int) -> StepTime:
    batch = min(work.batch, work.examples)
    largest_share = -(-batch // replicas)  # the others wait for the replica with most examples
    compute_s = cluster.compute.at(largest_share)
    exchange_s = cluster.network.all_reduce_s(work.gradient_bytes, replicas)
    busy_s = compute_s + exchange_s
    read = largest_share * work.example_bytes if work.streaming else 0.0
    wait_s = max(0.0, read / cluster.input - busy_s)
    checkpoint_s = _checkpoint_s(work, cluster, busy_s + wait_s)
    step_s = busy_s + wait_s + checkpoint_s
    return StepTime(
        replicas=replicas,
        batch=batch,
        compute_s=compute_s,
        exchange_s=exchange_s,
        input_s=wait_s,
        checkpoint_s=checkpoint_s,
        examples_per_second=batch / step_s,
        efficiency=1.0,
        epoch_s=work.examples / batch * step_s,
        finish_s=work.total_steps(batch) * step_s,
        measured=replicas == 1,
    )


def _checkpoint_s(work: Workload, cluster: ClusterModel, step_s: float) -> float:
    """Predict a step's share of the seconds to copy the state for checkpoints, during which the training waits."""
    apart = [math.inf if work.checkpoint_time_s is None else work.checkpoint_time_s]
    if work.checkpoint_steps is not None:
        apart.append(work.checkpoint_steps * step_s)
    # Steps are whole: two checkpoints are at least one apart.
    return work.state_bytes / cluster.snapshot * min(1.0, step_s / min(apart))


def find_warnings(work: Workload, cluster: ClusterModel, steps: Sequence[StepTime]) -> list[str]:
    """Warn of replicas without examples and of a disk that is too slow."""
    warnings = []
    for step in steps:
        if step.batch < step.replicas:
            warnings.append(
                f"{step.replicas:,} replicas share batches of {step.batch:,}: {step.replicas - step.batch:,} of them "
                "have no example to learn from."
            )
    write_s = work.state_bytes / cluster.disk
    if work.checkpoint_time_s is not None and write_s > work.checkpoint_time_s:
        warnings.append(
            f"a checkpoint takes {write_s:.0f} s to write, longer than the {work.checkpoint_time_s:.0f} s between two; "
            "the training will wait for the disk. Raise train.checkpoint.time."
        )
    return warnings
