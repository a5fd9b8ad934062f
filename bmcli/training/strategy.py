"""What the training runs on: devices, precision, random state."""

from __future__ import annotations

import os
import platform
from typing import Any

import keras
import tensorflow as tf


def prepare_runtime(seed: int, precision: str) -> None:
    """Sets random state, dtype policy and determinism for a run; call it before building a model."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):  # it can be set only before the first use
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        # CPU kernels give the same bits every time as they are; those of GPUs only when asked.
        tf.config.experimental.enable_op_determinism()


def device() -> str:
    """The device that `one_device` uses: the first accelerator, or the CPU."""
    logical = [*tf.config.list_logical_devices("GPU"), *tf.config.list_logical_devices("CPU")]
    return str(logical[0].name)


def describe() -> dict[str, Any]:
    """The machine as far as it decides the bits and the speed of a run."""
    return {
        "devices": [f"{d.device_type}: {d.name}" for d in tf.config.list_physical_devices()],
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
    }


def processor() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
