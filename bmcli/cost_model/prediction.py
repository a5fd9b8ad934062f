"""The time of a training step on several replicas: a small model with measured constants.

A step computes the gradients of a replica's examples, exchanges and applies them, while the next examples are read:

    step = max(compute + exchange, input) + checkpoint

Not in the model: the ragged last batch of an epoch (taken as its share of a full one), passes over validation and test
rows, starting and compiling, memory limits, and stragglers. Imports no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

TRAINING_PASSES = 3  # FLOPs of forward and backward in those of forward.


@dataclass(frozen=True)
class Line:
    """`fixed + slope * x`, neither below 0."""

    fixed: float
    slope: float

    def at(self, x: float) -> float:
        return self.fixed + self.slope * x


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line that is nearest to positive measurements by least squares of relative errors.

    Relative, because the noise of a timing grows with it. Where the best line would be negative somewhere, it goes
    through 0, or is flat. One measurement gives a line through 0.
    """
    weights = [1 / y**2 for y in ys]
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
    """As `fit_line`, but exactly through the last measurement.

    So what is predicted for the whole batch is what was measured, and dividing a batch gains no more than its share,
    even where caches make small batches faster.
    """
    *before, (last_x, last_y) = zip(xs, ys, strict=True)
    squares = sum(((last_x - x) / y) ** 2 for x, y in before)
    slope = sum((last_x - x) * (last_y - y) / y**2 for x, y in before) / squares if before else math.inf
    slope = min(max(slope, 0.0), last_y / last_x)
    return Line(max(0.0, last_y - slope * last_x), slope)


@dataclass(frozen=True)
class Link:
    """What joins the members of a ring.

    Args:
        bandwidth: Bytes a second that a member sends, while it receives as many.
        latency_s: Seconds until a message of no bytes is there.
    """

    bandwidth: float
    latency_s: float

    def all_reduce_s(self, size: float, members: int) -> float:
        """Seconds of a ring all-reduce of `size` bytes.

        Patarasuk and Yuan 2009: 2 (n - 1) messages of 1/n of the bytes, which is the least possible traffic.
        """
        messages = 2 * (members - 1)
        return messages * (size / members / self.bandwidth + self.latency_s)


def fit_link(sizes: Sequence[float], seconds: Sequence[float], members: int) -> Link:
    """The link whose ring all-reduces of some sizes would take the seconds measured between `members`."""
    line, messages = fit_line(sizes, seconds), 2 * (members - 1)
    slope = line.slope or 1e-15  # no size made a difference
    return Link(messages / members / slope, line.fixed / messages)


@dataclass(frozen=True)
class Workload:
    """What a recipe asks for, whatever it runs on.

    Args:
        examples: Rows of the training split.
        epochs: At most, as the recipe says; stopping early is not foreseen.
        steps: Optimizer steps at most, or None.
        batch: Examples of a step over all replicas.
        example_bytes: Read for one example.
        example_flops: Floating-point operations to train on one example, forward and backward.
        gradient_bytes: Exchanged in each step.
        state_bytes: Weights, optimizer slots and averages, which is what a checkpoint holds.
        streaming: Rows are read as they are needed; else they lie on the device, and gathering them is computing.
        checkpoint_time_s, checkpoint_steps: How far checkpoints are apart; None for never.
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
        """Steps to the end of the recipe; a ragged batch counts as its share of a full one."""
        return min(self.epochs * self.examples / batch, self.steps or math.inf)


@dataclass(frozen=True)
class ClusterModel:
    """Constants of replicas that are all alike.

    Args:
        compute: Seconds of a step by the examples of a replica.
        network: Between the replicas.
        input: Bytes a second that a replica reads.
        snapshot, disk: Bytes a second that a checkpoint is copied from the device, and written to the disk.
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
        compute_s: Of the replica with most examples.
        exchange_s: Of the exchange of gradients, which follows the computing.
        input_s: Waiting for examples beyond all that.
        checkpoint_s: Copying the state, as the share of one step; it is written in the background.
        efficiency: Examples a second, in those of one replica times the replicas.
        epoch_s: Of a pass over the training rows.
        finish_s: Of all epochs.
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
    """Predict the time of a step of a recipe on some replicas, among which its batch is divided (strong scaling)."""
    alone, step = _predict_step(work, cluster, 1), _predict_step(work, cluster, replicas)
    return replace(step, efficiency=step.examples_per_second / (replicas * alone.examples_per_second))


def _predict_step(work: Workload, cluster: ClusterModel, replicas: int) -> StepTime:
    batch = min(work.batch, work.examples)
    most = -(-batch // replicas)  # the others wait for the replica with most examples
    compute_s = cluster.compute.at(most)
    exchange_s = cluster.network.all_reduce_s(work.gradient_bytes, replicas)
    busy_s = compute_s + exchange_s
    read = most * work.example_bytes if work.streaming else 0.0
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
    """Seconds of a step's share of a checkpoint: the copy of the state, which the training waits for."""
    apart = [math.inf if work.checkpoint_time_s is None else work.checkpoint_time_s]
    if work.checkpoint_steps is not None:
        apart.append(work.checkpoint_steps * step_s)
    # Steps are whole: two checkpoints are at least one apart.
    return work.state_bytes / cluster.snapshot * min(1.0, step_s / min(apart))


def find_warnings(work: Workload, cluster: ClusterModel, steps: Sequence[StepTime]) -> list[str]:
    """Warn of replicas without examples and of a disk that is too slow."""
    found = []
    for step in steps:
        if step.batch < step.replicas:
            found.append(
                f"{step.replicas:,} replicas share batches of {step.batch:,}: {step.replicas - step.batch:,} of them "
                "have no example to learn from."
            )
    write_s = work.state_bytes / cluster.disk
    if work.checkpoint_time_s is not None and write_s > work.checkpoint_time_s:
        found.append(
            f"a checkpoint takes {write_s:.0f} s to write, longer than the {work.checkpoint_time_s:.0f} s between two: "
            "the training will wait for the disk. Raise train.checkpoint.time."
        )
    return found
