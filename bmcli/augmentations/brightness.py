"""Random brightness of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import Strength, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random brightness, one shift per image."""

    kind: Literal["brightness"] = "brightness"
    factor: Strength = Field(default=0.1, description="Largest shift, as a fraction of the pixel range.")


def build(options: Options, column: Column) -> Transform:
    import keras

    return transform_with_layers(
        keras.layers.RandomBrightness(options.factor, value_range=(0, 1), seed=0, dtype="float32")
    )
