"""Random flips of pictures, each with probability 0.5."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random flip, horizontally, vertically or both."""

    kind: Literal["flip"] = "flip"
    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = Field(
        default="horizontal", description="Direction of the flip: horizontal, vertical, or both independently."
    )


def build(options: Options, column: Column) -> Transform:
    import keras

    modes = ("horizontal", "vertical") if options.mode == "horizontal_and_vertical" else (options.mode,)
    # For both directions Keras' layer draws only once: pictures would be flipped in both, or in none.
    return transform_with_layers(*(keras.layers.RandomFlip(mode, seed=0, dtype="float32") for mode in modes))
