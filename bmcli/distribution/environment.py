"""Record of the software and hardware of a run, as far as they decide its result."""

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
# Variables that decide bits or speed, by their full names: any other may contain a secret.
RECORDED_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_DETERMINISTIC_OPS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


def describe_environment(placement: Placement) -> dict[str, Any]:
    """Describe the versions, machine and command of a run, without secrets."""
    return {
        "bmcli": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in RECORDED},
        **strategy.describe_placement(placement),
        "command": ["bmcli", *(redaction.redact_argument(argument) for argument in sys.argv[1:])],
        "variables": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
    }


# Differences in these change the last bits of a training.
_COMPARED_KEYS = (
    *RECORDED[:3], "processor", "cores", "intra_op_threads", "inter_op_threads", "onednn", "replicas", "workers",
)  # fmt: skip


def compare_environments(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List differences between two records that change the last bits of a training, such as `cores (8, now 2)`."""
    return [
        f"{name} ({before[name]}, now {now[name]})"
        for name in _COMPARED_KEYS
        if name in before and before[name] != now[name]
    ]
