"""Convolutional network for images (LeCun et al. 1998) and for sequences (Kim 2014)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from bmcli import models
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.models import (
    MAP,
    STEPS,
    VECTOR,
    Backbone,
    DenseOptions,
    FeatureRequest,
    Features,
    Size,
    Sizes,
    Units,
)
from bmcli.quoting import quoted
from bmcli.specs import DataSpec


class Options(DenseOptions):
    """Blocks of convolutions over one image or sequence, then dense layers, before which other inputs join.

    The first choice for images, and for texts and time series with local patterns. A block is `convolutions` times
    convolution, normalization and activation, then pooling and dropout. Padding of sequences is masked: convolutions
    see 0, and pooling skips it.
    """

    WIDTHS: ClassVar = ("filters", "dense")  # options that channel pruning may reduce
    kind: Literal["cnn"] = Field(default="cnn", description="A convolutional network.")
    filters: tuple[Units, ...] = Field(
        default=(32, 64),
        min_length=1,
        description="Filters of the convolutions of each block, one number per block.",
    )
    convolutions: Size = Field(default=1, description="Convolutions per block.")
    kernel_size: Sizes = Field(
        default=3, description="Kernel size in pixels or time steps: one number, or [rows, columns] for images."
    )
    strides: Sizes = Field(default=1, description="Strides of the first convolution of each block.")
    padding: Literal["same", "valid"] = Field(
        default="same", description="same pads the image so that its size is kept; valid does not pad."
    )
    pool: Sizes = Field(default=2, description="Pool size after each block; 1 disables pooling.")
    pool_kind: Literal["max", "average"] = Field(
        default="max", description="Pooling operation after each block: average or maximum."
    )
    pooling: Literal["flatten", "average", "max"] | None = Field(
        default=None,
        description="How the last feature map becomes a vector: flattened, or its average or maximum per filter. By "
        "default flattened for images, maximum for sequences.",
    )
    dense: tuple[Units, ...] = Field(default=(64,), description="Units of the dense layers after the convolutions.")


def convolves(options: Options) -> bool:
    return True


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    source = models.find_single_input(spec, sequences=True)
    return () if source is None else (VECTOR, MAP if models.is_image(source) else STEPS)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec)
    source, others = models.require_single_input(features, "cnn", sequences=True)
    if models.is_sequence(source):
        _check_one_axis(options, source)
    tensor, mask = source.tensor, source.mask
    for number, filters in enumerate(options.filters, start=1):
        tensor, mask = _block(options, tensor, mask, filters, number)
    builders = {
        VECTOR: lambda: Features(_build_vector(options, tensor, mask, others)),
        MAP if models.is_image(source) else STEPS: lambda: Features(models.append_inputs(tensor, others), mask),
    }
    return Backbone(tensors, models.build_requested(requests, builders))


def _build_vector(options: Options, tensor: Any, mask: Any, others: Sequence[Feature]) -> Any:
    vector = models.concatenate([_pool_globally(options, tensor, mask), *map(models.to_vector, others)])
    for units in options.dense:
        vector = models.apply_dense(options, vector, units)
    return vector


def _check_one_axis(options: Options, source: Feature) -> None:
    for option in ("kernel_size", "strides", "pool"):
        if not isinstance(getattr(options, option), int):
            raise BmcliError(
                f"only images have rows and columns, but {quoted(source.column.name)} is a sequence.",
                path=f"model.{option}",
                suggestion="Give one number of steps.",
            )


def _block(options: Options, tensor: Any, mask: Any, filters: int, number: int) -> tuple[Any, Any]:
    """Apply a block; returns its output and, for a sequence with padding, the mask."""
    for position in range(options.convolutions):
        strides = options.strides if position == 0 else 1
        tensor, mask = _convolution(options, tensor, mask, filters, strides, number)
    tensor, mask = _pool(options, tensor, mask, number)
    return models.apply_dropout(options, tensor), mask


def _convolution(
    options: Options, tensor: Any, mask: Any, filters: int, strides: Sizes, number: int
) -> tuple[Any, Any]:
    import keras

    size, steps = _sizes(tensor, options.kernel_size), _sizes(tensor, strides)
    if options.padding == "valid":
        _check_size(tensor, size, number, "kernel_size", "convolution")
    convolution = keras.layers.Conv1D if len(size) == 1 else keras.layers.Conv2D
    layer = convolution(
        filters,
        size,
        strides=steps,
        padding=options.padding,
        use_bias=options.normalization is None,
        **models.kernel_arguments(options),
    )
    # Bias, normalization and activation of the block before made padding nonzero; a convolution would mix it in.
    convolved = layer(_fill_padding(tensor, mask, 0.0))
    if mask is not None and convolved.shape[1] != tensor.shape[1]:
        mask = _pool_mask(mask, size[0], steps[0], options.padding)
    return models.apply_activation(options.activation, models.apply_normalization(options, convolved, mask)), mask


def _pool(options: Options, tensor: Any, mask: Any, number: int) -> tuple[Any, Any]:
    import keras

    size = _sizes(tensor, options.pool)
    if set(size) == {1}:
        return tensor, mask
    _check_size(tensor, size, number, "pool", "pooling")
    layer = {
        ("max", 1): keras.layers.MaxPooling1D,
        ("max", 2): keras.layers.MaxPooling2D,
        ("average", 1): keras.layers.AveragePooling1D,
        ("average", 2): keras.layers.AveragePooling2D,
    }[options.pool_kind, len(size)](size)
    if mask is None:
        return layer(tensor), None
    if options.pool_kind == "max":
        pooled = layer(_fill_padding(tensor, mask, float("-inf")))
    else:
        # The layer divides by the size of the window; divided by the share of valid steps it is their mean. The lower
        # limit, less than the share of one step, avoids 0 / 0 in a window of padding.
        share = layer(keras.ops.cast(keras.ops.expand_dims(mask, -1), tensor.dtype))
        pooled = layer(_fill_padding(tensor, mask, 0.0)) / keras.ops.maximum(share, 1 / (2 * size[0]))
    # Windows of padding alone hold -inf after the maximum: they become 0 before anything is computed with them.
    mask = _pool_mask(mask, size[0], size[0], "valid")
    return _fill_padding(pooled, mask, 0.0), mask


def _fill_padding(tensor: Any, mask: Any, value: float) -> Any:
    """Replace all steps of padding by a value."""
    if mask is None:
        return tensor
    from keras import ops

    return ops.where(ops.expand_dims(mask, -1), tensor, value)


def _pool_mask(mask: Any, size: int, strides: int, padding: str) -> Any:
    """Compute the mask of windows, `(batch, windows)`: true where a window contains a valid step."""
    from keras import ops

    steps = ops.cast(ops.expand_dims(mask, -1), "float32")
    return ops.squeeze(ops.max_pool(steps, size, strides, padding), -1) > 0


def _sizes(tensor: Any, size: Sizes) -> tuple[int, ...]:
    """Expand a size to one number for a sequence, and two for an image."""
    return (size,) if len(tensor.shape) == 3 and isinstance(size, int) else models.to_pair(size)


def _check_size(tensor: Any, window: tuple[int, ...], number: int, option: str, operation: str) -> None:
    sizes = tuple(tensor.shape[1:-1])
    if any(axis < size for axis, size in zip(sizes, window, strict=True)):
        source, larger = ("an image", "larger images") if len(sizes) == 2 else ("a sequence", "longer sequences")
        raise BmcliError(
            f"block {number}: {source} of {_format_sizes(sizes)} is smaller than a {operation} of "
            f"{_format_sizes(window)}.",
            path=f"model.{option}",
            suggestion=f"Use fewer `filters`, a smaller window, or {larger}.",
        )


def _format_sizes(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _pool_globally(options: Options, tensor: Any, mask: Any) -> Any:
    """Reduce the output of the last block to a vector, `(batch, width)`."""
    import keras

    from bmcli.layers.step_pooling import StepPooling

    is_image = len(tensor.shape) == 4
    pooling = options.pooling or ("flatten" if is_image else "max")
    if pooling == "flatten":
        return keras.layers.Flatten()(_fill_padding(tensor, mask, 0.0))
    if not is_image:
        return StepPooling("mean" if pooling == "average" else "max")(tensor, mask=mask)
    return {"average": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[pooling]()(tensor)
