"""Pictures mirrored, each with a chance of one half."""

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
    # Keras' layer for both draws one chance for the two.
    return transform_with_layers(*(keras.layers.RandomFlip(mode, seed=0, dtype="float32") for mode in modes))
