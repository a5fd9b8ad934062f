"""Random rotation of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import FILL, FillMode, Strength, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random rotation in either direction."""

    kind: Literal["rotate"] = "rotate"
    factor: Strength = Field(
        default=0.05, description="Largest rotation, as a fraction of a full turn: 0.05 is 18 degrees."
    )
    fill_mode: FillMode = Field(default="reflect", description=FILL)


def build(options: Options, column: Column) -> Transform:
    import keras

    layer = keras.layers.RandomRotation(options.factor, fill_mode=options.fill_mode, seed=0, dtype="float32")
    return transform_with_layers(layer)
