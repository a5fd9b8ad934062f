"""ConvNeXt for images: a convolutional network with the design of a transformer (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.models import Backbone, DropoutRate, FeatureRequest, Size, Units
from bmcli.quoting import quoted
from bmcli.recipe.fields import Activation, Initializer, KerasObject, Regularizer
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec

_SMALL_PATCH, _PATCH = 2, 4  # pixels per side


class Options(ModelOptions):
    """ConvNeXt: stages of large depthwise convolutions and pointwise dense layers over one image.

    For large image datasets, an alternative to `resnet` where batches are small or batch normalization is unwanted:
    each pixel is normalized separately. Other inputs join before the output. The image is cut into patches, and every
    stage but the first halves rows and columns.
    """

    WIDTHS: ClassVar = ("mlp_ratio",)  # options that channel pruning may reduce
    kind: Literal["convnext"] = Field(default="convnext", description="A ConvNeXt.")
    widths: tuple[Units, ...] = Field(default=(32, 64, 128), min_length=1, description="Channels of each stage.")
    blocks: tuple[Size, ...] = Field(default=(1, 2, 1), min_length=1, description="Blocks of each stage.")
    patch: Size | None = Field(
        default=None,
        description="Patch size in pixels; by default 2 for images below 64 pixels a side, else 4.",
    )
    kernel_size: Size = Field(default=7, description="Kernel size of the depthwise convolutions.")
    mlp_ratio: Annotated[float, Field(gt=0)] = Field(
        default=4.0, description="Hidden units of the dense layers of a block, as a multiple of its channels."
    )
    layer_scale: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="Initial scale of the output of each block (Touvron et al. 2021)."
    )
    drop_path: DropoutRate = Field(
        default=0.0,
        description="Stochastic depth: drop rate of the last block, decreasing linearly towards the first (Huang et "
        "al. 2016).",
    )
    activation: Activation = Field(default=KerasObject("gelu"), description="Keras activation of the dense layers.")
    dropout: DropoutRate = Field(default=0.0, description="Dropout rate of the pooled features.")
    kernel_initializer: Initializer = Field(
        default=KerasObject("glorot_uniform"), description="Keras initializer of all weights."
    )
    kernel_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of all weights, such as {kind: l2, l2: 1e-4}."
    )

    @model_validator(mode="after")
    def _stages_agree(self) -> Options:
        models.check_stages(self.blocks, self.widths)
        return self


def convolves(options: Options) -> bool:
    return True


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return models.list_map_forms(spec)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec)
    image, others = models.require_single_input(features, "convnext", sequences=False)
    tensor = _normalize(_patches(options, image.tensor, options.widths[0], _patch(options, image)))
    maps, last, number = [], sum(options.blocks) - 1, 0
    for stage, (count, width) in enumerate(zip(options.blocks, options.widths, strict=True)):
        tensor = _downsample(options, tensor, width) if stage else tensor
        for _ in range(count):
            tensor = _block(options, tensor, options.drop_path * (number / last if last else 1))
            number += 1
        maps.append(tensor)
    return models.build_map_features(tensors, maps, others, requests, partial(_pool, options))


def _pool(options: Options, tensor: Any) -> Any:
    import keras

    pooled = _normalize(keras.layers.GlobalAveragePooling2D()(tensor))
    return keras.layers.Dropout(options.dropout)(pooled) if options.dropout else pooled


def _patch(options: Options, image: Feature) -> int:
    side = min(image.tensor.shape[1:3])
    patch = options.patch or (_SMALL_PATCH if side < models.SMALL_IMAGE else _PATCH)
    if patch > side:
        raise BmcliError(
            f"patches of {patch}x{patch} are larger than {quoted(image.column.name)}.",
            path="model.patch",
            suggestion=f"Use at most {side}.",
        )
    return patch


def _patches(options: Options, tensor: Any, width: int, size: int) -> Any:
    """Embed patches by a dense layer, `(batch, height / size, width / size, width)`."""
    import keras

    # A convolution whose strides are its size is a dense layer over patches that do not overlap.
    return keras.layers.Conv2D(width, size, strides=size, padding="same", **models.kernel_arguments(options))(tensor)


def _downsample(options: Options, tensor: Any, width: int) -> Any:
    return _patches(options, _normalize(tensor), width, 2)


def _block(options: Options, tensor: Any, drop_path: float) -> Any:
    import keras

    from bmcli.layers.channel_scale import ChannelScale

    width = tensor.shape[-1]
    branch = _normalize(_depthwise(options, tensor))
    branch = keras.layers.Dense(max(1, round(width * options.mlp_ratio)), **models.kernel_arguments(options))(branch)
    branch = keras.layers.Dense(width, **models.kernel_arguments(options))(
        models.apply_activation(options.activation, branch)
    )
    branch = ChannelScale(options.layer_scale)(branch)
    if drop_path:
        # Drawn per example, not per element: a residual branch is kept or lost whole.
        branch = keras.layers.Dropout(drop_path, noise_shape=(None, 1, 1, 1))(branch)
    return keras.layers.Add()([tensor, branch])


def _depthwise(options: Options, tensor: Any) -> Any:
    import keras

    # Keras names the options of a depthwise kernel differently: `depthwise_initializer`.
    weights = {name.replace("kernel", "depthwise"): value for name, value in models.kernel_arguments(options).items()}
    return keras.layers.DepthwiseConv2D(options.kernel_size, padding="same", **weights)(tensor)


def _normalize(tensor: Any) -> Any:
    import keras

    return keras.layers.LayerNormalization(epsilon=1e-6)(tensor)
