"""Output record: keeps in a saved model what one of its outputs means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class DescribedOutput(keras.layers.Layer):
    """The identity, whose configuration describes an output, so that its meaning is known from a file without its run.

    Args:
        output: Name of the output.
        objective: Kind of its objective.
        names: Names of what the last axis counts, such as classes, in its order; empty for numbers.

    Input shape:
        Any.

    Output shape:
        The same.
    """

    def __init__(self, output: str, objective: str, names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recorded_output, self.objective, self.names = output, objective, tuple(names)

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"output": self.recorded_output, "objective": self.objective, "names": list(self.names)}
        return {**super().get_config(), **own}
