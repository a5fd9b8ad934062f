"""How long a training step takes on several replicas: a small model with measured or described constants.

A step computes the gradients of a replica's examples, exchanges and applies them, while the next examples are read:

    step = max(compute + exchange, input) + checkpoint

Not in the model: the ragged last batch of an epoch (taken as its share of a full one), passes over validation and test
rows, starting and compiling, memory limits, and stragglers. Imports no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.errors import BmcliError
from bmcli.recipe import check, nodes
from bmcli.recipe.fields import Duration, Options, Size, fault_at
from bmcli.recipe.nodes import Node

BACKWARD = 2 / 3  # Share of the computing that can hide an exchange: the backward pass multiplies twice, forward once.
TRAINING_PASSES = 3  # FLOPs of forward and backward in those of forward.
THIS = "this"


@dataclass(frozen=True)
class Line:
    """`fixed + slope * x`, neither below 0."""

    fixed: float
    slope: float

    def at(self, x: float) -> float:
        return self.fixed + self.slope * x


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line:
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


def fit_through_last(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """As `fit`, but exactly through the last measurement.

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
    line, messages = fit(sizes, seconds), 2 * (members - 1)
    slope = line.slope or 1e-15  # no size made a difference
    return Link(messages / members / slope, line.fixed / messages)


@dataclass(frozen=True)
class Work:
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

    @property
    def device_bytes(self) -> float:
        """Memory of a replica for weights, optimizer slots, averages, gradients and resident rows.

        Activations, which grow with the examples of a replica, are not estimated.
        """
        return self.state_bytes + self.gradient_bytes + (0 if self.streaming else self.examples * self.example_bytes)

    def steps_in_all(self, batch: int) -> float:
        """Steps to the end of the recipe; a ragged batch counts as its share of a full one."""
        return min(self.epochs * self.examples / batch, self.steps or math.inf)


@dataclass(frozen=True)
class Cluster:
    """Constants of replicas that are all alike.

    Args:
        compute: Seconds of a step by the examples of a replica.
        network: Between hosts; its bandwidth is that of a whole host.
        inside: Between the replicas of a host.
        input: Bytes a second that a host reads, for all its replicas.
        snapshot, disk: Bytes a second that a checkpoint is copied from the device, and written to the disk.
        overlap: Share of the exchange that happens during the backward pass, if that is long enough. Our own step
            exchanges after it: 0.
        measured: Whether the constants of one replica were measured.
    """

    name: str
    compute: Line
    network: Link
    input: float
    snapshot: float
    disk: float
    inside: Link | None = None
    replicas_per_host: int = 1
    overlap: float = 0.0
    memory: float | None = None
    measured: bool = False

    def exchange_s(self, size: float, replicas: int) -> float:
        """Seconds to sum `size` bytes over all replicas.

        Inside of each host first to one share of the sums a replica, then each share across the hosts, then inside
        again: the network carries the bytes of a host once, not once for each replica.
        """
        local = min(replicas, self.replicas_per_host)
        hosts = -(-replicas // local)
        inside_s = self.inside.all_reduce_s(size, local) if self.inside and local > 1 else 0.0
        return inside_s + self.network.all_reduce_s(size, hosts)


@dataclass(frozen=True)
class Step:
    """A step as the model sees it; its parts add up to `seconds`.

    Args:
        batch: Examples over all replicas.
        compute_s: Of the replica with most examples.
        exchange_s: Of the exchange of gradients, what no computing hides.
        input_s: Waiting for examples beyond all that.
        checkpoint_s: Copying the state, as the share of one step; it is written in the background.
        efficiency: Examples a second, in those of one replica times the replicas.
        epoch_s: Of a pass over the training rows.
        finish_s: Of all epochs.
        measured: Whether the step was measured rather than predicted.
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


def predict(work: Work, cluster: Cluster, replicas: int, per_replica_batch: int | None = None) -> Step:
    """A step of a recipe on some replicas.

    Args:
        per_replica_batch: Examples of each replica, so that the batch grows with the replicas (weak scaling), which
            is another training; by default the recipe's batch is divided (strong scaling).
    """
    alone = _predict(work, cluster, 1, per_replica_batch)
    step = _predict(work, cluster, replicas, per_replica_batch)
    return replace(step, efficiency=step.examples_per_second / (replicas * alone.examples_per_second))


def _predict(work: Work, cluster: Cluster, replicas: int, per_replica_batch: int | None) -> Step:
    batch = min(work.batch if per_replica_batch is None else per_replica_batch * replicas, work.examples)
    most = -(-batch // replicas)  # the others wait for the replica with most examples
    compute_s = cluster.compute.at(most)
    exchange_s = cluster.exchange_s(work.gradient_bytes, replicas)
    exchange_s -= min(cluster.overlap * exchange_s, BACKWARD * compute_s)
    busy_s = compute_s + exchange_s
    read = min(replicas, cluster.replicas_per_host) * most * work.example_bytes if work.streaming else 0.0
    wait_s = max(0.0, read / cluster.input - busy_s)
    checkpoint_s = _checkpoint_s(work, cluster, busy_s + wait_s)
    step_s = busy_s + wait_s + checkpoint_s
    return Step(
        replicas=replicas,
        batch=batch,
        compute_s=compute_s,
        exchange_s=exchange_s,
        input_s=wait_s,
        checkpoint_s=checkpoint_s,
        examples_per_second=batch / step_s,
        efficiency=1.0,
        epoch_s=work.examples / batch * step_s,
        finish_s=work.steps_in_all(batch) * step_s,
        measured=cluster.measured and replicas == 1 and batch == work.batch,
    )


def _checkpoint_s(work: Work, cluster: Cluster, step_s: float) -> float:
    """Seconds of a step's share of a checkpoint: the copy of the state, which the training waits for."""
    apart = [math.inf if work.checkpoint_time_s is None else work.checkpoint_time_s]
    if work.checkpoint_steps is not None:
        apart.append(work.checkpoint_steps * step_s)
    # Steps are whole: two checkpoints are at least one apart.
    return work.state_bytes / cluster.snapshot * min(1.0, step_s / min(apart))


def warnings(work: Work, cluster: Cluster, steps: Sequence[Step]) -> list[str]:
    """What makes predictions worthless or a plan unwise."""
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
    if cluster.memory is not None and work.device_bytes > cluster.memory:
        found.append(
            f"weights, optimizer, gradients and resident rows need {work.device_bytes / 2**30:.1f} GiB; "
            f"{cluster.name} has {cluster.memory / 2**30:.1f} GiB."
        )
    return found


class Accelerator(Options):
    """A device, by its data sheet."""

    flops: Annotated[float, Field(gt=0)] = Field(description="Peak FLOP a second, at bfloat16 or float16.")
    flops_float32: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Peak FLOP a second of recipes with precision float32; by default the same."
    )
    efficiency: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4, description="Share of the peak that a network reaches: an assumption."
    )
    overhead: Duration = Field(
        default=0.0002, description="Fixed time of a step, as 0.2ms: starting kernels, small layers, the optimizer."
    )
    memory: Size | None = Field(default=None, description="Memory of a device, as 80GiB.")


class LinkOptions(Options):
    """A network or a bus."""

    bandwidth: Size = Field(description="Bytes a second in one direction, as 25GiB.")
    latency: Duration = Field(description="Time until a message of no bytes is there, as 0.02ms.")


class ClusterOptions(Options):
    """Machines to plan for. What is left out is taken from measurements on this machine."""

    accelerator: Accelerator | None = Field(default=None, description="A replica; by default this machine's device.")
    replicas_per_host: Annotated[int, Field(ge=1)] = Field(default=1, description="Replicas of a host.")
    inside: LinkOptions | None = Field(default=None, description="What joins the replicas of a host.")
    network: LinkOptions = Field(description="What joins the hosts; the bandwidth is that of a whole host.")
    input: Size | None = Field(default=None, description="Bytes a second that a host reads while it trains, as 2GiB.")
    snapshot: Size | None = Field(
        default=None, description="Bytes a second that a checkpoint is copied with from a device to its host."
    )
    disk: Size | None = Field(default=None, description="Bytes a second that a checkpoint is written with.")
    overlap: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Share of the exchange of gradients that happens during the backward pass."
    )

    @model_validator(mode="after")
    def _hosts_are_whole(self) -> ClusterOptions:
        if self.replicas_per_host > 1 and self.inside is None:
            raise fault_at(
                ("replicas_per_host",), "several replicas in a host need a link.",
                "Write inside: {bandwidth: 300GiB, latency: 0.005ms}.",
            )  # fmt: skip
        if self.replicas_per_host == 1 and self.inside is not None:
            raise fault_at(("inside",), "`inside` does nothing with one replica in a host.", "Set replicas_per_host.")
        return self


# Peaks, memory and links are nominal, from the vendors' data sheets; their GB of 10^9 bytes are converted to GiB.
# Latencies, efficiency and overhead are assumptions of ours: vendors do not publish them. Links are for one direction,
# half of what NVIDIA prints for NVLink. float32 on NVIDIA is TF32, which TensorFlow uses by itself.
BUILT_IN: Mapping[str, str] = {
    # NVIDIA A100 80GB SXM: 312 TFLOP/s bfloat16, 156 TF32, dense; NVLink 3: 600 GB/s. DGX A100: 8 GPUs, 8 x 200 Gbit/s.
    "a100": """
        accelerator: {flops: 312e12, flops_float32: 156e12, efficiency: 0.4, overhead: 0.2ms, memory: 74.5GiB}
        replicas_per_host: 8
        inside: {bandwidth: 279.4GiB, latency: 0.005ms}
        network: {bandwidth: 186.3GiB, latency: 0.02ms}
    """,
    # NVIDIA H100 80GB SXM: 989 TFLOP/s bfloat16, 494 TF32, dense; NVLink 4: 900 GB/s. DGX H100: 8 GPUs, 8 x 400 Gbit/s.
    "h100": """
        accelerator: {flops: 989e12, flops_float32: 494e12, efficiency: 0.4, overhead: 0.2ms, memory: 74.5GiB}
        replicas_per_host: 8
        inside: {bandwidth: 419.1GiB, latency: 0.005ms}
        network: {bandwidth: 372.5GiB, latency: 0.02ms}
    """,
    # Google TPU v4: 275 TFLOP/s bfloat16, in which XLA also multiplies float32 by itself; 32 GiB; links of 50 GB/s in
    # each direction, six of them in a torus (Jouppi et al. 2023), of which a single ring uses one to send.
    "tpu-v4": """
        accelerator: {flops: 275e12, efficiency: 0.4, overhead: 0.2ms, memory: 32GiB}
        network: {bandwidth: 46.6GiB, latency: 0.002ms}
    """,
}


def find_cluster(target: str) -> ClusterOptions | None:
    """A description by file or built-in name; None for `this`, the machine we are on.

    Raises:
        BmcliError: There is none of that name, or every fault of the file.
    """
    if target == THIS:
        return None
    if target in BUILT_IN:
        return read_cluster(nodes.parse(BUILT_IN[target], target, Path.cwd()))
    path = Path(target).expanduser()
    if path.is_file():
        return read_cluster(nodes.read(path, target, list(ClusterOptions.model_fields)))
    raise BmcliError(
        f"no cluster '{target}': no such file, and no built-in description of that name.",
        suggestion=parts.did_you_mean(target, [THIS, *BUILT_IN]),
    )


def read_cluster(tree: Node) -> ClusterOptions:
    """The checked description of a tree.

    Raises:
        BmcliError: Every fault at once, with its place.
    """
    return check.check_as(ClusterOptions, tree, "a cluster is described by a mapping")


def described(name: str, options: ClusterOptions, work: Work, precision: str, here: Cluster) -> Cluster:
    """A described cluster for a recipe.

    Args:
        precision: The recipe's `train.precision`.
        here: Measured on this machine, for what the description leaves out.
    """
    device = options.accelerator
    return Cluster(
        name=name,
        compute=here.compute if device is None else _compute(device, work.example_flops, precision),
        network=_link(options.network),
        inside=_link(options.inside) if options.inside else None,
        replicas_per_host=options.replicas_per_host,
        input=options.input or here.input,
        snapshot=options.snapshot or here.snapshot,
        disk=options.disk or here.disk,
        overlap=options.overlap,
        memory=device.memory if device else None,
        measured=device is None,
    )


def _compute(device: Accelerator, example_flops: float, precision: str) -> Line:
    peak = (device.flops_float32 or device.flops) if precision == "float32" else device.flops
    return Line(device.overhead, example_flops / (peak * device.efficiency))


def _link(options: LinkOptions) -> Link:
    return Link(options.bandwidth, options.latency)
