"""Multilayer perceptron: dense layers over all inputs side by side (Rumelhart, Hinton and Williams 1986)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

from pydantic import Field

from bmcli import models
from bmcli.inputs import Feature
from bmcli.models import VECTOR, Backbone, DenseOptions, FeatureRequest, Features, PeriodicEmbedding, Units
from bmcli.specs import DataSpec


class Options(DenseOptions):
    """Dense layers over all inputs, flattened and concatenated.

    The first choice for tables and small problems. Each layer is a linear map, normalization, activation and dropout.
    """

    WIDTHS: ClassVar = ("hidden",)  # options that channel pruning may reduce
    kind: Literal["mlp"] = Field(default="mlp", description="A multilayer perceptron.")
    hidden: tuple[Units, ...] = Field(
        default=(128, 64), description="Units of each hidden layer; an empty list gives a linear model."
    )
    sequences: Literal["flatten", "mean", "max"] = Field(
        default="flatten",
        description="How a sequence becomes a vector: all steps concatenated, or their mean or maximum.",
    )
    periodic: PeriodicEmbedding = None


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return (VECTOR,)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec, stacked=True)
    tensor = models.concatenate(
        models.to_vectors(features, options.periodic, lambda feature: _vector(options, feature))
    )
    for units in options.hidden:
        tensor = models.apply_dense(options, tensor, units)
    return Backbone(tensors, {VECTOR: Features(tensor)})


def _vector(options: Options, feature: Feature) -> Any:
    from bmcli.layers.step_pooling import StepPooling

    if options.sequences == "flatten" or not models.is_sequence(feature):
        return models.to_vector(feature)
    return StepPooling(options.sequences)(feature.tensor, mask=feature.mask)
