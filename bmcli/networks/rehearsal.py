"""Loading a stranger's model in a process of its own first, whose memory is limited by the size of the file.

    python -m bmcli.networks.rehearsal FILE BYTES

What a configuration asks for can only be known by building it: a file of a kilobyte may ask for a layer of 8 GB. Here
it is built where that ends a process that nobody misses, and says why on standard output.
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
from bmcli.machine import read_available_bytes

WEIGHT_COPIES = 4
"""Of the weights: unpacked, in the variables, and twice while these are assigned."""
SPARE_BYTES = 2**29
"""For graphs, tables and threads; the largest networks of Keras take some 100 MB of it."""
_TIMEOUT_S = 600
_LOOK_S = 0.01
_STATUS = Path("/proc/self/status")


def require_loadable(file: Path, display_path: Path, weights_bytes: int) -> None:
    """Loads a `.keras` file in another process.

    Args:
        file: The file that is loaded.
        display_path: What a user knows it as.
        weights_bytes: Size of its weights.

    Raises:
        BmcliError: It cannot be loaded in the memory that its weights explain.
    """
    allowed = WEIGHT_COPIES * weights_bytes + SPARE_BYTES
    if allowed > read_available_bytes():
        raise BmcliError(
            f"{format_path(display_path)}: refused, loading it takes up to {allowed:,} bytes of memory, and "
            f"{read_available_bytes():,} are free."
        )
    # Not on an accelerator, whose memory the training has taken.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "bmcli.networks.rehearsal", str(file), str(allowed)]
    try:
        ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                               timeout=_TIMEOUT_S)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BmcliError(f"{format_path(display_path)}: refused, loading it took more than {_TIMEOUT_S} s.") from None
    if ended.returncode:
        words = ended.stdout.decode(errors="replace").strip().splitlines()
        reason = words[-1] if words else f"it takes more than the {allowed:,} bytes that its weights explain"
        raise BmcliError(f"{format_path(display_path)}: cannot be loaded ({reason}).")


def main() -> None:
    """Loads the file; the reason why it cannot be loaded is the last line on standard output."""
    file, allowed = sys.argv[1], int(sys.argv[2])
    import keras
    import tensorflow as tf

    from bmcli import layers, models

    layers.register()
    tf.reduce_sum(tf.ones((64, 64)) @ tf.ones((64, 64))).numpy()  # starts the threads, whose stacks count as memory
    _limit_memory(allowed)
    try:
        with models.allow_column_names():
            keras.saving.load_model(file, compile=False, safe_mode=True)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print(_too_much(allowed))
        sys.exit(1)
    except Exception as error:  # a damaged file makes Keras raise anything
        print((str(error).splitlines() or [type(error).__name__])[0])
        sys.exit(1)


def _limit_memory(allowed: int) -> None:
    """Ends what takes so many bytes more than this process holds already: by the system where that counts them."""
    try:
        status = _STATUS.read_text(encoding="utf-8")
    except OSError:  # as on macOS, whose limits do not count what is mapped either
        limit = _peak_bytes() + allowed
        threading.Thread(target=_end_above, args=(limit, _too_much(allowed)), daemon=True).start()
        return
    held = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + allowed, held + allowed))


def _end_above(limit: int, words: str) -> None:
    """Ends the process once it has held more than some bytes of memory; looked at often enough for that to be few."""
    while _peak_bytes() <= limit:
        time.sleep(_LOOK_S)
    print(words, flush=True)
    os._exit(1)


def _peak_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _too_much(allowed: int) -> str:
    return f"it takes more than the {allowed:,} bytes of memory that its weights explain"


if __name__ == "__main__":
    main()
