"""Mixup: examples mixed with others of their batch (Zhang, Cisse, Dauphin and Lopez-Paz 2018)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli import inputs
from bmcli.augmentations import Mixer, RandomSource, require_scale
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image", "number")
MIXES = True


class Options(Kind):
    """Mixup: a convex combination of two examples; the losses of both targets are weighted alike.

    The larger weight is the example's own. All inputs that list mixup are mixed with the same partner and the same
    weight; the others remain unchanged.
    """

    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.2, description="Parameter of the beta distribution of the weights; larger values mix more evenly."
    )


def build(options: Options, column: Column) -> Mixer:
    if inputs.kind_of(column).Options.AUGMENTED_AS == "number":
        require_scale(column, options.kind)

    def mix(own: Any, other: Any, random: RandomSource) -> tuple[Any, Any]:
        import tensorflow as tf

        drawn = random.beta(options.alpha)
        share = tf.maximum(drawn, 1.0 - drawn)
        expanded = tf.reshape(share, [-1] + [1] * (len(own.shape) - 1))
        mixed = expanded * own + (1.0 - expanded) * other
        # NaN stands for a missing number that the network fills: it cannot be mixed.
        return tf.where(tf.math.is_nan(mixed), own, mixed), share

    return mix
