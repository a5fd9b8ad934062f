"""The loss of a step: what the labels, and perhaps teachers, say about the outputs of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from bmcli.networks.network import Network
from bmcli.training.feed import inputs_of

Arrays = Mapping[str, Any]


def compute_losses(network: Network, examples: Arrays, outputs: Mapping[str, Any]) -> Any:
    """Loss of each example over all targets, `(batch,)`, with the weights of targets and examples.

    Where examples are mixed with others it is that of both, by their shares of the mixture.
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
    """How much each example counts, `(batch,)`; of mixed ones by their shares of the mixture.

    Args:
        like: Any numbers of the examples, `(batch,)`.
    """
    own = examples["weights"] if "weights" in examples else tf.ones_like(like)
    if "others" not in examples or "weights" not in examples:
        return own
    return examples["share"] * own + (1.0 - examples["share"]) * examples["others"]["weights"]


def regularization_loss(network: Network) -> Any:
    """Sum of the losses that layers add, such as regularizers."""
    return tf.add_n([tf.cast(loss, tf.float32) for loss in network.model.losses] or [tf.zeros(())])


class StepLosses(NamedTuple):
    """Outputs and losses of some examples.

    Args:
        outputs: Of the network, by target.
        losses: Of each example, `(batch,)`, its weight included.
        terms: The summands of the losses, each `(batch,)` with the weights of examples, by name; empty if one alone.
    """

    outputs: Mapping[str, Any]
    losses: Any
    terms: Mapping[str, Any]


class LossProvider:
    """Computes the loss of each example: here from the labels, by the objectives of a network.

    Args:
        network: The network that learns.
    """

    term_names: tuple[str, ...] = ()
    """Names of the summands of the loss, if there are several."""
    compares_examples = False
    """Whether examples of a batch are compared with each other, so that a batch cannot be computed in parts."""
    runs_teachers = False
    """Whether every step computes the outputs of teachers."""
    steps_per_epoch = 1
    cost_key: Any = None
    """A JSON value of all that decides how fast a step is, beside the network."""
    note = ""
    """A sentence that a user may want to read, or nothing."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def extra_weights(self) -> list[Any]:
        """Weights that are trained beside those of the network, and then dropped."""
        return []

    def extend(self, examples: Arrays) -> Arrays:
        """Add what is known of the examples beside the labels, such as outputs of teachers."""
        return examples

    def compute(self, examples: Arrays, counts: Any, size: int, step: Any) -> StepLosses:
        """Compute outputs and losses of some examples of a batch, in training.

        Args:
            counts: 1 for each example that counts and 0 for others, or None if all do.
            size: Examples of the whole batch.
            step: Optimizer steps done.
        """
        outputs = self.network.model(inputs_of(examples), training=True)
        return StepLosses(outputs, compute_losses(self.network, examples, outputs), {})
