"""Which examples a step sees, and where they come from."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bmcli.specs import Split


def order(seed: int, epoch: int, count: int) -> tf.Tensor:
    """The rows in the order epoch `epoch` visits them, `(count,)`: a pure function, so that resuming needs no state."""
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int32), seed=(seed, epoch))


class ResidentFeed:
    """All rows of a split on the device, gathered by index inside the compiled loop."""

    def __init__(self, split: Split) -> None:
        self.count = len(split)
        self._inputs = {name: tf.constant(array) for name, array in split.inputs.items()}
        self._targets = {name: tf.constant(array) for name, array in split.targets.items()}

    def gather(self, rows: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets of the rows, `(batch, ...)` each."""
        return (
            {name: tf.gather(array, rows) for name, array in self._inputs.items()},
            {name: tf.gather(array, rows) for name, array in self._targets.items()},
        )
