"""What a run was made with and on, as far as it decides the result."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from bmcli import __version__, redaction
from bmcli.distribution import strategy
from bmcli.distribution.strategy import Placement

RECORDED = ("tensorflow", "keras", "numpy", "scikit-learn", "pyarrow")
# Those that decide bits or speed, by their full names: any other variable may hold a secret.
RECORDED_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_DETERMINISTIC_OPS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


def describe_environment(placement: Placement) -> dict[str, Any]:
    """Versions, machine and command of a run, without secrets."""
    return {
        "bmcli": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in RECORDED},
        **strategy.describe_placement(placement),
        "command": ["bmcli", *(redaction.redact_argument(argument) for argument in sys.argv[1:])],
        "variables": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
    }


# What changes the last bits of a training.
_COMPARED_KEYS = (
    *RECORDED[:3], "processor", "cores", "intra_op_threads", "inter_op_threads", "onednn", "replicas", "workers",
)  # fmt: skip


def compare_environments(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two records and changes the last bits of a training: `cores (8, now 2)`."""
    return [
        f"{name} ({before[name]}, now {now[name]})"
        for name in _COMPARED_KEYS
        if name in before and before[name] != now[name]
    ]
