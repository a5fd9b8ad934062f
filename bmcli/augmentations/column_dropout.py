"""Random missing values, so that a network does not rely on a single column."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bmcli import inputs
from bmcli.augmentations import RandomSource, Transform, require_vectors
from bmcli.raw_columns import RowFault
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

INPUTS = ("number",)
MIXES = False


class Options(Kind):
    """Replace whole cells of random examples by missing values, missing flag included."""

    kind: Literal["column_dropout"] = "column_dropout"
    rate: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.1, description="Fraction of the examples.")


def build(options: Options, column: Column) -> Transform:
    import numpy as np

    require_vectors(column, options.kind)
    # The encoding of a missing cell: the fill value, and the missing flag if the column has one.
    raw = np.full((1, *(side or 1 for side in column.raw_shape)), np.nan)
    try:
        missing = inputs.kind_of(column).encode(raw, column)
    except RowFault:  # the column refuses missing values: 0, the centre of scaled numbers, is used instead
        missing = np.zeros((1, *column.shape), "float32")

    def change(numbers: Any, random: RandomSource) -> Any:
        import tensorflow as tf

        return tf.where(random.uniform(1) < options.rate, missing, numbers)

    return change
