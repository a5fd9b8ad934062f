"""Layers that can compute a sequence step by step, with a cache of the steps before."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class IncrementalLayer(keras.layers.Layer):
    """Base class of layers whose output at a step depends on its position, or on the steps before it.

    Layers that treat each step alone, such as Dense, need nothing of this.
    """

    @abstractmethod
    def make_cache(self, batch: int, steps: int) -> Any:
        """Make an empty cache, a structure of tensors.

        Args:
            batch: Number of sequences.
            steps: Largest number of steps.
        """

    @abstractmethod
    def advance(self, inputs: Any, cache: Any, position: Any) -> tuple[Any, Any]:
        """Compute one step as `call` does within the whole sequence, without dropout.

        Args:
            inputs: The step, `(batch, 1, width)`.
            cache: Of the steps before.
            position: Of the step, an integer tensor.

        Returns:
            The output of the step, and the cache of all steps up to it.

        Raises:
            ValueError: The layer looks at later steps.
        """
