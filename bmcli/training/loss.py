"""The loss of a step, from the labels; distillation replaces the provider by one that also has teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from bmcli.networks.network import Network
from bmcli.training.feed import unstack_inputs

Arrays = Mapping[str, Any]


def compute_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> Any:
    """Compute the loss of each example over all targets, `(batch,)`, with the weights of targets and examples.

    Mixed examples have the losses of both partners, weighted with their shares of the mixture.
    """
    own = _label_losses(network, examples, outputs)
    if "others" not in examples:
        return own
    share = examples["share"]
    return share * own + (1.0 - share) * _label_losses(network, examples["others"], outputs)


def _label_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> Any:
    targets = examples["targets"]
    total = tf.add_n(
        [objective.weight * objective.loss(targets[n], outputs[n]) for n, objective in network.objectives.items()]
    )
    if "labelled" in examples:
        total = total * examples["labelled"]
    return total * examples["weights"] if "weights" in examples else total


def example_weights(examples: Arrays, like: Any) -> Any:
    """Compute the weight of each example, `(batch,)`; mixed ones have the mean by their shares of the mixture.

    Args:
        like: Any tensor of shape `(batch,)`; ones of its shape are returned where the data has no weights.
    """
    own = examples["weights"] if "weights" in examples else tf.ones_like(like)
    if "others" not in examples or "weights" not in examples:
        return own
    return examples["share"] * own + (1.0 - examples["share"]) * examples["others"]["weights"]


def regularization_loss(network: Network) -> Any:
    """Sum the losses that layers add, such as those of regularizers."""
    # In mixed precision they may have 16 bits, and `add_n` needs one type and at least one tensor.
    return tf.add_n([tf.cast(loss, tf.float32) for loss in network.model.losses] or [tf.zeros(())])


class StepLosses(NamedTuple):
    """Outputs and losses of some examples.

    Args:
        outputs: Outputs of the network by target.
        losses: Loss of each example, `(batch,)`, including its weight.
        terms: Summands of the losses by name, each `(batch,)` including weights; empty if there is only one.
    """

    outputs: Mapping[str, Any]
    losses: Any
    terms: Mapping[str, Any]


class LossProvider:
    """Provider of the loss of each example; this one computes it from the labels, by the objectives of a network.

    Args:
        network: The network to train.
    """

    term_names: tuple[str, ...] = ()
    """Names of the summands of the loss, if there are several."""
    compares_examples = False
    """Whether the loss compares examples of a batch with each other, so that it cannot be computed in parts."""
    runs_teachers = False
    """Whether every step computes the outputs of teachers."""
    steps_per_epoch = 1
    cost_key: Any = None
    """A JSON value of everything beside the network that decides how fast a step is."""
    note = ""
    """A sentence for the user, or an empty text."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def extra_weights(self) -> list[Any]:
        """Weights that are trained with those of the network, and not kept."""
        return []

    def extend(self, examples: Arrays) -> Arrays:
        """Add arrays that the loss needs beside the labels, such as outputs of teachers."""
        return examples

    def compute(self, examples: Arrays, counts: Any, size: int, step: Any) -> StepLosses:
        """Compute outputs and losses of some examples of a batch, in training mode.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Number of examples in the whole batch.
            step: Optimizer steps done.
        """
        outputs = self.network.model(unstack_inputs(examples), training=True)
        return StepLosses(outputs, compute_losses(self.network, examples, outputs), {})
