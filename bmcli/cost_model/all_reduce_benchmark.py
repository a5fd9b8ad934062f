"""Benchmark of all-reduces between worker processes, which `measurement.measure_network` runs in every worker.

    python -m bmcli.cost_model.all_reduce_benchmark FILE

The chief writes seconds by bytes to FILE as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bmcli import disk
from bmcli.native_output import hide_native_stderr
from bmcli.recipe.runtime import RuntimeOptions

SIZES = (2**12, 2**16, 2**19, 2**21, 2**23)  # bytes
ROUNDS = 8
ROUND_S = 0.05


def main(file: str) -> None:
    with hide_native_stderr():
        from bmcli.distribution import strategy
    placement = strategy.create_placement(RuntimeOptions(strategy="multi_worker"))
    seconds = {size: _measure_seconds(_build_exchange(placement, size), placement) for size in SIZES}
    if placement.is_chief:
        disk.write_atomically(Path(file), json.dumps(seconds).encode())


def _build_exchange(placement: Any, size: int) -> Callable[[int], None]:
    """Build a function that runs a number of all-reduces of `size` bytes in a compiled loop, as a training does."""
    import tensorflow as tf

    from bmcli.training.graph_ops import graph_function, repeat

    def reduce_on_replica(values: Any) -> Any:
        # Halved, so that the sums over two workers do not grow; the operation also moves the values to the replica's
        # device.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values * 0.5)

    def reduce_once(done: Any, values: Any) -> tuple[Any, Any]:
        results = placement.strategy.run(reduce_on_replica, args=(values,))
        return done + 1, placement.strategy.experimental_local_results(results)[0]

    def exchange(count: Any) -> Any:
        # Each all-reduce depends on the one before, and one number of the last is returned: none can be left out or run
        # in parallel.
        return repeat(count, reduce_once, tf.ones((size // 4,)))[0][0]

    graph = graph_function(exchange)
    return lambda count: graph(tf.constant(count)).numpy()


def _measure_seconds(exchange: Callable[[int], None], placement: Any) -> float:
    """Measure the seconds of one exchange: the fastest of some rounds."""
    exchange(1)  # compiles
    best, count = math.inf, 1
    for _ in range(ROUNDS):
        start = time.perf_counter()
        exchange(count)
        each = (time.perf_counter() - start) / count
        # By the chief's clock: with different counts in the next round, one worker would wait forever.
        (each,) = placement.broadcast_from_chief([each])
        best = min(best, each)
        count = max(1, min(int(ROUND_S / each), 200))
    return best


if __name__ == "__main__":
    main(sys.argv[1])
