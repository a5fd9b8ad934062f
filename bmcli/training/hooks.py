"""Features that join a training: averages of weights, pruning, rounding, learning rates by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf


class StepHook:
    """A feature that joins a training. Its methods do nothing unless a feature overrides them.

    `before_step`, `transform_gradients`, `after_step` and `forward_pass` run where the step is traced, so inside the
    compiled step and once for each replica.
    """

    replaces_network = False
    """Whether the network that is kept is another than the one that is trained."""

    @property
    def variables(self) -> list[Any]:
        """State of the feature, the same on every replica; checkpoints include it."""
        return []

    @property
    def statistics(self) -> list[Any]:
        """Those variables that each replica updates from its own examples; a step averages them over the replicas."""
        return []

    def forward_pass(self) -> AbstractContextManager[None]:
        """Make a context around the forward pass whose gradients are computed."""
        return nullcontext()

    def before_step(self) -> Any:
        """Return the state before the step that `after_step` needs."""

    def transform_gradients(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Change the gradients of a whole batch: one for each trained weight, or None if the loss does not use it."""
        return gradients

    def after_step(self, step: Any, snapshot: Any) -> None:
        """Update the feature after a step.

        Args:
            step: Steps that the optimizer has taken, an integer tensor.
            snapshot: The value that `before_step` returned.
        """

    def before_call(self, train_s: float) -> None:
        """Prepare for the next steps, which are computed at once.

        Args:
            train_s: Time of the training so far, in seconds, the same on every worker.
        """

    def catch_up(self, step: Any) -> None:
        """Do what is due at this step, after a training was resumed with another number of steps."""

    def after_epoch(self, epoch: int) -> None:
        """Update the feature after an epoch, which counts from 1."""

    def use_evaluation_weights(self, epoch: int, should_stop: Callable[[], bool]) -> AbstractContextManager[None]:
        """Make a context in which the network has the weights to evaluate, and perhaps to keep, after an epoch.

        Args:
            epoch: Counts from 1.
            should_stop: Whether to leave a longer computation, which then raises `PassStopped`.
        """
        return nullcontext()

    def is_settled(self, step: int) -> bool:
        """Whether the feature no longer changes the network, so that epochs can be compared with later ones."""
        return True

    def finish(self, model: Any) -> None:
        """Change the weights of the network that is kept."""


class LayerRates(StepHook):
    """Learning rates by layer.

    Args:
        weights: All trained weights.
        factors: Factors of the learning rate by index of the weight.
    """

    # The optimizer's change of a weight is scaled, not the gradient: Adam and similar optimizers divide by the size of
    # gradients, so that a factor would cancel out.
    def __init__(self, weights: Sequence[Any], factors: dict[int, float]) -> None:
        self._weights, self._factors = weights, factors

    def before_step(self) -> dict[int, Any]:
        # `value` is TensorFlow's variable itself; a copy is needed, because the step changes it.
        return {index: tf.identity(self._weights[index].value) for index in self._factors}

    def after_step(self, step: Any, snapshot: dict[int, Any]) -> None:
        for index, before in snapshot.items():
            weight = self._weights[index]
            weight.assign(before + self._factors[index] * (weight.value - before))
