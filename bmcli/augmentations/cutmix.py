"""CutMix: a window of one picture in another (Yun, Han, Oh, Chun, Choe and Yoo 2019)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli.augmentations import Mixer, RandomSource, window_mask
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image",)
MIXES = True


class Options(Kind):
    """CutMix: a window shows another image of the batch; the losses of both targets are weighted by area."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: Annotated[float, Field(gt=0, le=10)] = Field(
        default=1.0, description="Parameter of the beta distribution of the areas; larger values mix more evenly."
    )


def build(options: Options, column: Column) -> Mixer:
    height, width, _ = column.shape

    def mix(own: Any, other: Any, random: RandomSource) -> tuple[Any, Any]:
        import tensorflow as tf

        drawn = random.beta(options.alpha)
        side = tf.sqrt(tf.minimum(drawn, 1.0 - drawn))  # side of the window; the picture keeps the larger area
        down, right = tf.unstack(random.uniform(2), axis=1)
        tall, wide = side * height, side * width
        # The centre of the window is anywhere in the picture, so that the border may cut the window: the share is
        # computed from the pixels that are left.
        window = window_mask(height, width, down * height - tall / 2, right * width - wide / 2, tall, wide)
        share = 1.0 - tf.reduce_mean(tf.cast(window, tf.float32), axis=(1, 2, 3))
        return tf.where(window, other, own), share

    return mix
