"""A causal network that is computed one step at a time, with caches of the steps before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import private_api
from bmcli.layers.incremental import IncrementalLayer

_CHECKED_STEPS = 8  # by which a network is compared with itself step by step
_TOLERANCE = 1e-3  # of logits; rounding alone gives 1e-5


@dataclass(frozen=True)
class IncrementalNetwork:
    """The graph of a network, of which each call with a memory has a cache.

    Args:
        model: From the ids of one sequence `(batch, steps)` to logits of the next token `(batch, steps, tokens)`, as
            one graph of layers.
        input, output: Names of the ids and of the logits.
    """

    model: keras.Model
    input: str
    output: str

    def make_caches(self, batch: int, steps: int) -> list[Any]:
        """Make empty caches for all calls with a memory, in the order of the graph."""
        operations = (node.operation for node in private_api.list_nodes(self.model) if not node.is_input)
        return [memory.make_cache(batch, steps) for memory in map(_find_memory, operations) if memory is not None]

    def advance(self, ids: Any, caches: list[Any], position: Any) -> tuple[Any, list[Any]]:
        """Compute the logits after one step.

        Args:
            ids: Of the tokens at the step, `(batch,)`.
            caches: Of the steps before.
            position: Of the step.

        Returns:
            Logits in float32, `(batch, tokens)`, and the caches of all steps up to this one.
        """
        values = {id(self.model.input[self.input]): tf.expand_dims(ids, 1)}
        remaining, updated = iter(caches), []
        for node in private_api.list_nodes(self.model):
            if node.is_input:
                continue
            memory = _find_memory(node.operation)
            arguments, options = private_api.fill_arguments(node, values)
            if memory is None:
                results = node.operation(*arguments, **_without_dropout(node.operation, options))
            else:
                results, cache = memory.advance(arguments[0], next(remaining), position)
                updated.append(cache)
            values |= zip(map(id, node.output_tensors), keras.tree.flatten(results), strict=True)
        return tf.cast(values[id(self.model.output[self.output])][:, 0], tf.float32), updated

    def compute_all(self, ids: Any) -> Any:
        """Compute the logits after every step of whole sequences, `(batch, steps, tokens)`, without caches."""
        return tf.cast(self.model({self.input: ids}, training=False)[self.output], tf.float32)

    def agrees(self) -> bool:
        """Whether some steps give the same logits one by one as within a whole sequence.

        A network may have layers that look at several steps, of which this module knows nothing.
        """
        shape = self.model.input[self.input].shape
        steps = min(_CHECKED_STEPS, shape[1])
        # Ids from 2 on are tokens in every vocabulary.
        ids = np.zeros((1, shape[1]), "int32")
        ids[0, :steps] = 2 + np.arange(steps) % 3
        expected = self.compute_all(tf.constant(ids))[:, :steps]
        caches, found = self.make_caches(1, shape[1]), []
        try:
            for position in range(steps):
                logits, caches = self.advance(tf.constant(ids[:, position]), caches, tf.constant(position))
                found.append(logits)
        except (ValueError, tf.errors.InvalidArgumentError):  # a layer that needs whole sequences
            return False
        return bool(np.abs(np.stack(found, axis=1) - expected).max() < _TOLERANCE)


@dataclass(frozen=True)
class _Memory:
    """How a layer with a memory is computed step by step.

    Args:
        make_cache, advance: As those of IncrementalLayer.
    """

    make_cache: Callable[[int, int], Any]
    advance: Callable[[Any, Any, Any], tuple[Any, Any]]


def _find_memory(operation: Any) -> _Memory | None:
    """Find how a layer with a memory is computed step by step; None for one that treats each step alone."""
    if isinstance(operation, IncrementalLayer):
        return _Memory(operation.make_cache, operation.advance)
    if isinstance(operation, keras.layers.RNN):
        cell = operation.cell

        def advance(inputs: Any, states: Any, position: Any) -> tuple[Any, Any]:
            outputs, states = cell(inputs[:, 0], states, training=False)
            return tf.expand_dims(outputs, 1), states

        return _Memory(lambda batch, steps: cell.get_initial_state(batch_size=batch), advance)
    return None


def _without_dropout(operation: Any, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "training": False} if isinstance(operation, keras.layers.Dropout) else options
