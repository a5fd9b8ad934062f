"""Random contrast of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import Strength, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random contrast: pixels move towards or away from the channel's mean."""

    kind: Literal["contrast"] = "contrast"
    factor: Strength = Field(default=0.2, description="Range of the contrast factor: 0.2 means 0.8 to 1.2.")


def build(options: Options, column: Column) -> Transform:
    import keras

    return transform_with_layers(
        keras.layers.RandomContrast(options.factor, value_range=(0, 1), seed=0, dtype="float32")
    )
