"""Random noise on numbers (Bishop 1995, "Training with noise is equivalent to Tikhonov regularization")."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli import inputs
from bmcli.augmentations import RandomSource, Transform, require_scale
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("number",)
MIXES = False


class Options(Kind):
    """Gaussian noise on every number."""

    kind: Literal["noise"] = "noise"
    stddev: Annotated[float, Field(gt=0)] = Field(
        default=0.1,
        description="Standard deviation of the noise, relative to the scaled numbers (1 with `scale: standard`).",
    )


def build(options: Options, column: Column) -> Transform:
    require_scale(column, options.kind)
    width = column.shape[-1]
    # The flags of missing values, which follow the numbers, get no noise.
    count = width - inputs.get_traits(column).flags

    def change(numbers: Any, random: RandomSource) -> Any:
        import tensorflow as tf

        noise = options.stddev * random.normal(count)
        return numbers + tf.pad(noise, [[0, 0], [0, width - count]])

    return change
