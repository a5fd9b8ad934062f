"""What a run was made with and on, as far as it decides the result."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import version
from typing import Any

from bmcli import __version__
from bmcli.training import strategy

RECORDED = ("tensorflow", "keras", "numpy", "scikit-learn", "pyarrow")
# Those that decide bits or speed, by their full names: any other variable may hold a secret.
RECORDED_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_DETERMINISTIC_OPS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip
_SECRET = re.compile(r"(?i)([\w.-]*(?:token|secret|password|passwd|api_?key|credential)[\w.-]*=).+|(?<=://)[^/@\s]+@")


def record() -> dict[str, Any]:
    """Versions, machine and command of a run, without secrets."""
    return {
        "bmcli": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in RECORDED},
        **strategy.describe(),
        "command": ["bmcli", *(redacted(argument) for argument in sys.argv[1:])],
        "variables": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
    }


def redacted(argument: str) -> str:
    """An argument without what looks like a secret: values of keys named so, and passwords in addresses."""
    return _SECRET.sub(lambda match: (match[1] or "") + "***" + ("" if match[1] else "@"), argument)
