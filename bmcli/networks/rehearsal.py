"""Trial load of an untrusted model in a separate process, whose memory is limited by the size of the file.

    python -m bmcli.networks.rehearsal FILE BYTES

The memory that a configuration needs is known only once it is built: a file of one kilobyte may describe a layer of
8 GB. Here it ends only the separate process, which writes the reason to standard output.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

from bmcli.disk import format_path
from bmcli.errors import BmcliError
from bmcli.machine import make_python_command, read_available_bytes

WEIGHT_COPIES = 4
"""Copies of the weights in memory: unpacked, in the variables, and two while these are assigned."""
SPARE_BYTES = 2**29
"""For graphs, tables and threads; the largest networks of Keras need about 100 MB of it."""
_TIMEOUT_S = 600
_CHECK_S = 0.01
_STATUS = Path("/proc/self/status")


def require_loadable(file: Path, display_path: Path, weights_bytes: int) -> None:
    """Refuse a `.keras` file that cannot be loaded in the memory that its weights need.

    Args:
        file: The checked copy of the file.
        display_path: Its path in messages.
        weights_bytes: Size of its weights.

    Raises:
        BmcliError: It cannot be loaded, or needs more memory or time.
    """
    allowed = WEIGHT_COPIES * weights_bytes + SPARE_BYTES
    if allowed > read_available_bytes():
        raise BmcliError(
            f"{format_path(display_path)}: refused, loading it needs up to {allowed:,} bytes of memory, and "
            f"{read_available_bytes():,} are free."
        )
    # On the CPU, because this process may hold all memory of the accelerators.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [*make_python_command("bmcli.networks.rehearsal"), str(file), str(allowed)]
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=_TIMEOUT_S)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BmcliError(f"{format_path(display_path)}: refused, loading it took more than {_TIMEOUT_S} s.") from None
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        # A process that exceeds its limit in native code may be aborted before it can print a reason.
        reason = lines[-1] if lines else _describe_excess(allowed)
        raise BmcliError(f"{format_path(display_path)}: cannot be loaded ({reason}).")


def main() -> None:
    """Load the file; if that fails, print the reason as the last line of standard output and exit with 1."""
    file, allowed = sys.argv[1], int(sys.argv[2])
    import keras
    import tensorflow as tf

    from bmcli import layers, models

    layers.register()
    # Starts TensorFlow's threads before the limit is set: their stacks count as memory.
    tf.reduce_sum(tf.ones((64, 64)) @ tf.ones((64, 64))).numpy()
    _limit_memory(allowed)
    try:
        with models.allow_column_names():
            keras.saving.load_model(file, compile=False, safe_mode=True)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print(_describe_excess(allowed))
        sys.exit(1)
    except Exception as error:  # a damaged file makes Keras raise anything
        print((str(error).splitlines() or [type(error).__name__])[0])
        sys.exit(1)


def _limit_memory(allowed: int) -> None:
    """Limit the memory that this process may use in addition to what it holds now."""
    try:
        status = _STATUS.read_text(encoding="utf-8")
    except OSError:
        # Systems without `/proc`, such as macOS, do not count mapped memory for their limits: a thread watches instead.
        limit = _peak_bytes() + allowed
        threading.Thread(target=_exit_above, args=(limit, _describe_excess(allowed)), daemon=True).start()
        return
    # Linux counts private mappings for RLIMIT_DATA: allocations then fail, which TensorFlow reports as an error.
    held = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + allowed, held + allowed))


def _exit_above(limit: int, reason: str) -> None:
    """End the process once it has held more than `limit` bytes of memory."""
    while _peak_bytes() <= limit:
        time.sleep(_CHECK_S)  # short, so that it exceeds the limit by little
    print(reason, flush=True)
    os._exit(1)


def _peak_bytes() -> int:
    """Largest memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, kilobytes on Linux


def _describe_excess(allowed: int) -> str:
    return f"it needs more than the {allowed:,} bytes of memory that the size of its weights allows"


if __name__ == "__main__":
    main()
