"""What this machine is, asked of the system alone."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def read_processor_name() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def has_int8_dot_products(features: str | None = None) -> bool:
    """Whether the processor has instructions for dot products of bytes, with which int8 is faster than float32.

    Args:
        features: Words of the processor's features, by default what Linux says of this one.
    """
    if features is None:
        with contextlib.suppress(OSError):
            features = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return not {"avx512_vnni", "avx_vnni", "asimddp"}.isdisjoint((features or "").split())


def read_memory_bytes() -> int:
    """Bytes of memory that this process may use: the machine's, or what its container is granted."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # not a container, or `max`
            return min(whole, int(Path(limit).read_text()))
    return whole


def read_available_bytes() -> int:
    """Bytes of memory that are free, or become so when the system drops what it keeps of files."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo", encoding="utf-8") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith("MemAvailable"))
        return min(int(kilobytes) * 1024, read_memory_bytes())
    return read_memory_bytes()
