"""Network of depthwise separable convolutions for images (Sandler et al. 2018, MobileNetV2)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.models import Backbone, ConvolutionOptions, FeatureRequest, Size, Units
from bmcli.recipe.fields import Activation, KerasObject
from bmcli.specs import DataSpec


class Options(ConvolutionOptions):
    """MobileNetV2: inverted residual blocks over one image; other inputs join before the output.

    For images where the network must be small or fast on a phone: it needs a fraction of the weights and
    multiplications of a `resnet`. A block expands its input by a 1x1 convolution, filters each channel separately, and
    projects back; every stage but the first halves rows and columns.
    """

    WIDTHS: ClassVar = ("expansion",)  # options that channel pruning may reduce
    WIDTHS_ABOVE: ClassVar = {"expansion": 1.0}  # at 1 a block has one layer fewer
    kind: Literal["mobilenet"] = Field(default="mobilenet", description="A network of separable convolutions.")
    widths: tuple[Units, ...] = Field(
        default=(16, 32, 64), min_length=1, description="Filters of each stage, between its blocks."
    )
    blocks: tuple[Size, ...] = Field(default=(1, 2, 2), min_length=1, description="Blocks of each stage.")
    expansion: Annotated[float, Field(ge=1)] = Field(
        default=4.0, description="Filters inside a block, as a multiple of those between blocks."
    )
    kernel_size: Size = Field(default=3, description="Kernel size of the depthwise convolutions.")
    last: Units | None = Field(
        default=128, description="Filters of the last 1x1 convolution before pooling; null omits it."
    )
    activation: Activation = Field(default=KerasObject("relu6"), description="Keras activation of the convolutions.")

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
    image, others = models.require_single_input(features, "mobilenet", sequences=False)
    tensor = models.apply_stem(options, image, options.widths[0])
    maps = []
    for stage, (count, width) in enumerate(zip(options.blocks, options.widths, strict=True)):
        for position in range(count):
            tensor = _block(options, tensor, width, 2 if stage > 0 and position == 0 else 1)
        maps.append(tensor)
    if options.last is not None:
        maps[-1] = models.apply_convolution(options, tensor, options.last)
    return models.build_map_features(tensors, maps, others, requests, partial(models.pool_maps, options))


def _block(options: Options, tensor: Any, width: int, strides: int) -> Any:
    """Apply an inverted residual block: expand, filter each channel, project; add the input if the shapes agree."""
    import keras

    narrow = tensor.shape[-1]
    wide = round(narrow * options.expansion)
    branch = tensor if wide == narrow else models.apply_convolution(options, tensor, wide)
    branch = _depthwise(options, branch, strides)
    # Without activation: in few channels it would destroy information (section 3.2 of the paper).
    branch = models.apply_convolution(options, branch, width, linear=True)
    return keras.layers.Add()([tensor, branch]) if strides == 1 and narrow == width else branch


def _depthwise(options: Options, tensor: Any, strides: int) -> Any:
    import keras

    # Keras names the options of a depthwise kernel differently: `depthwise_initializer`.
    weights = {name.replace("kernel", "depthwise"): value for name, value in models.kernel_arguments(options).items()}
    layer = keras.layers.DepthwiseConv2D(
        options.kernel_size, strides=strides, padding="same", use_bias=False, **weights
    )
    return models.finish_convolution(options, layer(tensor))
