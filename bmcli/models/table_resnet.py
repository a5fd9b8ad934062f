"""Residual network for tables (Gorishniy, Rubachev, Khrulkov and Babenko 2021)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bmcli import models
from bmcli.models import (
    VECTOR,
    Backbone,
    DenseOptions,
    DropoutRate,
    FeatureRequest,
    Features,
    PeriodicEmbedding,
    Size,
    Units,
)
from bmcli.specs import DataSpec


class Options(DenseOptions):
    """ResNet for tables: blocks of two dense layers with shortcuts over all inputs, flattened and concatenated.

    For tables of a few thousand rows and more: it can be deeper than an `mlp` and costs a fraction of an
    `ft_transformer`. A block is normalization, dense layer, activation, dropout, dense layer.
    """

    WIDTHS: ClassVar = ("ratio",)  # options that channel pruning may reduce
    NORMALIZES_WHOLE: ClassVar = True  # normalization is between blocks, whose units are never pruned
    kind: Literal["table_resnet"] = Field(default="table_resnet", description="A residual network for tables.")
    width: Units = Field(default=128, description="Units between blocks.")
    depth: Size = Field(default=3, description="Blocks.")
    ratio: Annotated[float, Field(gt=0)] = Field(
        default=2.0, description="Units inside a block, as a multiple of `width`."
    )
    normalization: Literal["batch", "layer"] | None = Field(
        default="batch",
        description="Normalization at the start of each block and before the output: batch (Ioffe and Szegedy 2015), "
        "layer (Ba et al. 2016), or null.",
    )
    dropout: DropoutRate = Field(default=0.1, description="Dropout rate inside a block.")
    residual_dropout: DropoutRate = Field(default=0.0, description="Dropout rate of the output of a block.")
    periodic: PeriodicEmbedding = None


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return (VECTOR,)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec, stacked=True)
    tensor = _dense(options, models.concatenate(models.to_vectors(features, options.periodic)), options.width)
    for _ in range(options.depth):
        tensor = _block(options, tensor)
    tensor = models.apply_activation(options.activation, models.apply_normalization(options, tensor))
    return Backbone(tensors, {VECTOR: Features(tensor)})


def _block(options: Options, tensor: Any) -> Any:
    import keras

    branch = _dense(options, models.apply_normalization(options, tensor), max(1, round(options.width * options.ratio)))
    branch = models.apply_dropout(options, models.apply_activation(options.activation, branch))
    branch = _dense(options, branch, options.width)
    if options.residual_dropout:
        branch = keras.layers.Dropout(options.residual_dropout)(branch)
    return keras.layers.Add()([tensor, branch])


def _dense(options: Options, tensor: Any, units: int) -> Any:
    import keras

    return keras.layers.Dense(units, **models.kernel_arguments(options))(tensor)
