"""Random saturation of pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bmcli.augmentations import Transform, require_colours, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random saturation of a colour image, one factor per image."""

    kind: Literal["saturation"] = "saturation"
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="Range of the saturation factor: f means (1 - f) / (1 + f) to (1 + f) / (1 - f)."
    )


def build(options: Options, column: Column) -> Transform:
    import keras

    require_colours(column)
    span = ((1 - options.factor) / 2, (1 + options.factor) / 2)  # for a factor x Keras multiplies by x / (1 - x)
    return transform_with_layers(keras.layers.RandomSaturation(span, value_range=(0, 1), seed=0, dtype="float32"))
