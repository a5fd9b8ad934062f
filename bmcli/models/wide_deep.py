"""A linear model and a network, trained jointly, for tables (Cheng et al. 2016, "Wide and deep learning")."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from bmcli import models, parts
from bmcli.errors import BmcliError, Fault
from bmcli.inputs import Feature
from bmcli.models import VECTOR, Backbone, DenseOptions, FeatureRequest, Features, PeriodicEmbedding, Units
from bmcli.quoting import quoted
from bmcli.recipe.fields import Regularizer
from bmcli.specs import DataSpec


class Options(DenseOptions):
    """Wide & deep: a linear model and dense layers, trained jointly; their outputs are added.

    For tables with many categories and crosses: the linear model memorises each of them, the dense layers generalise.
    `wide` and `deep` select the columns of each part.
    """

    WIDTHS: ClassVar = ("hidden",)  # options that channel pruning may reduce
    kind: Literal["wide_deep"] = Field(default="wide_deep", description="A linear model and a network together.")
    wide: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Columns of the linear model; by default all."
    )
    deep: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Columns of the dense layers; by default all."
    )
    wide_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of the linear model's weights, such as {kind: l1, l1: 1e-4}."
    )
    hidden: tuple[Units, ...] = Field(default=(128, 64), min_length=1, description="Units of each dense layer.")
    periodic: PeriodicEmbedding = None


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return (VECTOR,)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec, stacked=options.wide is None and options.deep is None)
    _check_columns(options, [feature.column.name for feature in features])
    wide = models.concatenate(models.to_vectors(_select(features, options.wide)))
    deep = models.concatenate(models.to_vectors(_select(features, options.deep), options.periodic))
    for units in options.hidden:
        deep = models.apply_dense(options, deep, units)

    def build_head(width: int) -> Any:
        import keras

        add = keras.layers.Add(dtype="float32")  # the heads have float32 outputs even in mixed precision
        return add([models.apply_linear(wide, width, options.wide_regularizer), models.apply_linear(deep, width)])

    return Backbone(tensors, {VECTOR: Features(models.concatenate([wide, deep]), linear=build_head)})


def _select(features: Sequence[Feature], names: Sequence[str] | None) -> list[Feature]:
    return [feature for feature in features if names is None or feature.column.name in names]


def _check_columns(options: Options, columns: Sequence[str]) -> None:
    """Refuse names that are not inputs, and inputs that neither part reads."""
    faults = [
        Fault(f"no input {quoted(name)}.", f"model.{side}.{position}", suggestion=parts.did_you_mean(name, columns))
        for side in ("wide", "deep")
        for position, name in enumerate(getattr(options, side) or ())
        if name not in columns
    ]
    if not faults and options.wide is not None and options.deep is not None:
        faults = [
            Fault(
                f"neither `wide` nor `deep` reads the input {quoted(name)}.",
                "model",
                suggestion="Name it in `wide` or `deep`, or leave it out of data.inputs.",
            )
            for name in columns
            if name not in {*options.wide, *options.deep}
        ]
    if faults:
        raise BmcliError(*faults)
