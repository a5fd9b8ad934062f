"""Convolutional network for images (LeCun, Bottou, Bengio and Haffner 1998)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import models
from bmcli.errors import BmcliError
from bmcli.models import DenseOptions, Size, Sizes, Units
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras


class Options(DenseOptions):
    """Blocks of convolutions over one image, then dense layers; other inputs join in before the dense layers.

    A block is `convolutions` times convolution, normalization and activation, then pooling and dropout.
    """

    kind: Literal["cnn"] = Field(default="cnn", description="A convolutional network.")
    filters: tuple[Units, ...] = Field(
        default=(32, 64),
        min_length=1,
        description="Filters of each block's convolutions, a number for each block.",
    )
    convolutions: Size = Field(default=1, description="Convolutions in each block.")
    kernel_size: Sizes = Field(default=3, description="Pixels a filter sees: one number, or [rows, columns].")
    strides: Sizes = Field(default=1, description="Steps of each block's first convolution, in pixels.")
    padding: Literal["same", "valid"] = Field(
        default="same", description="same pads the image so that it keeps its size; valid does not."
    )
    pool: Sizes = Field(default=2, description="Pixels pooled into one after each block; 1 does not pool.")
    pool_kind: Literal["max", "average"] = Field(default="max", description="What a block's pooling computes.")
    pooling: Literal["flatten", "average", "max"] = Field(
        default="flatten",
        description="How the last block becomes a vector: all pixels, or each filter's average or maximum.",
    )
    dense: tuple[Units, ...] = Field(default=(64,), description="Units of the dense layers after the convolutions.")


def convolves(options: Options) -> bool:
    return True


def build(options: Options, spec: DataSpec, heads: Mapping[str, int]) -> keras.Model:
    tensors, features = models.open_inputs(spec)
    image, others = models.sole(features, "cnn", sequences=False)
    tensor = image.tensor
    for number, filters in enumerate(options.filters, start=1):
        tensor = _block(options, tensor, filters, number)
    tensor = models.join([_pooled(options, tensor), *(models.vector(feature) for feature in others)])
    for units in options.dense:
        tensor = models.dense(options, tensor, units)
    return models.close(tensors, tensor, heads)


def _block(options: Options, tensor: Any, filters: int, number: int) -> Any:
    for position in range(options.convolutions):
        strides = models.pair(options.strides) if position == 0 else (1, 1)
        tensor = _convolution(options, tensor, filters, strides, number)
    return models.dropped(options, _pool(options, tensor, number))


def _convolution(options: Options, tensor: Any, filters: int, strides: tuple[int, int], number: int) -> Any:
    import keras

    if options.padding == "valid":
        _check_size(tensor, models.pair(options.kernel_size), number, "kernel_size", "convolution")
    tensor = keras.layers.Conv2D(
        filters,
        models.pair(options.kernel_size),
        strides=strides,
        padding=options.padding,
        use_bias=options.normalization is None,
        **models.kernel(options),
    )(tensor)
    return models.activated(options.activation, models.normalized(options, tensor))


def _pool(options: Options, tensor: Any, number: int) -> Any:
    import keras

    size = models.pair(options.pool)
    if size == (1, 1):
        return tensor
    _check_size(tensor, size, number, "pool", "pooling")
    pooling = keras.layers.MaxPooling2D if options.pool_kind == "max" else keras.layers.AveragePooling2D
    return pooling(size)(tensor)


def _check_size(tensor: Any, window: tuple[int, int], number: int, option: str, what: str) -> None:
    height, width = tensor.shape[1:3]
    if height < window[0] or width < window[1]:
        raise BmcliError(
            f"block {number}: an image of {height}x{width} cannot hold a {what} of {window[0]}x{window[1]}.",
            path=f"model.{option}",
            suggestion="Use fewer `filters`, a smaller window, or larger images.",
        )


def _pooled(options: Options, tensor: Any) -> Any:
    import keras

    layer = {
        "flatten": keras.layers.Flatten,
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }[options.pooling]
    return layer()(tensor)
