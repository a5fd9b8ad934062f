"""Facts about this machine, read from the operating system without importing TensorFlow."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def make_python_command(module: str) -> list[str]:
    """Make the command that runs a module of bmcli in another process."""
    # Without -P, Python looks for modules in the working directory first: a file keras.py beside a foreign recipe would
    # run in place of Keras, and package metadata there would announce a plug-in.
    return [sys.executable, "-P", "-m", module]


def read_processor_name() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform  # not at the top: most commands start without it

        return platform.processor() or platform.machine()


def has_int8_dot_products(features: str | None = None) -> bool:
    """Whether the processor has int8 dot product instructions, with which int8 is faster than float32.

    Args:
        features: Features of the processor as words; by default those of this one, as Linux lists them.
    """
    if features is None:
        with contextlib.suppress(OSError):
            features = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint((features or "").split())


def has_gpu_driver() -> bool:
    """Whether a driver of GPUs is installed: of NVIDIA, also in WSL or on a Jetson, or of AMD."""
    files = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl-gpu", "/dev/kfd")
    return any(os.path.exists(file) for file in files)


def read_memory_bytes() -> int:
    """Bytes of memory that this process may use: those of the machine, or the limit of its container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Version 2 of control groups, then version 1.
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # not a container, or the text `max`
            return min(total, int(Path(limit).read_text()))
    return total


def read_available_bytes() -> int:
    """Bytes of memory that are available, including the file cache, which the system can drop."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo", encoding="utf-8") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable"))
        return min(int(kilobytes) * 1024, read_memory_bytes())
    return read_memory_bytes()
