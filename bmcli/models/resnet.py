"""Residual network for images (He, Zhang, Ren and Sun 2016)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bmcli import models
from bmcli.models import Backbone, ConvolutionOptions, FeatureRequest, Size, Units
from bmcli.recipe.fields import fault_at
from bmcli.specs import DataSpec

_EXPANSION = 4  # of a bottleneck's last convolution
# Blocks of each stage, table 1 of the paper.
_VARIANTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class Options(ConvolutionOptions):
    """ResNet: stages of convolutions with shortcuts over one image; other inputs join before the output.

    For thousands of images, when a `cnn` no longer improves. Every stage but the first halves rows and columns. The
    default is a small network for small images; `variant` selects those of the paper. The last normalization of each
    block starts at 0, so that each block starts as its shortcut (Goyal et al. 2017).
    """

    WIDTHS: ClassVar = ("inner",)  # options that channel pruning may reduce
    kind: Literal["resnet"] = Field(default="resnet", description="A residual network.")
    variant: Literal[18, 34, 50] | None = Field(
        default=None, description="A network of the paper, by its number of layers; replaces the options below."
    )
    blocks: tuple[Size, ...] | None = Field(
        default=None, min_length=1, description="Blocks of each stage; by default 2 for each of `widths`."
    )
    widths: tuple[Units, ...] | None = Field(
        default=None,
        min_length=1,
        description="Filters of each stage; by default 16, 32, 64 and so on, for each of `blocks` or for 3 stages.",
    )
    bottleneck: bool | None = Field(
        default=None,
        description="Bottleneck blocks: 1x1, 3x3 and 1x1 convolutions, the last with 4 times the filters, instead "
        "of two 3x3; by default false.",
    )
    inner: Annotated[float, Field(gt=0)] = Field(
        default=1.0,
        description="Filters of the convolutions inside a block, except its last, as a multiple of those of its stage.",
    )

    @model_validator(mode="after")
    def _stages_agree(self) -> Options:
        for option in ("blocks", "widths", "bottleneck"):
            if self.variant is not None and getattr(self, option) is not None:
                raise fault_at(
                    (option,), f"`{option}` does nothing beside variant {self.variant}.", "Leave one of them out."
                )
        if self.blocks is not None and self.widths is not None:
            models.check_stages(self.blocks, self.widths)
        return self


def convolves(options: Options) -> bool:
    return True


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return models.list_map_forms(spec)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec)
    image, others = models.require_single_input(features, "resnet", sequences=False)
    blocks, widths, bottleneck = _stages(options)
    block = _bottleneck if bottleneck else _basic
    tensor = models.apply_stem(options, image, widths[0])
    maps = []
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for position in range(count):
            tensor = block(options, tensor, width, 2 if stage > 0 and position == 0 else 1)
        maps.append(tensor)
    return models.build_map_features(tensors, maps, others, requests, partial(models.pool_maps, options))


def _stages(options: Options) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Resolve blocks and widths of each stage, and whether blocks have a bottleneck."""
    if options.variant is not None:
        return _VARIANTS[options.variant], _WIDTHS, options.variant == 50
    count = len(options.blocks or options.widths or (0, 1, 2))
    widths = options.widths or tuple(16 * 2**stage for stage in range(count))
    return options.blocks or (2,) * count, widths, bool(options.bottleneck)


def _basic(options: Options, tensor: Any, width: int, strides: int) -> Any:
    branch = models.apply_convolution(options, tensor, _inner_width(options, width), 3, strides)
    branch = models.apply_convolution(options, branch, width, 3, linear=True, first_scale="zeros")
    return _add_shortcut(options, tensor, branch, strides)


def _bottleneck(options: Options, tensor: Any, width: int, strides: int) -> Any:
    inside = _inner_width(options, width)
    branch = models.apply_convolution(options, tensor, inside)
    # The 3x3 convolution has the strides, not the first one as in the paper, which would skip three quarters of its
    # input.
    branch = models.apply_convolution(options, branch, inside, 3, strides)
    branch = models.apply_convolution(options, branch, _EXPANSION * width, linear=True, first_scale="zeros")
    return _add_shortcut(options, tensor, branch, strides)


def _inner_width(options: Options, width: int) -> int:
    return max(1, round(options.inner * width))


def _add_shortcut(options: Options, tensor: Any, branch: Any, strides: int) -> Any:
    """Add a branch to its shortcut, which is projected where the shapes differ."""
    import keras

    width = branch.shape[-1]
    if strides > 1 or tensor.shape[-1] != width:
        tensor = models.apply_convolution(options, tensor, width, 1, strides, linear=True)
    return models.apply_activation(options.activation, keras.layers.Add()([tensor, branch]))
