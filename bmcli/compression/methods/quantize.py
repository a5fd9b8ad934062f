"""Quantisation by Keras: dense layers and embeddings compute with small integers, or with 8-bit floats."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import private_api
from bmcli.compression.methods import Examples, clone_model
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import keras


class Options(Kind):
    """Weights of 8 or 4 bits with one scale per channel; inputs are quantised dynamically.

    Keras supports dense, attention and embedding layers; convolutions are not quantised.
    """

    kind: Literal["quantize"] = Field(default="quantize", description="Quantisation by Keras.")
    to: Literal["int8", "int4", "float8"] = Field(
        default="int8",
        description="int8, int4 or float8. float8 rounds values during computation and keeps weights in 32 bits, as "
        "it is made for training.",
    )


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    """Keras' `Model.quantize` on a copy.

    Raises:
        BmcliError: No layer of the network can be quantised.
    """
    found = clone_model(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize")
        found.quantize(options.to)
    if not any(layer.quantization_mode for layer in private_api.flatten_layers(found)):
        raise BmcliError("Keras can quantise no layer of this network.",
                         suggestion="It can dense layers, attention and embeddings.")  # fmt: skip
    return found
