"""Pruning while the network learns: what is small becomes 0, a little more from time to time, and stays 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.compression import channel_pruning
from bmcli.compression.methods import is_kernel
from bmcli.errors import BmcliError
from bmcli.recipe.compression import ChannelPruning, PruningSchedule, WeightPruning
from bmcli.training.hooks import StepHook
from bmcli.training.optimizers import match_patterns

Variables = Sequence[Any]


@dataclass(frozen=True)
class MaskGroup:
    """Weights that one mask belongs to.

    Args:
        weight_indices: Among the trainable weights. The magnitudes of the first decide.
        shape: Of the mask: that of the weight, or `(channels,)`, the last axis of all weights of the group.
    """

    weight_indices: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class PruningPool:
    """Groups among which the smallest are pruned.

    Args:
        pruned_count: How many in the end.
    """

    groups: tuple[MaskGroup, ...]
    pruned_count: int


@dataclass(frozen=True)
class SparsitySchedule:
    """The steps in which more and more is pruned.

    Args:
        first, last: Steps that the optimizer has taken when nothing and when all is pruned.
        updates: How often more is.
    """

    first: int
    last: int
    updates: int


def build_schedule(options: PruningSchedule, steps: int) -> SparsitySchedule:
    """The span in a training of some steps; it ends a step after it starts at the earliest."""
    first = round(options.start * steps)
    last = min(max(round(options.end * steps), first + 1), max(steps, 1))
    return SparsitySchedule(min(first, last - 1), last, options.updates)


class PruningMasks(StepHook):
    """Which weights are left, in the course of a training.

    After `updates` equal parts of the span the share of what is pruned is that of Zhu and Gupta 2017, equation 1, with
    no initial sparsity: `1 - (1 - done)^3` of the final one, so that much goes while much is redundant. What was pruned
    once stays so. Gradients of what is pruned are 0, so that limits on their size are for the others.

    Args:
        weights: The trainable weights.
        copies: Averages and their like of all trainable weights, in which the same is pruned.
        removes_channels: The network that is kept does not have any more what is pruned.
    """

    def __init__(
        self,
        weights: Variables,
        pools: Sequence[PruningPool],
        span: SparsitySchedule,
        copies: Sequence[Variables] = (),
        removes_channels: bool = False,
    ) -> None:
        self.replaces_network = removes_channels
        self.weights, self.pools, self.span, self._copies = list(weights), list(pools), span, copies
        self.groups = [group for pool in pools for group in pool.groups]
        self._masks = [
            keras.Variable(np.ones(group.shape, bool), trainable=False, dtype="bool", name="mask")
            for group in self.groups
        ]

    @property
    def variables(self) -> list[Any]:
        return list(self._masks)

    def is_settled(self, step: int) -> bool:
        return step >= self.span.last

    def transform_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Put the gradients of what is pruned to 0."""
        found = list(gradients)
        for group, mask in zip(self.groups, self._masks, strict=True):
            for place in group.weight_indices:
                if found[place] is not None:
                    dense = tf.convert_to_tensor(found[place])
                    found[place] = tf.where(mask.value, dense, tf.zeros_like(dense))
        return found

    def after_step(self, step: Any, snapshot: Any) -> None:
        """Prune what is due after a step, and keep at 0 what was pruned before."""
        done = self._updates_done(step)
        self._prune(done, done > self._updates_done(step - 1))

    def catch_up(self, step: Any) -> None:
        """Prune what is due by now, and so nothing unless another end of the training has moved the span."""
        self._prune(self._updates_done(step), tf.constant(True))

    def _updates_done(self, step: Any) -> Any:
        """How many of the updates are over after a step, int64."""
        span = self.span
        reached = (tf.cast(step, tf.int64) - span.first) * span.updates // (span.last - span.first)
        return tf.clip_by_value(reached, 0, span.updates)

    def _prune(self, done: Any, is_due: Any) -> None:
        share = 1.0 - (1.0 - tf.cast(done, tf.float64) / self.span.updates) ** 3
        variables = iter(self._masks)
        for pool in self.pools:
            mine = list(islice(variables, len(pool.groups)))
            before = [tf.identity(mask.value) for mask in mine]
            sizes = [
                _compute_magnitudes(self.weights[group.weight_indices[0]].value, mask)
                for group, mask in zip(pool.groups, before, strict=True)
            ]
            count = tf.cast(tf.floor(share * pool.pruned_count + 1e-6), tf.int32)
            # Only the values are chosen: replicas cannot write variables within a condition.
            masks = tf.cond(is_due, partial(_prune_smallest, before, sizes, count), partial(_copy_masks, before))
            for group, variable, mask in zip(pool.groups, mine, masks, strict=True):
                variable.assign(mask)
                self._zero_pruned(group, mask)

    def _zero_pruned(self, group: MaskGroup, mask: Any) -> None:
        for each in (self.weights, *self._copies):
            for place in group.weight_indices:
                value = each[place].value
                each[place].assign(tf.where(mask, value, tf.zeros_like(value)))


def _compute_magnitudes(weight: Any, mask: Any) -> Any:
    """Magnitudes, summed over all axes but the last where the mask is of channels; negative where it is 0; flat."""
    size = tf.abs(weight)
    if len(mask.shape) < len(weight.shape):
        size = tf.reduce_sum(size, axis=list(range(len(weight.shape) - 1)))
    return tf.reshape(tf.where(mask, size, -tf.ones_like(size)), [-1])


def _prune_smallest(masks: Sequence[Any], sizes: Sequence[Any], pruned: Any) -> list[Any]:
    """The masks without the smallest, so that `pruned` are 0; those that are already come first."""
    order = tf.argsort(tf.concat(sizes, axis=0), stable=True)  # equal ones go in their order
    rank = tf.argsort(order, stable=True)
    kept = tf.split(rank >= pruned, [size.shape[0] for size in sizes])
    return [mask & tf.reshape(each, mask.shape) for mask, each in zip(masks, kept, strict=True)]


def _copy_masks(masks: Sequence[Any]) -> list[Any]:
    return [tf.identity(mask) for mask in masks]


def build_masks(
    options: Any, model: keras.Model, kept: keras.Model | None, steps: int, copies: Sequence[Variables]
) -> PruningMasks:
    """Build masks of a network that prune nothing yet.

    Args:
        options: Of `train.prune`.
        kept: The narrower network that is left, if channels are removed.
        steps: Of the whole training.
        copies: Averages and their like of all trainable weights.

    Raises:
        BmcliError: This network cannot be pruned so.
    """
    weights = model.trainable_variables
    if isinstance(options, WeightPruning):
        pools = _build_kernel_pools(options, weights)
    else:
        assert isinstance(options, ChannelPruning)
        assert kept is not None, "channels are removed to make another network"
        pools = _build_channel_pools(model, kept)
    return PruningMasks(weights, pools, build_schedule(options, steps), copies, removes_channels=kept is not None)


def _build_kernel_pools(options: WeightPruning, weights: Variables) -> list[PruningPool]:
    """One pool of all kernels, or one of each; kernels with a share of their own have one of their own."""
    own = match_patterns(options.layers, [weight.path for weight in weights], ("train", "prune", "layers"))
    usual = [place for place, weight in enumerate(weights) if is_kernel(weight) and place not in own]
    if options.scope == "kernel":
        own |= dict.fromkeys(usual, options.sparsity)
        usual = []
    groups = {place: MaskGroup((place,), tuple(weights[place].shape)) for place in sorted([*own, *usual])}
    shared = tuple(groups[place] for place in usual)
    pools = [PruningPool(shared, round(options.sparsity * sum(group.size for group in shared)))]
    pools += [PruningPool((groups[place],), round(share * groups[place].size)) for place, share in sorted(own.items())]
    found = [pool for pool in pools if pool.pruned_count]
    if not found:
        raise BmcliError("no kernel has weights to prune.", path="train.prune", suggestion="Raise its sparsity.")
    return found


def _build_channel_pools(model: keras.Model, kept: keras.Model) -> list[PruningPool]:
    place_of = {id(weight): place for place, weight in enumerate(model.trainable_variables)}
    pools = []
    for found in channel_pruning.find_pruned_layers(model, kept):
        group = MaskGroup(tuple(place_of[id(weight)] for weight in found.weights), (found.channels,))
        pools.append(PruningPool((group,), found.channels - found.kept))
    return pools
