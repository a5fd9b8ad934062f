"""Random hue of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import Strength, Transform, require_colours, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random hue of a colour image, one shift per image."""

    kind: Literal["hue"] = "hue"
    factor: Strength = Field(
        default=0.05, description="Largest shift in either direction, as a fraction of half the colour circle."
    )


def build(options: Options, column: Column) -> Transform:
    import keras

    require_colours(column)
    return transform_with_layers(
        keras.layers.RandomHue((0.0, options.factor), value_range=(0, 1), seed=0, dtype="float32")
    )
