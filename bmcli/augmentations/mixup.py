"""Examples mixed with others of their batch (Zhang, Cisse, Dauphin and Lopez-Paz 2018, "mixup")."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli.augmentations import Dice, Mix
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("image", "number")
MIXES = True


class Options(Kind):
    """A share of one example and the rest of another; the loss is that of both targets, by the same shares.

    The larger share is the example's own. Every input that names it is mixed with the same example by the same share;
    the others stay.
    """

    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.2, description="Of the beta distribution of the shares: the larger, the more even."
    )


def build(options: Options, column: Column) -> Mix:
    def mix(own: Any, other: Any, dice: Dice) -> tuple[Any, Any]:
        import tensorflow as tf

        drawn = dice.beta(options.alpha)
        share = tf.maximum(drawn, 1.0 - drawn)
        by_example = tf.reshape(share, [-1] + [1] * (len(own.shape) - 1))
        mixed = by_example * own + (1.0 - by_example) * other
        # What stands for a missing number is no number.
        return tf.where(tf.math.is_nan(mixed), own, mixed), share

    return mix
