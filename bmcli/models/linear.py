"""Linear model: least squares (Legendre 1805) for numbers, logistic regression (Cox 1958) for categories."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Literal

from pydantic import Field

from bmcli import models
from bmcli.models import VECTOR, Backbone, FeatureRequest, Features
from bmcli.recipe.fields import Regularizer
from bmcli.recipe.model import ModelOptions
from bmcli.specs import DataSpec


class Options(ModelOptions):
    """A weighted sum of all inputs, flattened and concatenated.

    A baseline for any network, and a good choice for a few hundred rows or for bags of words. With l2 it is ridge
    regression (Hoerl and Kennard 1970), with l1 the lasso (Tibshirani 1996).
    """

    kind: Literal["linear"] = Field(default="linear", description="A linear model.")
    kernel_regularizer: Regularizer | None = Field(
        default=None, description="Keras regularizer of the weights, such as {kind: l2, l2: 1e-3}."
    )


def convolves(options: Options) -> bool:
    return False


def forms(options: Options, spec: DataSpec) -> tuple[FeatureRequest, ...]:
    return (VECTOR,)


def build(options: Options, spec: DataSpec, requests: Collection[FeatureRequest]) -> Backbone:
    tensors, features = models.create_inputs(spec, stacked=True)
    vector = models.concatenate(models.to_vectors(features))
    head = partial(models.apply_linear, vector, regularizer=options.kernel_regularizer)
    return Backbone(tensors, {VECTOR: Features(vector, linear=head)})
