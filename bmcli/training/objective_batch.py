"""Batches as objectives change them: noise, masks, views, and the units that their losses are divided by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from bmcli.networks.network import Network
from bmcli.objectives import Batch, TargetObjective
from bmcli.quoting import quoted
from bmcli.training.augmentation import StatelessRandom
from bmcli.training.feed import separate_columns, unstack_inputs

Arrays = Mapping[str, Any]


def prepare_examples(
    network: Network, examples: Arrays, seed: int, step: Any, size: Any, places: Any, training: bool
) -> Arrays:
    """Let the objectives change some examples of a batch, and count their units.

    Args:
        examples: As they were gathered, augmented in training.
        seed: That of the recipe.
        step: Optimizer steps done; in a pass that measures, the number of the batch.
        size: Number of examples in the whole batch.
        places: Positions of the examples in it, or None for the whole batch.

    Returns:
        The examples with changed inputs and targets, and with `units` by target, each `(examples,)`, if objectives
        count them.
    """
    changing = {name: objective for name, objective in network.objectives.items() if objective.changes_batch}
    if changing or network.unlabelled:
        examples = separate_columns(examples)
    examples = _add_learned_inputs(network, examples)
    for name, objective in changing.items():
        purpose = f"{'training' if training else 'measuring'} {quoted(name)}"
        make_draws = partial(StatelessRandom, seed, purpose, step, size, places)
        examples = _prepare_target(objective, name, examples, make_draws, training)
    counting = {name: objective for name, objective in network.objectives.items() if objective.counts_units}
    if not counting:
        return examples
    units = {
        name: _count_units(objective, name, examples, name not in network.unlabelled)
        for name, objective in counting.items()
    }
    return {**examples, "units": units}


def _add_learned_inputs(network: Network, examples: Arrays) -> Arrays:
    """Add the inputs that objectives without a target learn from to the targets."""
    if not network.unlabelled:
        return examples
    learned = {
        output: {name: examples["inputs"][name] for name in names} for output, names in network.unlabelled.items()
    }
    added = {"targets": {**examples["targets"], **learned}}
    if "others" in examples:
        # A mixture is one row of inputs, so that it is the truth of both.
        others = examples["others"]
        added["others"] = {**others, "targets": {**others["targets"], **learned}}
    return {**examples, **added}


def _prepare_target(
    objective: TargetObjective,
    name: str,
    examples: Arrays,
    make_draws: Callable[[], StatelessRandom],
    training: bool,
) -> Arrays:
    """Let the objective of one target change some examples."""
    inputs, targets = examples["inputs"], examples["targets"]
    prepared = objective.prepare(Batch(inputs, targets[name]), make_draws(), training)
    changed = {"inputs": prepared.inputs, "targets": {**targets, name: prepared.target}}
    if "others" in examples:
        # A mixture has one input and two targets. The same draws prepare both alike.
        others = examples["others"]
        other = objective.prepare(Batch(inputs, others["targets"][name]), make_draws(), training)
        changed["others"] = {**others, "targets": {**others["targets"], name: other.target}}
    return {**examples, **changed}


def _count_units(objective: TargetObjective, name: str, examples: Arrays, has_target: bool) -> Any:
    """Count the units of an output in each example, `(examples,)`; examples without a known target have none."""
    units = tf.cast(objective.count_units(examples["targets"][name]), tf.float32)
    if has_target and "labelled" in examples:
        units = units * examples["labelled"]
    if "others" not in examples:
        return units
    share = examples["share"]
    return share * units + (1.0 - share) * _count_units(objective, name, examples["others"], has_target)


def compute_place_weights(network: Network, name: str, examples: Arrays, scale: Any) -> Any:
    """Compute the weights of the places of an output, `(examples, ...)`; None for an objective without such weights.

    Args:
        scale: Examples per unit in the whole batch, so that the mean over the examples of the sum of weights is 1.
    """
    objective = network.objectives[name]
    if not objective.has_place_weights:
        return None
    weights = tf.cast(objective.compute_place_weights(examples["targets"][name]), tf.float32)
    if "others" in examples:
        others = tf.cast(objective.compute_place_weights(examples["others"]["targets"][name]), tf.float32)
        share = tf.reshape(examples["share"], [-1] + [1] * (weights.shape.rank - 1))
        weights = share * weights + (1.0 - share) * others
    weights = scale * weights
    if "labelled" not in examples or name in network.unlabelled:
        return weights
    # Which places of a row without labels are padding is not known.
    is_labelled = tf.reshape(examples["labelled"] > 0, [-1] + [1] * (weights.shape.rank - 1))
    return tf.where(is_labelled, weights, 1.0 / math.prod(weights.shape[1:]))


def sum_units(examples: Arrays, counts: Any, replicas: int) -> dict[str, Any]:
    """Sum the units of a whole batch by target, over all replicas: the divisors of the losses.

    Args:
        examples: This replica's share of the batch, prepared.
        counts: 1 for each example that counts and 0 for others, or None if all do.
    """
    if "units" not in examples:
        return {}
    sums = {
        name: tf.reduce_sum(units if counts is None else units * counts) for name, units in examples["units"].items()
    }
    if replicas > 1:
        context = tf.distribute.get_replica_context()
        sums = dict(zip(sums, context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums.values())), strict=True))
    # A batch of padding alone has no unit, and losses of 0.
    return {name: tf.where(total > 0, total, 1.0) for name, total in sums.items()}


def run_network(network: Network, examples: Arrays, training: bool) -> dict[str, Any]:
    """Run the network on prepared examples; outputs by target, `(batch, ...)`, or `(batch, views, ...)`."""
    inputs, views = unstack_inputs(examples), count_views(network)
    outputs = network.model(_merge_views(inputs, views), training=training)
    split: dict[str, Any] = _split_views(outputs, views)
    return split


def predict_outputs(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert outputs of `run_network` to predictions by target, with an axis of views as the outputs have it.

    Args:
        examples: As they were given to `run_network`.
    """
    views = count_views(network)
    inputs = _merge_views(unstack_inputs(examples), views) if network.unlabelled else {}
    merged = network.predict(_merge_views(outputs, views), inputs)
    predictions: dict[str, Any] = _split_views(merged, views)
    return predictions


def count_views(network: Network) -> int:
    """Number of rows of the network for each example."""
    return max(objective.views for objective in network.objectives.values())


def _merge_views(arrays: Any, views: int) -> Any:
    """Reshape arrays from `(batch, views, ...)` to `(batch * views, ...)`."""
    if views == 1:
        return arrays
    return tf.nest.map_structure(lambda array: tf.reshape(array, (-1, *array.shape[2:])), arrays)


def _split_views(arrays: Any, views: int) -> Any:
    """Undo `_merge_views`."""
    if views == 1:
        return arrays
    return tf.nest.map_structure(lambda array: tf.reshape(array, (-1, views, *array.shape[1:])), arrays)
