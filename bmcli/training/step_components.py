"""The parts of an optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from bmcli.distribution.strategy import Placement
from bmcli.networks.network import Network
from bmcli.training.augmentation import Augmenter
from bmcli.training.graph_ops import moving_statistics
from bmcli.training.hooks import StepHook
from bmcli.training.loss import LossProvider, StepLosses
from bmcli.training.meters import Meters
from bmcli.training.objective_batch import Arrays, predict_outputs


@dataclass(frozen=True)
class StepComponents:
    """The parts of an optimizer step.

    Args:
        loss: Provider of the loss of each example.
        augmentation: Changes the examples, outside of the code that XLA compiles.
        hooks: Features that join the training, in the order in which they are called.
    """

    network: Network
    optimizer: keras.Optimizer
    meters: Meters
    placement: Placement
    loss: LossProvider
    augmentation: Augmenter | None = None
    hooks: tuple[StepHook, ...] = ()

    @property
    def weights(self) -> list[Any]:
        """The trained weights: those of the network, then those that only the loss needs."""
        return [*self.network.model.trainable_variables, *self.loss.extra_weights]

    @property
    def variables(self) -> list[Any]:
        """State of the training that is the same on every replica, in a fixed order."""
        # The model's variables include the states of seed generators, which decide the next masks of dropout.
        model_variables = [*self.network.model.variables, *self.loss.extra_weights]
        return [*model_variables, *self.optimizer.variables, *(each for hook in self.hooks for each in hook.variables)]

    @property
    def statistics(self) -> list[Any]:
        """Variables that each replica updates from its own examples; a step averages them over the replicas."""
        return [*moving_statistics(self.network.model), *(each for hook in self.hooks for each in hook.statistics)]

    @contextmanager
    def join_forward_pass(self) -> Iterator[None]:
        """Let the hooks join a forward pass whose gradients are computed."""
        with ExitStack() as contexts:
            for hook in self.hooks:
                contexts.enter_context(hook.forward_pass())
            yield

    def update_meters(self, examples: Arrays, computed: StepLosses, penalty: Any, counts: Any) -> None:
        """Add some examples to the metrics.

        Args:
            computed: With losses of 0, and no units, for examples that do not count.
            penalty: Loss of the regularizers.
            counts: 1 for each example that counts and 0 for others, or None if all do.
        """
        predictions = predict_outputs(self.network, examples, computed.outputs)
        self.meters.update(
            computed.losses,
            penalty,
            examples["targets"],
            predictions,
            counts,
            computed.terms,
            examples.get("labelled"),
            examples.get("weights"),
        )
