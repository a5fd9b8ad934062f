"""How fast gradients are exchanged between worker processes: run as a program by `measure.network`.

    python -m bmcli.cost_model.all_reduce_benchmark FILE

in every worker; the chief writes seconds by bytes to FILE as JSON.
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
    """All-reduces of `size` bytes, some one after the other in a compiled loop, as those of our steps are."""
    import tensorflow as tf

    from bmcli.training.graph_ops import graph_function, repeat

    def of_replica(values: Any) -> Any:
        # Halved, so that the sums of two workers stay as large; it also puts the values on the replica's device.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values * 0.5)

    def once(done: Any, values: Any) -> tuple[Any, Any]:
        results = placement.strategy.run(of_replica, args=(values,))
        return done + 1, placement.strategy.experimental_local_results(results)[0]

    def exchange(count: Any) -> Any:
        return repeat(count, once, tf.ones((size // 4,)))[0][0]

    graph = graph_function(exchange)
    return lambda count: graph(tf.constant(count)).numpy()


def _measure_seconds(exchange: Callable[[int], None], placement: Any) -> float:
    """Seconds of one exchange, the best of some rounds, by the clock of the chief."""
    exchange(1)  # compiles
    best, count = math.inf, 1
    for _ in range(ROUNDS):
        start = time.perf_counter()
        exchange(count)
        each = (time.perf_counter() - start) / count
        (each,) = placement.broadcast_from_chief([each])
        best = min(best, each)
        count = max(1, min(int(ROUND_S / each), 200))
    return best


if __name__ == "__main__":
    main(sys.argv[1])
