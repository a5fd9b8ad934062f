"""Random windows of pictures, resized to the size of the picture."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from bmcli.augmentations import NumberRange, RandomSource, Transform, check_range, window_sizes
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = False


class Options(Kind):
    """Random resized crop: random area, aspect ratio and position (Szegedy et al. 2015)."""

    kind: Literal["crop"] = "crop"
    scale: NumberRange = Field(
        default=(0.5, 1.0), description="Smallest and largest area of the window, as fractions of the image."
    )
    ratio: NumberRange = Field(
        default=(0.75, 4 / 3),
        description="Smallest and largest aspect ratio (width / height), relative to that of the image.",
    )

    @field_validator("scale", "ratio")
    @classmethod
    def _rises(cls, value: NumberRange, info: ValidationInfo) -> NumberRange:
        return check_range(value, info.field_name or "", 1.0 if info.field_name == "scale" else 100.0)


def build(options: Options, column: Column) -> Transform:
    height, width = column.shape[:2]
    (smallest, largest), (narrowest, widest) = options.scale, options.ratio

    def change(pictures: Any, random: RandomSource) -> Any:
        import tensorflow as tf

        area, aspect, down, right = tf.unstack(random.uniform(4), axis=1)
        # Uniform in the logarithm, so that a ratio and its inverse are equally likely.
        aspect = narrowest * (widest / narrowest) ** aspect
        tall, wide = window_sizes(1, 1, smallest + (largest - smallest) * area, aspect)
        top, left = down * (1 - tall), right * (1 - wide)
        boxes = tf.stack([top, left, top + tall, left + wide], axis=1)
        return tf.image.crop_and_resize(pictures, boxes, tf.range(tf.shape(pictures)[0]), (height, width))

    return change
