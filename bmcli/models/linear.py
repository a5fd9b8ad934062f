"""Linear model: least squares (Legendre 1805) for numbers, logistic regression (Cox 1958) for categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import models
from bmcli.recipe.fields import Kind, Regularizer
from bmcli.specs import DataSpec

if TYPE_CHECKING:
    import keras


class Options(Kind):
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


def build(options: Options, spec: DataSpec, heads: Mapping[str, int]) -> keras.Model:
    tensors, features = models.create_inputs(spec, stacked=True)
    return models.build_with_heads(
        tensors, models.concatenate(models.to_vectors(features)), heads, options.kernel_regularizer
    )
