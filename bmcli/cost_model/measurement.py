"""Measurement of the cost model's constants for a recipe, with its real steps, feed and checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compat.v1 import profiler

from bmcli import machine
from bmcli.cost_model import model_summary, prediction
from bmcli.cost_model.prediction import ClusterModel, Link, Workload
from bmcli.distribution.launch import INTERRUPTED_EXIT_CODE, launch_workers, list_cores
from bmcli.errors import RunFailed
from bmcli.networks.network import Network
from bmcli.specs import Split
from bmcli.training import checkpoint
from bmcli.training.autotune import measurement_cache
from bmcli.training.autotune.compilation import measure_step_seconds
from bmcli.training.feed import StreamingFeed
from bmcli.training.train_step import Compilation, CompiledSteps
from bmcli.training.trainer import Trainer
from bmcli.windows import count_row_bytes

READ_S = 0.5  # duration of the measurement of the feed
MEASURE_S = 6.0  # steps are measured again within this time, to reduce the influence of other work on the machine
MORE_ROUNDS = 3
NETWORK_WORKERS = 2


@dataclass(frozen=True)
class CostMeasurement:
    """Measured costs of a training on one replica.

    Args:
        seconds: Seconds of a step by batch size; the constants of `cluster.compute` are fitted to them.
        snapshot_s, write_s: Seconds to copy the state for a checkpoint, during which the training waits, and to write
            it in the background.
        network: Link between two worker processes of this machine; None if it was not measured.
    """

    work: Workload
    cluster: ClusterModel
    seconds: Mapping[int, float]
    snapshot_s: float
    write_s: float
    network: Link | None


def measure_costs(trainer: Trainer, split: Split, network: Link | None) -> CostMeasurement:
    """Measure the workload of a recipe and the constants of this machine; the values of all variables are restored.

    Args:
        split: The training rows.
        network: Link between workers; None to predict one replica alone.
    """
    seconds = _measure_step_seconds(trainer)
    flops = count_example_flops(trainer.network)
    input_bandwidth, example_bytes = _measure_input(trainer, split)
    state_bytes, snapshot_s, write_s = _measure_checkpoint(trainer.steps)
    work = Workload(
        examples=trainer.feed.count,
        epochs=trainer.recipe.train.epochs,
        steps=trainer.recipe.train.stop.steps,
        batch=trainer.batch,
        example_bytes=example_bytes,
        example_flops=flops,
        gradient_bytes=count_gradient_bytes(trainer.steps),
        state_bytes=state_bytes,
        streaming=isinstance(trainer.feed, StreamingFeed),
        checkpoint_time_s=trainer.recipe.train.checkpoint.time,
        checkpoint_steps=trainer.recipe.train.checkpoint.steps,
    )
    cluster = ClusterModel(
        compute=prediction.fit_line_through_last(list(seconds), list(seconds.values())),
        network=network or Link(float("inf"), 0.0),
        input=input_bandwidth,
        snapshot=state_bytes / snapshot_s,
        disk=state_bytes / write_s,
    )
    return CostMeasurement(work, cluster, seconds, snapshot_s, write_s, network)


def _measure_step_seconds(trainer: Trainer) -> dict[int, float]:
    """Measure the seconds of a step at a quarter, a half and the whole of the batch size."""
    whole = trainer.batch
    sizes = sorted({max(1, whole // 4), max(1, whole // 2), whole})
    variants = [trainer.compile_steps(size, Compilation(trainer.steps.compilation.jit)) for size in sizes]
    rows = tf.range(trainer.feed.count, dtype=tf.int32)
    start = time.perf_counter()
    best = measure_step_seconds(variants, trainer.feed, rows)
    for _ in range(MORE_ROUNDS):
        if time.perf_counter() - start > MEASURE_S:
            break
        best = [min(pair) for pair in zip(best, measure_step_seconds(variants, trainer.feed, rows), strict=True)]
    return dict(zip(sizes, best, strict=True))


def count_example_flops(network: Network) -> float:
    """Count the floating-point operations to train on one example.

    TensorFlow's profiler counts those of the forward pass on one example; training needs three times as many, because
    the backward pass has two multiplications for each one of the forward pass. Losses, the optimizer, and operations
    without registered statistics are not counted. Loops are not counted either, so that recurrent layers are unrolled.
    """
    graph = model_summary.build_forward_graph(network, training=False)
    options = profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with _hide_warnings():  # the profiler uses deprecated functions of TensorFlow
        counted = profiler.profile(graph, options=options).total_float_ops
    return float(prediction.TRAINING_PASSES * counted)


@contextmanager
def _hide_warnings() -> Iterator[None]:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def count_gradient_bytes(steps: CompiledSteps) -> float:
    """Count the bytes that a step sums over the replicas: gradients, moving statistics and the loss."""
    exchanged = [*steps.network.model.trainable_variables, *steps.components.statistics]
    return float(sum(map(model_summary.variable_bytes, exchanged)) + 4)


def _measure_input(trainer: Trainer, split: Split) -> tuple[float, float]:
    """Measure the bytes per second that the streaming feed reads without a training, and the bytes of an example."""
    arrays = [*split.inputs.values(), *split.targets.values(), *([] if split.weights is None else [split.weights])]
    example_bytes = float(sum(map(count_row_bytes, arrays)))
    feed = StreamingFeed(split, trainer.placement)
    full, done = feed.count // trainer.batch, 0
    start = time.perf_counter()
    feed.start_epoch(trainer.sampler.epoch_order(0), trainer.batch)
    while done < full and time.perf_counter() - start < READ_S:
        done += feed.read_block(done, full - done).count
    return done * trainer.batch * example_bytes / (time.perf_counter() - start), example_bytes


def _measure_checkpoint(steps: CompiledSteps) -> tuple[float, float, float]:
    """Measure the bytes of the state, the seconds to copy it, and the seconds to write it."""
    steps.snapshot()  # the first one is slower: with several replicas it traces a function
    start = time.perf_counter()
    variables, meter_state = steps.snapshot()
    copied = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 0, checkpoint.Checkpoint({"variables": variables, "meters": meter_state}, {}))
    written = time.perf_counter()
    size = float(sum(array.nbytes for array in [*variables, *meter_state]))
    return size, copied - start, written - copied


def measure_network(cache: Path) -> Link:
    """Measure the link between two worker processes of this machine, by all-reduces of several sizes; cached.

    Raises:
        RunFailed: The workers could not be started.
    """
    machine_key = [machine.read_processor_name(), list_cores(), tf.__version__, NETWORK_WORKERS]
    key = hashlib.sha256(json.dumps(machine_key).encode()).hexdigest()[:24]
    seconds = measurement_cache.read_value(cache / "network", key, "seconds")
    if not _is_measurement(seconds):
        seconds = measure_exchange_seconds()
        measurement_cache.write_values(cache / "network", key, {"seconds": seconds})
    return prediction.fit_link([float(size) for size in seconds], list(seconds.values()), NETWORK_WORKERS)


def _is_measurement(cached: Any) -> bool:
    """Whether a cached value has the form of `measure_exchange_seconds`, so that a line can be fitted to it."""
    return (
        isinstance(cached, dict)
        and len(cached) > 1
        and all(size.isascii() and size.isdecimal() for size in cached)
        and all(isinstance(seconds, float) and 0 < seconds < math.inf for seconds in cached.values())
    )


def measure_exchange_seconds() -> dict[str, float]:
    """Measure the seconds of an all-reduce between two worker processes, by its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        result = launch_workers(
            [*machine.make_python_command("bmcli.cost_model.all_reduce_benchmark"), str(file)],
            NETWORK_WORKERS,
            Path(folder),
        )
        if result.loss is not None:
            raise result.loss.to_error()
        if result.code == INTERRUPTED_EXIT_CODE:
            raise KeyboardInterrupt
        if result.code or not file.exists():
            raise RunFailed("two workers on this machine could not exchange data.")
        measured: dict[str, float] = json.loads(file.read_text())
        return measured
