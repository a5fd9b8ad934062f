"""Windows of a series in a file: a kind of input whose rows share one array."""

import sys
from functools import cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bmcli.inputs import Feature, InputTraits
from bmcli.raw_columns import RowFault, to_numbers
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import Column
from bmcli.windows import WindowedArray


class Options(InputOptions):
    """A position in a series; the network sees the steps before it."""

    kind: Literal["series"] = "series"
    file: str = Field(description="NPY file of the series, `(steps,)`.")
    steps: Annotated[int, Field(ge=1)] = Field(default=24, description="Number of steps before the position.")


class SeriesTraits(InputTraits):
    noun = "the last numbers of a series"
    preprocessing = "arithmetic"

    def read_array(self, rows):
        return np.asarray(cut(rows, self.column.state["file"], self.column.shape[0]))

    def make_missing_cell(self, cell):
        return None


def cut(rows, file, steps):
    """Cut the series into the windows that end before the positions of some rows."""
    series, positions = np.load(file, mmap_mode="r"), to_numbers(rows)
    wrong = ~((positions >= steps) & (positions <= len(series)))
    if wrong.any():
        raise RowFault(int(wrong.argmax()), f"expected a position from {steps} to {len(series)}.")
    return WindowedArray(series, positions.astype("int64") - steps, steps)


def guess(cells):
    return None


def check(rows, options):
    cut(rows, options.file, options.steps)


def fit(name, rows, options):
    windows = cut(rows, options.file, options.steps)
    values = windows.base[windows.find_used_steps()]  # of training rows alone
    state = {"file": options.file, "mean": float(values.mean()), "scale": float(values.std())}
    return Column(name, "series", (options.steps,), "float32", (options.steps,), state=state)


def encode(rows, column):
    windows, state = cut(rows, column.state["file"], column.shape[0]), column.state
    values = (windows.base.astype("float32") - np.float32(state["mean"])) / np.float32(state["scale"])
    return WindowedArray(values, windows.starts, windows.length)


def build_encoder(column):
    return make_layer()(column.state["mean"], column.state["scale"])


def build_feature(column, encoded):
    return Feature(column, encoded)


def get_traits(column):
    return SeriesTraits(column)


@cache
def make_layer():
    import keras

    class SeriesEncoder(keras.layers.Layer):
        def __init__(self, mean, scale, **kwargs):
            super().__init__(**{**kwargs, "autocast": False, "trainable": False})
            self.mean, self.scale = mean, scale

        def call(self, numbers):
            return (numbers - self.mean) / self.scale

        def get_config(self):
            return {**super().get_config(), "mean": self.mean, "scale": self.scale}

    return SeriesEncoder


PARTS = {"inputs.series": sys.modules[__name__]}
