"""Quantisation by Keras: dense layers and embeddings compute with small integers, or with 8-bit floats."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import private_api
from bmcli.compression.methods import Examples, clone_model
from bmcli.errors import BmcliError
from bmcli.recipe.compression import MethodOptions

if TYPE_CHECKING:
    import keras


class Options(MethodOptions):
    """Weights of 8 or 4 bits with one scale per channel; inputs are quantised dynamically.

    Keras supports dense, attention and embedding layers; convolutions are not quantised.
    """

    kind: Literal["quantize"] = Field(default="quantize", description="Quantisation by Keras.")
    to: Literal["int8", "int4", "float8"] = Field(
        default="int8",
        description="int8, int4 or float8. float8 rounds values during computation and keeps weights in 32 bits, as "
        "it is made for training.",
    )

    @property
    def label(self) -> str:
        return self.to


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    """Quantise a copy of a network by Keras' `Model.quantize`.

    Raises:
        BmcliError: No layer of the network can be quantised.
    """
    compressed = clone_model(model)
    with warnings.catch_warnings():
        # Keras warns of every layer that it leaves as it is; whether it quantised any is checked below.
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize")
        compressed.quantize(options.to)
    if not any(layer.quantization_mode for layer in private_api.flatten_layers(compressed)):
        raise BmcliError("Keras can quantise no layer of this network.",
                         suggestion="Keras quantises dense, attention and embedding layers.")  # fmt: skip
    return compressed
