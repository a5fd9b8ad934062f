"""Pruning while the network learns: what is small becomes 0, a little more from time to time, and stays 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.recipe.compression import ChannelPruning, Pruning, WeightPruning
from bmcli.training import narrowing
from bmcli.training.optimizers import by_pattern

Variables = Sequence[Any]


@dataclass(frozen=True)
class Group:
    """Weights that one mask belongs to.

    Args:
        places: Among the trainable weights. The magnitudes of the first decide.
        shape: Of the mask: that of the weight, or `(channels,)`, the last axis of all weights of the group.
        pruned: How many of the mask are 0 in the end.
    """

    places: tuple[int, ...]
    shape: tuple[int, ...]
    pruned: int


@dataclass(frozen=True)
class Span:
    """The steps in which more and more is pruned.

    Args:
        first, last: Steps that the optimizer has taken when nothing and when all is pruned.
        updates: How often more is.
    """

    first: int
    last: int
    updates: int


def span(options: Pruning, steps: int) -> Span:
    """The span in a training of some steps; it ends a step after it starts at the earliest."""
    first = round(options.start * steps)
    last = min(max(round(options.end * steps), first + 1), max(steps, 1))
    return Span(min(first, last - 1), last, options.updates)


class Masks:
    """Which weights are left, in the course of a training.

    After `updates` equal parts of the span the share of what is pruned is that of Zhu and Gupta 2017, equation 1, with
    no initial sparsity: `1 - (1 - done)^3` of the final one, so that much goes while much is redundant. What was pruned
    once stays so. Gradients of what is pruned are 0, so that limits on their size are for the others.

    Args:
        weights: The trainable weights.
    """

    def __init__(self, weights: Variables, groups: Sequence[Group], span: Span) -> None:
        self.weights, self.groups, self.span = list(weights), list(groups), span
        self.variables = [
            keras.Variable(np.ones(group.shape, bool), trainable=False, dtype="bool", name="mask") for group in groups
        ]

    def gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Gradients of the weights, 0 for those that are pruned."""
        found = list(gradients)
        for group, mask in zip(self.groups, self.variables, strict=True):
            for place in group.places:
                if found[place] is not None:
                    dense = tf.convert_to_tensor(found[place])
                    found[place] = tf.where(mask.value, dense, tf.zeros_like(dense))
        return found

    def after_step(self, step: Any, copies: Sequence[Variables] = ()) -> None:
        """Prunes what is due after a step, and keeps at 0 what was pruned before; inside the compiled step.

        Args:
            step: Steps that the optimizer has taken.
            copies: Averages and their like of all trainable weights, in which the same is pruned.
        """
        done = self._done(step)
        self._prune(done, done > self._done(step - 1), copies)

    def catch_up(self, step: Any, copies: Sequence[Variables] = ()) -> None:
        """Prunes what is due by now, and so nothing unless another end of the training has moved the span."""
        self._prune(self._done(step), tf.constant(True), copies)

    def _done(self, step: Any) -> Any:
        """How many of the updates are over after a step, int64."""
        span = self.span
        reached = (tf.cast(step, tf.int64) - span.first) * span.updates // (span.last - span.first)
        return tf.clip_by_value(reached, 0, span.updates)

    def _prune(self, done: Any, is_due: Any, copies: Sequence[Variables]) -> None:
        left = 1.0 - tf.cast(done, tf.float64) / self.span.updates
        share = 1.0 - left**3
        for group, variable in zip(self.groups, self.variables, strict=True):
            before, weight = variable.value, self.weights[group.places[0]].value
            count = tf.cast(tf.floor(share * group.pruned + 1e-6), tf.int32)
            # Only the values are chosen: replicas cannot write variables within a condition.
            mask = tf.cond(
                is_due,
                lambda before=before, weight=weight, count=count: _fewer(before, weight, count),
                lambda before=before: tf.identity(before),
            )
            variable.assign(mask)
            for each in (self.weights, *copies):
                for place in group.places:
                    value = each[place].value
                    each[place].assign(tf.where(mask, value, tf.zeros_like(value)))


def _fewer(mask: Any, weight: Any, pruned: Any) -> Any:
    """The mask without the smallest, so that `pruned` are 0; those that are already come first."""
    size = tf.abs(weight)
    if len(mask.shape) < len(weight.shape):
        size = tf.reduce_sum(size, axis=list(range(len(weight.shape) - 1)))
    size = tf.reshape(tf.where(mask, size, -tf.ones_like(size)), [-1])
    rank = tf.argsort(tf.argsort(size, stable=True), stable=True)  # equal ones go in their order
    return mask & tf.reshape(rank >= pruned, mask.shape)


def build(options: Any, model: keras.Model, kept: keras.Model | None, steps: int) -> Masks:
    """Masks of a network that prune nothing yet.

    Args:
        options: Of `train.prune`.
        kept: The narrower network that is left, if channels are removed.
        steps: Of the whole training.

    Raises:
        BmcliError: This network cannot be pruned so.
    """
    weights = model.trainable_variables
    if isinstance(options, WeightPruning):
        groups = _of_kernels(options, weights)
    else:
        assert isinstance(options, ChannelPruning)
        assert kept is not None, "channels are removed to make another network"
        groups = _of_channels(model, kept)
    return Masks(weights, groups, span(options, steps))


def _of_kernels(options: WeightPruning, weights: Variables) -> list[Group]:
    names = [weight.path for weight in weights]
    shares = {place: options.sparsity for place, weight in enumerate(weights) if _is_kernel(weight)}
    shares |= by_pattern(options.layers, names, ("train", "prune", "layers"))
    shapes = {place: tuple(weights[place].shape) for place in shares}
    pruned = {place: round(share * int(np.prod(shapes[place]))) for place, share in shares.items()}
    groups = [Group((place,), shapes[place], count) for place, count in sorted(pruned.items()) if count]
    if not groups:
        raise BmcliError("no kernel has weights to prune.", path="train.prune", suggestion="Raise its sparsity.")
    return groups


def _is_kernel(weight: Any) -> bool:
    return len(weight.shape) > 1 and weight.name.endswith("kernel")


def _of_channels(model: keras.Model, kept: keras.Model) -> list[Group]:
    place_of = {id(weight): place for place, weight in enumerate(model.trainable_variables)}
    return [
        Group(tuple(place_of[id(weight)] for weight in found.weights), (found.channels,), found.channels - found.left)
        for found in narrowing.narrowed_layers(model, kept)
    ]
