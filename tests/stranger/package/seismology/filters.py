"""Filters along a trace: convolutions that keep its steps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from bmcli import models
from bmcli.models import STEPS, Backbone, FeatureRequest, Features
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec


class Options(ModelOptions):
    """Convolutions along one sequence, each over three steps."""

    kind: Literal["filters"] = Field(default="filters", description="Convolutions along a trace.")
    width: int = Field(default=16, ge=1, description="Channels of each convolution.")
    depth: int = Field(default=2, ge=1, description="Number of convolutions.")


def convolves(options: Options) -> bool:
    return True


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    """List the features: those of each step, of one sequence."""
    return () if models.find_single_input(spec, sequences=True) is None else (STEPS,)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    """Build the steps of one sequence, `(batch, steps, width)`, which the other inputs join."""
    import keras

    tensors, features = models.create_inputs(spec)
    sequence, others = models.require_single_input(features, "filters", sequences=True)
    tensor = models.append_inputs(sequence.tensor, others)
    for _ in range(options.depth):
        tensor = keras.layers.Conv1D(options.width, 3, padding="same", activation="tanh")(tensor)
        if sequence.mask is not None:
            tensor = tensor * keras.ops.cast(keras.ops.expand_dims(sequence.mask, -1), tensor.dtype)
    return Backbone(tensors, models.build_requested(requests, {STEPS: lambda: Features(tensor, sequence.mask)}))
