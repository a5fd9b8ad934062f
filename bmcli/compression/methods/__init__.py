"""Ways to make a trained network smaller, one a module, and what a network weighs."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bmcli import parts
from bmcli.models import allow_column_names
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import keras

Examples = Mapping[str, np.ndarray]
"""Encoded inputs by column: what a network is usually given."""


class CompressionMethod(Protocol):
    """What a module in this folder offers."""

    Options: type[Kind]

    def apply(self, options: Any, model: keras.Model, examples: Examples) -> keras.Model:
        """A smaller network that takes and gives what `model` does; `model` stays as it is.

        Args:
            examples: Some rows that the network was trained on.
        """


def compress_model(methods: Sequence[Kind], model: keras.Model, examples: Examples) -> keras.Model:
    """A network made smaller in these ways, one after the other."""
    for options in methods:
        model = parts.load("compression.methods", options.kind).apply(options, model, examples)
    return model


@dataclass(frozen=True)
class ModelSize:
    """What a network weighs.

    Args:
        parameters: Numbers, among them scales and moving statistics.
        nonzero: How many of them are not 0.
        bytes: Of the numbers alone, in the types that the network keeps them in.
        gzip_bytes: The same compressed, as zeros and repeated values weigh only there.
    """

    parameters: int
    nonzero: int
    bytes: int
    gzip_bytes: int

    @property
    def nonzero_share(self) -> float:
        return self.nonzero / max(self.parameters, 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "nonzero_share": float(f"{self.nonzero_share:.6f}"),  # `round` is a way to compress here
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
        }


def measure_model_size(model: keras.Model) -> ModelSize:
    """What a network weighs; where integers share bytes, each byte is a parameter."""
    import keras

    values = [np.asarray(keras.ops.convert_to_numpy(weight.value)) for weight in model.weights]
    raw = b"".join(value.tobytes() for value in values)
    return ModelSize(
        parameters=sum(value.size for value in values),
        nonzero=sum(int(np.count_nonzero(value)) for value in values),
        bytes=len(raw),
        gzip_bytes=len(gzip.compress(raw, 9, mtime=0)),
    )


def clone_model(model: keras.Model, replace_layer: Callable[[Any], Any] = lambda layer: None) -> keras.Model:
    """A copy of a network, some of its layers replaced.

    Args:
        replace_layer: From a layer to that which takes its place, or None. Its weights are set afterwards.
    """
    import keras

    def copied(layer: Any) -> Any:
        return replace_layer(layer) or type(layer).from_config(layer.get_config())

    with allow_column_names():
        found = keras.models.clone_model(model, clone_function=copied)
    for layer, other in zip(model.layers, found.layers, strict=True):
        if type(layer) is type(other):
            other.set_weights(layer.get_weights())
    return found


def is_kernel(weight: Any) -> bool:
    """Whether a weight is what a layer multiplies its inputs with."""
    return len(weight.shape) > 1 and weight.name.endswith("kernel")
