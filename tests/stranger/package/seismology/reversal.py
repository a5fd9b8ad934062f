"""Random reversal of traces in time, with which marks are reversed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bmcli.augmentations import MovingTransform
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("trace",)
MIXES = False


class Options(Kind):
    """Reversal of some traces, with their marks."""

    kind: Literal["reversal"] = "reversal"
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the traces that are reversed.")


class Reversal(MovingTransform):
    """Reversal of the readings of some traces."""

    TARGETS = ("marks",)

    def __init__(self, share: float) -> None:
        self._share = share

    def change(self, values: Any, targets: Mapping[str, Any], random: Any) -> tuple[Any, Mapping[str, Any]]:
        import tensorflow as tf

        is_reversed = random.uniform() < self._share
        lengths = tf.cast(tf.reduce_sum(values[..., 1], axis=1), "int32")

        def reverse(each: Any) -> Any:
            mask = tf.reshape(is_reversed, [-1] + [1] * (len(each.shape) - 1))
            return tf.where(mask, tf.reverse_sequence(each, lengths, seq_axis=1), each)

        return reverse(values), {name: reverse(target) for name, target in targets.items()}


def build(options: Options, column: Column) -> Reversal:
    return Reversal(options.share)
