"""Pruning during training: the smallest weights or channels become 0, more of them with each update, and stay 0."""

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
    """Weights that share one mask.

    Args:
        weight_indices: Indices among the trainable weights. The magnitudes of the first weight decide what is pruned.
        shape: Shape of the mask: that of the weight, or `(channels,)`, the last axis of all weights of the group.
    """

    weight_indices: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class PruningPool:
    """Groups of which together the smallest entries are pruned.

    Args:
        pruned_count: Number of pruned entries at the end.
    """

    groups: tuple[MaskGroup, ...]
    pruned_count: int


@dataclass(frozen=True)
class SparsitySchedule:
    """The steps during which the sparsity grows.

    Args:
        first, last: Optimizer steps after which it begins to grow, and after which it is final.
        updates: Number of steps in which it grows.
    """

    first: int
    last: int
    updates: int


def build_schedule(options: PruningSchedule, steps: int) -> SparsitySchedule:
    """Build the schedule for a training of `steps` steps; it lasts at least one step."""
    first = round(options.start * steps)
    last = min(max(round(options.end * steps), first + 1), max(steps, 1))
    return SparsitySchedule(min(first, last - 1), last, options.updates)


class PruningMasks(StepHook):
    """Masks of the weights that are not pruned, which follow a schedule.

    At equal intervals the sparsity is that of Zhu and Gupta 2017, equation 1, without initial sparsity: the share
    `1 - (1 - done)^3` of the final one, so that most is pruned early, when most weights are redundant. Pruned weights
    are never restored.

    Args:
        weights: The trainable weights.
        copies: Averages and similar copies of all trainable weights, which are pruned alike.
        removes_channels: Whether the network that is kept no longer has the pruned channels.
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
        """Set the gradients of pruned weights to 0."""
        # Otherwise they would count for the norm by which the gradients of the other weights are clipped.
        masked = list(gradients)
        for group, mask in zip(self.groups, self._masks, strict=True):
            for index in group.weight_indices:
                if masked[index] is not None:
                    dense = tf.convert_to_tensor(masked[index])
                    masked[index] = tf.where(mask.value, dense, tf.zeros_like(dense))
        return masked

    def after_step(self, step: Any, snapshot: Any) -> None:
        """Prune what is due after a step, and keep at 0 what was pruned before."""
        # Momentum changes weights, and averages follow late, even where gradients are 0.
        done = self._updates_done(step)
        self._prune(done, done > self._updates_done(step - 1))

    def catch_up(self, step: Any) -> None:
        """Prune what is due at a step: nothing, unless the schedule has moved with the end of the training."""
        self._prune(self._updates_done(step), tf.constant(True))

    def _updates_done(self, step: Any) -> Any:
        """Number of updates that are due after a step, int64."""
        span = self.span
        reached = (tf.cast(step, tf.int64) - span.first) * span.updates // (span.last - span.first)
        return tf.clip_by_value(reached, 0, span.updates)

    def _prune(self, done: Any, is_due: Any) -> None:
        share = 1.0 - (1.0 - tf.cast(done, tf.float64) / self.span.updates) ** 3
        variables = iter(self._masks)
        for pool in self.pools:
            pool_masks = list(islice(variables, len(pool.groups)))
            before = [tf.identity(mask.value) for mask in pool_masks]
            sizes = [
                _compute_magnitudes(self.weights[group.weight_indices[0]].value, mask)
                for group, mask in zip(pool.groups, before, strict=True)
            ]
            # The product may round to a little less than a whole number.
            count = tf.cast(tf.floor(share * pool.pruned_count + 1e-6), tf.int32)
            # The condition selects values alone: replicas cannot write variables inside of one.
            masks = tf.cond(is_due, partial(_prune_smallest, before, sizes, count), partial(_copy_masks, before))
            for group, variable, mask in zip(pool.groups, pool_masks, masks, strict=True):
                variable.assign(mask)
                self._zero_pruned(group, mask)

    def _zero_pruned(self, group: MaskGroup, mask: Any) -> None:
        for each in (self.weights, *self._copies):
            for index in group.weight_indices:
                value = each[index].value
                each[index].assign(tf.where(mask, value, tf.zeros_like(value)))


def _compute_magnitudes(weight: Any, mask: Any) -> Any:
    """Compute flat magnitudes by which entries are pruned; those of a channel are summed."""
    size = tf.abs(weight)
    if len(mask.shape) < len(weight.shape):
        size = tf.reduce_sum(size, axis=list(range(len(weight.shape) - 1)))
    # Pruned entries are smaller than any magnitude, so that they are pruned again and never restored.
    return tf.reshape(tf.where(mask, size, -tf.ones_like(size)), [-1])


def _prune_smallest(masks: Sequence[Any], sizes: Sequence[Any], pruned: Any) -> list[Any]:
    """Extend masks so that the `pruned` smallest entries are 0."""
    # By ranks and not by a threshold: equal magnitudes would all be above or below it.
    order = tf.argsort(tf.concat(sizes, axis=0), stable=True)
    rank = tf.argsort(order, stable=True)
    kept = tf.split(rank >= pruned, [size.shape[0] for size in sizes])
    return [mask & tf.reshape(each, mask.shape) for mask, each in zip(masks, kept, strict=True)]


def _copy_masks(masks: Sequence[Any]) -> list[Any]:
    return [tf.identity(mask) for mask in masks]


def build_masks(
    options: Any, model: keras.Model, kept: keras.Model | None, steps: int, copies: Sequence[Variables]
) -> PruningMasks:
    """Build masks of a network, which prune nothing yet.

    Args:
        options: Options of `train.prune`.
        kept: The narrower network that is kept if channels are removed, otherwise None.
        steps: Number of steps of the whole training.
        copies: Averages and similar copies of all trainable weights.

    Raises:
        BmcliError: The options do not fit this network.
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
    """Build one pool of all kernels, or one of each; kernels with a separate sparsity have separate pools."""
    separate = match_patterns(options.layers, [weight.path for weight in weights], ("train", "prune", "layers"))
    pooled = [index for index, weight in enumerate(weights) if is_kernel(weight) and index not in separate]
    if options.scope == "kernel":
        separate |= dict.fromkeys(pooled, options.sparsity)
        pooled = []
    groups = {index: MaskGroup((index,), tuple(weights[index].shape)) for index in sorted([*separate, *pooled])}
    shared = tuple(groups[index] for index in pooled)
    pools = [PruningPool(shared, round(options.sparsity * sum(group.size for group in shared)))]
    pools += [
        PruningPool((groups[index],), round(sparsity * groups[index].size))
        for index, sparsity in sorted(separate.items())
    ]
    pools = [pool for pool in pools if pool.pruned_count]
    if not pools:
        raise BmcliError("no kernel has weights to prune.", path="train.prune", suggestion="Raise its sparsity.")
    return pools


def _build_channel_pools(model: keras.Model, kept: keras.Model) -> list[PruningPool]:
    index_of = {id(weight): index for index, weight in enumerate(model.trainable_variables)}
    pools = []
    for layer in channel_pruning.find_pruned_layers(model, kept):
        group = MaskGroup(tuple(index_of[id(weight)] for weight in layer.weights), (layer.channels,))
        pools.append(PruningPool((group,), layer.channels - layer.kept))
    return pools
