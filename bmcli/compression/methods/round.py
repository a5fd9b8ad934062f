"""Rounding: weights get the values of small integers times a scale per channel.

The integers are those of LiteRT, symmetric around 0. In Jacob et al. 2018, section 3.1, the range is that of the
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import private_api
from bmcli.compression.methods import Examples, clone_model
from bmcli.recipe.compression import MethodOptions

if TYPE_CHECKING:
    import keras

LEVELS = {"int8": 127, "int4": 7}  # the largest integer; the smallest is its negative


class Options(MethodOptions):
    """Weights of dense and convolutional layers are rounded to the nearest of 255 or 15 values per channel.

    They are stored in 32 bits, but compressed files shrink, and LiteRT's int8 finds the same integers.
    """

    kind: Literal["round"] = Field(default="round", description="Weights that small integers stand for.")
    to: Literal["int8", "int4"] = Field(default="int4", description="Integer type whose values are used.")

    @property
    def label(self) -> str:
        return self.to


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    compressed = clone_model(model)
    round_weights(compressed, options.to)
    return compressed


def round_weights(model: keras.Model, to: str) -> None:
    """Round the weights of a network in place.

    Args:
        to: `int8` or `int4`.
    """
    import keras

    for layer in find_rounded_layers(model):
        for weight in list_kernels(layer):
            rounded = round_to_levels(weight.value, scale_axes(layer, weight), LEVELS[to])
            weight.assign(keras.ops.convert_to_numpy(rounded))


def find_rounded_layers(model: keras.Model) -> list[Any]:
    """Find the layers whose weights are rounded, in the order of the network."""
    from keras import layers

    kinds = (
        layers.Dense, layers.EinsumDense, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D,
        layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D,
    )  # fmt: skip
    return [layer for layer in private_api.flatten_layers(model) if isinstance(layer, kinds)]


def list_kernels(layer: Any) -> list[Any]:
    return [weight for weight in layer.weights if weight.name.endswith("kernel")]


def scale_axes(layer: Any, weight: Any) -> tuple[int, ...]:
    """Axes of a kernel over which one scale is shared: all but that of the channels."""
    from keras import layers

    rank = len(weight.shape)
    if isinstance(layer, layers.EinsumDense):
        return tuple(range(rank))  # the axes of its channels depend on its equation
    # The channels of a depthwise kernel are its last two axes: input channels and filters of each.
    depthwise = isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D))
    return tuple(range(rank - (2 if depthwise or weight.name.startswith("depthwise") else 1)))


def round_to_levels(kernel: Any, axes: Sequence[int], levels: int) -> Any:
    """Round a kernel to integers from `-levels` to `levels` times a scale.

    Args:
        axes: Axes over which one scale is shared.
    """
    from keras import ops

    scale = ops.max(ops.abs(kernel), axis=tuple(axes), keepdims=True) / levels
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))  # a channel of zeros, such as a pruned one
    return ops.round(kernel / scale) * scale
