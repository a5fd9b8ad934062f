"""Small columns and what opens them, so that families are tested without data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from bmcli import parts
from bmcli.inputs import Feature, InputTraits
from bmcli.models import VECTOR, build_linear_head, create_keras_model
from bmcli.objectives import describe_outputs
from bmcli.recipe.fields import PartField
from bmcli.specs import Column, DataSpec

CLASSES = ("red", "green", "blue")


def column(name: str, shape: tuple[int, ...], dtype: str = "float32", **state: Any) -> Column:
    """An input; with `padding=x`, steps that start with x are padding; with `codes=n`, integers below n.

    Vectors of floats are numbers.
    """
    kind = "number" if len(shape) == 1 and dtype.startswith("float") else "fake"
    return Column(name, kind, shape, dtype, raw_shape=shape, raw_dtype=dtype, state=state)


def category(name: str = "label", classes: tuple[str, ...] = CLASSES) -> Column:
    return Column(name, "category", (), "int32", classes=classes)


def number(name: str = "price", mean: float = 0.0, scale: float = 1.0) -> Column:
    return Column(name, "number", (), "float32", state={"mean": mean, "scale": scale})


def spec(*inputs: Column, targets: tuple[Column, ...] = (category(),)) -> DataSpec:
    data = DataSpec(tuple(inputs), targets, {"train": 8, "validation": 0, "test": 0}, "", "")
    usual = {each.name: parts.load("data.targets", each.kind).OBJECTIVE for each in targets}
    return describe_outputs({name: PartField("objectives").check(kind) for name, kind in usual.items()}, data)


def build_network(family: Any, options: Any, data: DataSpec) -> keras.Model:
    """The backbone of a family with a linear head for each target."""
    backbone = family.build(options, data, (VECTOR,))
    outputs = {
        target.name: build_linear_head(backbone.find_features(target.name, VECTOR), len(target.classes) or 1)
        for target in data.targets
    }
    return create_keras_model(backbone.inputs, outputs)


def kind_of(opened: Column) -> Any:
    """Replace `bmcli.inputs.kind_of`."""
    return SimpleNamespace(build_feature=_feature, get_traits=_Traits)


class _Traits(InputTraits):
    @property
    def is_number(self) -> bool:
        return self.column.kind == "number"


def _feature(opened: Column, encoded: Any) -> Feature:
    from keras import ops

    mask = None
    if "padding" in opened.state:
        mask = ops.not_equal(encoded[:, :, 0], opened.state["padding"])
    if "codes" in opened.state:
        return Feature(opened, ops.one_hot(encoded, opened.state["codes"]))
    return Feature(opened, ops.cast(encoded, "float32"), mask)


def batch(data: DataSpec, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Encoded rows: normal numbers, or codes."""
    random = np.random.default_rng(seed)
    return {
        c.name: random.integers(0, c.state["codes"], (size, *c.shape)).astype(c.dtype)
        if "codes" in c.state
        else random.normal(size=(size, *c.shape)).astype(c.dtype)
        for c in data.inputs
    }
