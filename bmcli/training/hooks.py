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
        """State of the feature, the same on every replica; checkpoints hold it."""
        return []

    @property
    def statistics(self) -> list[Any]:
        """Those of the variables that each replica learns from its own examples; a step makes them their mean."""
        return []

    def forward_pass(self) -> AbstractContextManager[None]:
        """A context for the pass through the network whose gradients are taken."""
        return nullcontext()

    def before_step(self) -> Any:
        """Note what `after_step` needs to know of the time before the step."""

    def transform_gradients(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Change the gradients of a whole batch, one for each trained weight; None where there is none."""
        return gradients

    def after_step(self, step: Any, snapshot: Any) -> None:
        """Follow a step.

        Args:
            step: Steps that the optimizer has taken, int.
            snapshot: What `before_step` returned.
        """

    def catch_up(self, step: Any) -> None:
        """Do what is due by now, after a training was resumed with another end."""

    def after_epoch(self, epoch: int) -> None:
        """Follow an epoch, which counts from 1."""

    def use_evaluation_weights(self, epoch: int, should_stop: Callable[[], bool]) -> AbstractContextManager[None]:
        """A context in which the network has the weights that are measured, and perhaps kept, after an epoch.

        Args:
            epoch: Counts from 1.
            should_stop: Whether to leave a longer computation, which then raises `PassStopped`.
        """
        return nullcontext()

    def is_settled(self, step: int) -> bool:
        """Whether the feature changes the network no more, so that epochs can be compared with later ones."""
        return True

    def finish(self, model: Any) -> None:
        """Change the weights of the network that is kept."""


class LayerRates(StepHook):
    """Learning rates by layer: changes of some weights are scaled.

    The change is scaled and not the gradient, whose size means nothing to Adam and its like.

    Args:
        weights: All trained weights.
        factors: Of the learning rate, by places among the weights.
    """

    def __init__(self, weights: Sequence[Any], factors: dict[int, float]) -> None:
        self._weights, self._factors = weights, factors

    def before_step(self) -> dict[int, Any]:
        return {place: tf.identity(self._weights[place].value) for place in self._factors}

    def after_step(self, step: Any, snapshot: dict[int, Any]) -> None:
        for place, before in snapshot.items():
            weight = self._weights[place]
            weight.assign(before + self._factors[place] * (weight.value - before))
