"""Placement of a training on devices, replicas and workers; precision and random state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import machine, private_api
from bmcli.distribution import cluster
from bmcli.distribution.peers import Peers
from bmcli.distribution.rendezvous import wait_for_peers
from bmcli.errors import BmcliError
from bmcli.native_output import hide_native_stderr
from bmcli.recipe.runtime import RuntimeOptions

CHUNK_BYTES = 16 * 2**20
# Added to a seed once for each replica: a prime near 2^32 / golden ratio, whose multiples are far apart modulo 2^32.
_SEED_STRIDE = 0x9E3779B1


@dataclass(frozen=True)
class Placement:
    """The devices of a training.

    A *replica* is one device with a copy of the network, a *worker* one process with one or more of them.

    Args:
        kind: `one_device`, `mirrored`, `multi_worker` or `tpu`.
        rank: Rank of this worker; worker 0 is the chief, the only one that writes the run.
        peers: Connections to the other workers; None if there are none.
    """

    kind: str
    strategy: tf.distribute.Strategy
    workers: int = 1
    rank: int = 0
    peers: Peers | None = None

    @property
    def replicas(self) -> int:
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> str:
        """The first device of this worker."""
        return str(self.strategy.extended.worker_devices[0]) if self.replicas > 1 else _first_device()

    @property
    def is_on_cpu(self) -> bool:
        return "CPU" in self.device.rsplit("/", 1)[-1]

    def copy_to_devices(self, arrays: Mapping[str, Any]) -> Any:
        """Copy arrays to every device of this worker."""
        if self.is_on_cpu:  # replicas on the CPU share its memory, and so one copy
            return tf.nest.map_structure(to_tensor, arrays)
        if self.replicas == 1:
            return tf.nest.map_structure(tf.constant, arrays)
        return self.strategy.experimental_distribute_values_from_function(
            lambda _: tf.nest.map_structure(tf.constant, arrays)
        )

    def sum_over_workers(self, values: Sequence[float]) -> list[float]:
        """Sum the values of all workers elementwise; every worker must call it at the same time."""
        if self.workers == 1:
            return list(values)
        return [float(value) for value in self._sum_on_replicas(tf.constant(values, tf.float64)).numpy()]

    def broadcast_from_chief(self, values: Sequence[float]) -> list[float]:
        """Return the chief's values on every worker; every worker must call it at the same time."""
        # The others contribute zeros, so that the sum is exact.
        return self.sum_over_workers(values if self.is_chief else [0.0] * len(values))

    @cached_property
    def _sum_on_replicas(self) -> Any:
        local = self.replicas // self.workers

        def sum_values(values: Any) -> Any:
            context = tf.distribute.get_replica_context()
            # Collectives sum over replicas: of each worker only the first one contributes.
            is_first = tf.cast(context.replica_id_in_sync_group % local == 0, values.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values * is_first)

        def run(values: Any) -> Any:
            return self.strategy.experimental_local_results(self.strategy.run(sum_values, args=(values,)))[0]

        return tf.function(run, autograph=False)


def create_placement(runtime: RuntimeOptions, agreement: str = "") -> Placement:
    """Create the placement that the recipe requests.

    Args:
        agreement: A text that must be equal on all workers.

    Raises:
        BmcliError: The machine does not have these devices.
    """
    peers = cluster.detect_cluster(runtime)
    if peers is not None:
        return _place_on_workers(peers, runtime.start_timeout, agreement)
    if runtime.strategy == "tpu" or (runtime.strategy == "auto" and (runtime.tpu or os.environ.get("TPU_NAME"))):
        return _place_on_tpu(runtime.tpu)
    gpus = _find_gpus()
    if runtime.strategy == "mirrored" or (runtime.strategy == "auto" and len(gpus) > 1):
        return _place_on_mirrored_devices(runtime.replicas, len(gpus))
    _enable_memory_growth()
    return Placement("one_device", tf.distribute.get_strategy())


def _place_on_workers(peers: cluster.Cluster, timeout_s: float, agreement: str) -> Placement:
    _enable_memory_growth()  # impossible once the strategy has initialized the devices
    with wait_for_peers(peers, timeout_s, agreement) as others:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=peers.resolver)
    return Placement("multi_worker", strategy, peers.workers, peers.rank, others)


def _place_on_tpu(address: str | None) -> Placement:
    """Place a training on all cores of a TPU."""
    # The steps of a call run in the device loop of the TPU, because the loop is part of the compiled program.
    name = address or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return Placement("tpu", tf.distribute.TPUStrategy(resolver))
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BmcliError(
            f"there is no TPU '{name}': {reason}", path="runtime.strategy",
            suggestion="Name it with runtime.tpu, or choose another strategy.",
        ) from None  # fmt: skip


def _place_on_mirrored_devices(replicas: int | None, gpus: int) -> Placement:
    count = replicas or gpus
    if not count:
        raise BmcliError(
            "this machine has no GPU to mirror on.", path="runtime.strategy",
            suggestion="Try it on the CPU with runtime.replicas=2, or choose one_device.",
        )  # fmt: skip
    if gpus and count > gpus:
        raise BmcliError(
            f"{count} replicas, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}.", path="runtime.replicas"
        )
    if gpus:
        _enable_memory_growth()
    else:
        _split_cpu(count)
    kind = "GPU" if gpus else "CPU"
    # The collective operations of CPUs allow only one set of devices in a process.
    exchange = None if gpus else tf.distribute.ReductionToOneDevice()
    devices = [f"{kind}:{number}" for number in range(count)]
    return Placement("mirrored", tf.distribute.MirroredStrategy(devices, cross_device_ops=exchange))


def _split_cpu(count: int) -> None:
    """Split the CPU into logical devices."""
    try:
        (cpu,) = tf.config.list_physical_devices("CPU")
        if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow can split it only before its first use
        raise BmcliError(
            f"TensorFlow already uses the CPU, which can no longer be split into {count} devices.",
            path="runtime.replicas",
        ) from None


def _find_gpus() -> list[Any]:
    """List the GPUs of this machine."""
    # On a machine without GPUs, CUDA fails to start, and TensorFlow reports that as an error: a user who wants to see
    # errors (TF_CPP_MIN_LOG_LEVEL=2) would see it in every training. Where there is a driver, it is a failure.
    with contextlib.nullcontext() if machine.has_gpu_driver() else hide_native_stderr():
        return list(tf.config.list_physical_devices("GPU"))


def _enable_memory_growth() -> None:
    gpus = _find_gpus()
    for gpu in gpus:
        # TensorFlow would take all memory of a GPU; growth can be enabled only before its first use.
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        # CPU kernels are deterministic; those of GPUs only with this setting.
        tf.config.experimental.enable_op_determinism()


def set_random_state(seed: int, precision: str) -> None:
    """Set random state and dtype policy of a run; call it before building a model."""
    # Clearing the session restarts Keras' numbers of layer names. A garbage collection takes as long as building a
    # model.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)


def offset_replica_seeds(model: keras.Model) -> None:
    """Let every replica draw other random numbers; the first one draws those of a single device."""
    # Mirrored generators would give all replicas the same masks of dropout. An offset to the seed leaves their state
    # equal on all replicas, each of which draws equally often, so that checkpoints hold it once.
    for layer in private_api.flatten_layers(model):
        for generator in private_api.get_seed_generators(layer):
            generator.next = partial(_next_replica_seed, generator, type(generator).next)


def _next_replica_seed(generator: Any, draw_seed: Callable[..., Any], ordered: bool = True) -> Any:
    seed = draw_seed(generator, ordered)
    context = tf.distribute.get_replica_context()
    if context is None:  # outside of a replica, for instance while the model is built
        return seed
    offset = tf.cast(context.replica_id_in_sync_group, seed.dtype) * tf.constant(_SEED_STRIDE, seed.dtype)
    return seed + tf.stack([offset, tf.zeros_like(offset)])


def to_tensor(array: np.ndarray) -> tf.Tensor:
    """Copy an array to a tensor on the CPU."""
    # `tf.constant` holds two copies of the array until the next operation; filling an empty tensor piece by piece holds
    # one. The array may be mapped from a file, and about as large as the memory.
    if array.nbytes <= CHUNK_BYTES:
        return tf.constant(array)
    tensor = tf.raw_ops.Empty(shape=array.shape, dtype=array.dtype, init=False)
    rows = max(1, CHUNK_BYTES * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        piece = array[start : start + rows]
        tensor = tf.raw_ops.InplaceUpdate(x=tensor, i=np.arange(start, start + len(piece), dtype=np.int32), v=piece)
    return tensor


def _first_device() -> str:
    logical = [*tf.config.list_logical_devices("GPU"), *tf.config.list_logical_devices("CPU")]
    return str(logical[0].name)


def describe_placement(placement: Placement) -> dict[str, Any]:
    """Describe the machine and the part of it that is used, as far as they decide the bits and the speed of a run."""
    return {
        **describe_machine(),
        "strategy": placement.kind,
        "replicas": placement.replicas,
        "workers": placement.workers,
    }


def describe_machine() -> dict[str, Any]:
    return {
        "devices": [f"{d.device_type}: {d.name}" for d in tf.config.list_physical_devices()],
        "processor": machine.read_processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
    }
