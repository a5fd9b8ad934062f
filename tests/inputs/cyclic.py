"""Numbers that repeat, such as hours or angles: a complete kind of input as users write one."""

import sys
from functools import cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bmcli.inputs import Feature, Guess, InputTraits
from bmcli.raw_columns import to_numbers
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column


class Options(InputOptions):
    """A number that repeats, such as an hour or an angle, as the sine and cosine of its phase."""

    kind: Literal["cyclic"] = "cyclic"
    period: Annotated[float, Field(gt=0)] = Field(default=24.0, description="Length of a cycle.")


class CyclicTraits(InputTraits):
    noun = "a number that repeats"
    preprocessing = "arithmetic"

    def summarize(self):
        return f"cycles of {self.column.state['period']:g}"


def guess(cells):
    if cells.shape or "hour" not in cells.name or not cells.is_numeric:
        return None
    is_hour = len(cells.numbers) and cells.numbers.min() >= 0 and 22 < cells.numbers.max() < 24
    return Guess("cyclic", 1.0, "hours of a day") if is_hour else None


def fit(name, rows, options):
    check(rows, options)
    return Column(name, "cyclic", (2,), "float32", state={"period": options.period})


def check(rows, options):
    to_numbers(rows)


def encode(rows, column):
    return build_encoder(column)(to_numbers(rows).astype("float32")).numpy()


def build_encoder(column):
    return make_layer()(column.state["period"])


def build_feature(column, encoded):
    return Feature(column, encoded)


def get_traits(column):
    return CyclicTraits(column)


@cache
def make_layer():
    import keras

    class CyclicEncoder(keras.layers.Layer):
        def __init__(self, period, **kwargs):
            super().__init__(**{**kwargs, "autocast": False, "trainable": False})
            self.period = period

        def call(self, numbers):
            phase = numbers * (2 * np.pi / self.period)
            circle = keras.ops.stack([keras.ops.sin(phase), keras.ops.cos(phase)], axis=-1)
            return keras.ops.where(keras.ops.isnan(circle), 0.0, circle)  # a missing number is the centre

        def get_config(self):
            return {**super().get_config(), "period": self.period}

    return CyclicEncoder


PARTS = {"inputs.cyclic": sys.modules[__name__]}
