"""Colours turned around the circle of colours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmcli.augmentations import Change, Strength, by_layers, require_colours
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """The hue of a colour picture, all pixels alike."""

    kind: Literal["hue"] = "hue"
    factor: Strength = Field(default=0.05, description="Share of half the circle of colours, at most, either way.")


def build(options: Options, column: Column) -> Change:
    import keras

    require_colours(column)
    return by_layers(keras.layers.RandomHue((0.0, options.factor), value_range=(0, 1), seed=0, dtype="float32"))
