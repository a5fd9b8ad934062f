"""Methods that make a trained network smaller, one per module, and the size of a network."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bmcli import parts
from bmcli.models import allow_column_names
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import keras
    import numpy as np

Examples = Mapping[str, "np.ndarray"]
"""Encoded inputs by column, for methods that need typical activations."""


class CompressionMethod(Protocol):
    """The interface of a module in this folder."""

    Options: type[Kind]

    def apply(self, options: Any, model: keras.Model, examples: Examples) -> keras.Model:
        """Make a smaller network with the inputs and outputs of `model`, which is not changed.

        Args:
            examples: Some of the training rows.
        """


def compress_model(methods: Sequence[Kind], model: keras.Model, examples: Examples) -> keras.Model:
    """Apply several methods to a network, one after the other."""
    for options in methods:
        model = parts.load("compression.methods", options.kind).apply(options, model, examples)
    return model


@dataclass(frozen=True)
class ModelSize:
    """Size of a network.

    Args:
        parameters: Number of weights, including scales and moving statistics.
        nonzero: Number of weights that are not 0.
        bytes: Bytes of the weights in their types, without names and structure.
        gzip_bytes: The same compressed, because zeros and repeated values save no bytes otherwise.
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
            # Not by `round`: once it is imported, the module of that name in this folder shadows the builtin here.
            "nonzero_share": float(f"{self.nonzero_share:.6f}"),
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
        }


def measure_model_size(model: keras.Model) -> ModelSize:
    """Measure the size of a network; where two integers of 4 bits share a byte, each byte is one parameter."""
    import keras
    import numpy as np

    values = [np.asarray(keras.ops.convert_to_numpy(weight.value)) for weight in model.weights]
    raw = b"".join(value.tobytes() for value in values)
    return ModelSize(
        parameters=sum(value.size for value in values),
        nonzero=sum(int(np.count_nonzero(value)) for value in values),
        bytes=len(raw),
        gzip_bytes=len(gzip.compress(raw, 9, mtime=0)),
    )


def clone_model(model: keras.Model, replace_layer: Callable[[Any], Any] = lambda layer: None) -> keras.Model:
    """Copy a network, with some of its layers replaced.

    Args:
        replace_layer: Returns the replacement of a layer, whose weights the caller sets afterwards, or None to copy it.
    """
    import keras

    def copy_layer(layer: Any) -> Any:
        return replace_layer(layer) or type(layer).from_config(layer.get_config())

    with allow_column_names():
        clone = keras.models.clone_model(model, clone_function=copy_layer)
    # Keras clones the structure alone, with new weights.
    for layer, other in zip(model.layers, clone.layers, strict=True):
        if type(layer) is type(other):
            other.set_weights(layer.get_weights())
    return clone


def is_kernel(weight: Any) -> bool:
    """Whether a weight is a kernel, with which a layer multiplies its inputs."""
    return len(weight.shape) > 1 and weight.name.endswith("kernel")
