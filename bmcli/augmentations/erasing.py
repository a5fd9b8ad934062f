"""Random erasing: a window of a picture filled with one colour (Zhong, Zheng, Kang, Li and Yang 2020)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from bmcli.augmentations import NumberRange, RandomSource, Strength, Transform, check_range, window_mask, window_sizes
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random erasing: a window of some images is filled with one random colour."""

    # Keras' RandomErasing would draw a random number for every pixel of the whole batch on every device.
    kind: Literal["erasing"] = "erasing"
    probability: Strength = Field(default=0.5, description="Fraction of the images that lose a window.")
    scale: NumberRange = Field(
        default=(0.02, 0.33), description="Smallest and largest area of the window, as fractions of the image."
    )
    ratio: NumberRange = Field(
        default=(0.3, 3.3), description="Smallest and largest aspect ratio of the window (width / height)."
    )

    @field_validator("scale", "ratio")
    @classmethod
    def _rises(cls, value: NumberRange, info: ValidationInfo) -> NumberRange:
        return check_range(value, info.field_name or "", 1.0 if info.field_name == "scale" else 100.0)


def build(options: Options, column: Column) -> Transform:
    height, width, channels = column.shape
    (smallest, largest), (narrowest, widest) = options.scale, options.ratio

    def change(pictures: Any, random: RandomSource) -> Any:
        import tensorflow as tf

        chance, area, aspect, down, right = tf.unstack(random.uniform(5), axis=1)
        # Uniform in the logarithm, so that a ratio and its inverse are equally likely.
        aspect = narrowest * (widest / narrowest) ** aspect
        tall, wide = window_sizes(height, width, smallest + (largest - smallest) * area, aspect)
        window = window_mask(height, width, down * (height - tall), right * (width - wide), tall, wide)
        erased = window & (chance < options.probability)[:, None, None, None]
        return tf.where(erased, random.uniform(1, 1, channels), pictures)

    return change
