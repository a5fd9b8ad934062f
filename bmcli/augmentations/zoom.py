"""Random zoom of pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bmcli.augmentations import FILL, FillMode, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random zoom; the aspect ratio is kept."""

    kind: Literal["zoom"] = "zoom"
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="Range of the zoom: 0.1 means 10 % larger to 10 % smaller."
    )
    fill_mode: FillMode = Field(default="reflect", description=FILL)


def build(options: Options, column: Column) -> Transform:
    import keras

    layer = keras.layers.RandomZoom(options.factor, fill_mode=options.fill_mode, seed=0, dtype="float32")
    return transform_with_layers(layer)
