"""Pictures moved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import FILL, Change, FillMode, Strength, by_layers
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Moved by up to a share of their height and width."""

    kind: Literal["translate"] = "translate"
    factor: Strength | tuple[Strength, Strength] = Field(
        default=0.1, description="Share of height and width, at most; or one for each of them."
    )
    fill_mode: FillMode = Field(default="reflect", description=FILL)


def build(options: Options, column: Column) -> Change:
    import keras

    factors = options.factor if isinstance(options.factor, tuple) else (options.factor, options.factor)
    layer = keras.layers.RandomTranslation(*factors, fill_mode=options.fill_mode, seed=0, dtype="float32")
    return by_layers(layer)
