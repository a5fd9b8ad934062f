"""TensorFlow functions that training and evaluation share: graphs, loops, rows of batches and replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bmcli import private_api
from bmcli.training import dropout
from bmcli.training.feed import Block, replica_bounds

CALL_S = 0.25  # Steps of one call fill about this time: Python costs nothing, and signals are still answered quickly.


def graph_function(function: Callable[..., Any]) -> Any:
    """Compile a function to a graph."""
    # AutoGraph would take a second or two to convert the Python code, and loops are written as graph operations here.
    return tf.function(function, autograph=False)


def xla_function(function: Callable[..., Any]) -> Any:
    """Compile a function with XLA."""

    def with_cheap_dropout(*arguments: Any) -> Any:
        with dropout.use_hashed_dropout():
            return function(*arguments)

    return tf.function(with_cheap_dropout, jit_compile=True, autograph=False)


def repeat(count: Any, body: Callable[..., Any], *state: Any) -> list[Any]:
    """Run `body(done, *state) -> (done + 1, *state)` `count` times; returns the last state."""
    # One iteration after the other: each trains from the weights that the one before has left.
    _, *last = tf.while_loop(lambda done, *_: done < count, body, (tf.constant(0), *state), parallel_iterations=1)
    return last


def full_batches(rows: Any, number: Any, batch: int, count: int = 1) -> Any:
    """Slice `count` full batches from batch `number` on, `(count * batch, ...)`."""
    # A slice from a position that is known only at run time has no static size, which XLA and shares of replicas need.
    return tf.ensure_shape(rows[number * batch : (number + count) * batch], (count * batch, *rows.shape[1:]))


def merge_axes(array: Any, length: int) -> Any:
    """Reshape an array from `(batches, batch, ...)` to `(length, ...)`, all batches one after the other."""
    return tf.reshape(array, (length, *array.shape[2:]))


def batch_rows(rows: Any, number: Any, batch: int) -> Any:
    """Slice the rows of a batch, `(examples,)`; the size is dynamic, because the last batch may be ragged."""
    return rows[number * batch : (number + 1) * batch]


def rest_rows(block: Block, batch: int) -> Any:
    """Slice the rows of a block from its first batch to the end, eagerly, so that the size is static."""
    return block.rows[block.first * batch :]


def replica_share(rows: Any, replicas: int) -> tuple[Any, Any]:
    """Slice the share of a batch that the current replica computes.

    Returns:
        Rows, and for each 1 if it counts and 0 if not; None instead if all count. Shares differ by one row at most.
    """
    if replicas == 1:
        return rows, None
    size = rows.shape[0]
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    replica = tf.get_static_value(number)
    if replica is not None:
        first, last = replica_bounds(size, replicas, int(replica))
        empty = size * (int(replica) + 1) // replicas == first
        return rows[first:last], tf.zeros((1,)) if empty else None
    # All cores of a TPU run one program, so that a replica learns its number only at run time: the shares then have one
    # size, and rows beyond the end of the batch count 0.
    each = -(-size // replicas)
    places = number * each + tf.range(each)
    return tf.gather(rows, tf.minimum(places, size - 1)), tf.cast(places < size, tf.float32)


def gather_replicas(value: Any, counts: Any, size: int, replicas: int) -> Any:
    """Gather the values of all replicas, in the order of the batch, `(batch, ...)`.

    Args:
        value: Values of this replica's share, `(examples, ...)`.
        counts: Returned by `replica_share`.
        size: Number of examples in the whole batch.
    """
    if replicas == 1:
        return value
    # Each replica scatters its rows into zeros, and the sum over the replicas has them all, in their order.
    places, _ = replica_share(tf.range(size), replicas)
    if counts is not None:
        value = tf.where(tf.reshape(counts > 0, [-1] + [1] * (len(value.shape) - 1)), value, 0)
    spread = tf.scatter_nd(places[:, None], value, tf.stack([size, *value.shape[1:]]))
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, spread)
    return tf.ensure_shape(summed, (size, *value.shape[1:]))


def gather_batch(arrays: Any, counts: Any, size: int, replicas: int) -> Any:
    """Gather arrays of the shares of all replicas, in the order of the whole batch, on each of them.

    Args:
        arrays: Any structure of arrays of this replica's share, `(examples, ...)`.
        counts, size: As for `gather_replicas`.
    """

    def gather(array: Any) -> Any:
        # Collective operations know no small integers.
        is_small = array.dtype.is_bool or (array.dtype.is_integer and array.dtype.size < 4)
        wide = tf.cast(array, tf.int32) if is_small else array
        return tf.cast(gather_replicas(wide, counts, size, replicas), array.dtype)

    return tf.nest.map_structure(gather, arrays)


def moving_statistics(model: keras.Model) -> list[Any]:
    """Moving means and variances of batch normalization, which each replica updates from its own examples."""
    return [
        weight
        for layer in private_api.flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for weight in layer.non_trainable_variables
        if "float" in weight.dtype
    ]


def seed_states(model: keras.Model) -> list[Any]:
    """States of the random generators, which decide the next masks of dropout."""
    return [
        generator.state
        for layer in private_api.flatten_layers(model)
        for generator in private_api.get_seed_generators(layer)
    ]
