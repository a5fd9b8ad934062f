"""Random shear of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import FILL, FillMode, Strength, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random shear along both axes."""

    kind: Literal["shear"] = "shear"
    factor: Strength = Field(
        default=0.1, description="Largest offset of a row relative to the next one, in pixels; the same for columns."
    )
    fill_mode: FillMode = Field(default="reflect", description=FILL)


def build(options: Options, column: Column) -> Transform:
    import keras

    layer = keras.layers.RandomShear(
        options.factor, options.factor, fill_mode=options.fill_mode, seed=0, dtype="float32"
    )
    return transform_with_layers(layer)
