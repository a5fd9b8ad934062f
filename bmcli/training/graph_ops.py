"""TensorFlow code that training steps and passes over a split share: graphs, loops, rows of batches and replicas."""

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
    """Compile a function to a graph, without AutoGraph, whose conversion would take a second or two."""
    return tf.function(function, autograph=False)


def xla_function(function: Callable[..., Any]) -> Any:
    """Compile a function with XLA, with dropout that is cheap there."""

    def with_cheap_dropout(*arguments: Any) -> Any:
        with dropout.use_hashed_dropout():
            return function(*arguments)

    return tf.function(with_cheap_dropout, jit_compile=True, autograph=False)


def repeat(count: Any, body: Callable[..., Any], *state: Any) -> list[Any]:
    """The state after `count` turns of `body(done, *state) -> (done + 1, *state)`, one after the other."""
    _, *found = tf.while_loop(lambda done, *_: done < count, body, (tf.constant(0), *state), parallel_iterations=1)
    return found


def full_batches(rows: Any, number: Any, batch: int, count: int = 1) -> Any:
    """What lies at some full batches, from batch `number` on, `(count * batch, ...)`."""
    return tf.ensure_shape(rows[number * batch : (number + count) * batch], (count * batch, *rows.shape[1:]))


def batch_rows(rows: Any, number: Any, batch: int) -> Any:
    """The rows of a batch of an order, `(examples,)`; how many shows only when it runs, for the last may be ragged."""
    return rows[number * batch : (number + 1) * batch]


def rest_rows(block: Block, batch: int) -> Any:
    """The rows of a block from its first batch on, in a shape of their own."""
    return block.rows[block.first * batch :]


def replica_share(rows: Any, replicas: int) -> tuple[Any, Any]:
    """The rows of a batch that the current replica takes, and whether each counts (1 or 0; None if all do).

    The shares differ by one row at most. Where a replica cannot know its number before it runs, as on a TPU, they
    are all of one size, and rows too many do not count.
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
    each = -(-size // replicas)
    places = number * each + tf.range(each)
    return tf.gather(rows, tf.minimum(places, size - 1)), tf.cast(places < size, tf.float32)


def gather_replicas(value: Any, counts: Any, size: int, replicas: int) -> Any:
    """What all replicas have of their shares of a batch, in the order of the batch, `(batch, ...)`.

    Args:
        value: Of this replica's share, `(examples, ...)`.
        counts: As `replica_share` gives them.
        size: Examples of the whole batch.
    """
    if replicas == 1:
        return value
    # Each replica puts its rows into their places among zeros; the sum has them all.
    places, _ = replica_share(tf.range(size), replicas)
    if counts is not None:
        value = tf.where(tf.reshape(counts > 0, [-1] + [1] * (len(value.shape) - 1)), value, 0)
    spread = tf.scatter_nd(places[:, None], value, tf.stack([size, *value.shape[1:]]))
    summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, spread)
    return tf.ensure_shape(summed, (size, *value.shape[1:]))


def moving_statistics(model: keras.Model) -> list[Any]:
    """What batch normalisation learns about its inputs, which each replica learns from its own examples."""
    return [
        weight
        for layer in private_api.flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for weight in layer.non_trainable_variables
        if "float" in weight.dtype
    ]
