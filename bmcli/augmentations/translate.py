"""Random translation of pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import FILL, FillMode, Strength, Transform, transform_with_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random translation along both axes."""

    kind: Literal["translate"] = "translate"
    factor: Strength | tuple[Strength, Strength] = Field(
        default=0.1, description="Largest translation, as a fraction of height and width; or one fraction for each."
    )
    fill_mode: FillMode = Field(default="reflect", description=FILL)


def build(options: Options, column: Column) -> Transform:
    import keras

    factors = options.factor if isinstance(options.factor, tuple) else (options.factor, options.factor)
    layer = keras.layers.RandomTranslation(*factors, fill_mode=options.fill_mode, seed=0, dtype="float32")
    return transform_with_layers(layer)
