"""Functions that all families share."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bmcli import models, parts
from bmcli.models import mlp
from tests.models.fakes import build_network, category, column, spec


def test_options_cost_no_tensorflow() -> None:
    program = """
import sys
from bmcli import parts
for room in ("models", "objectives"):
    assert parts.names(room)
    for kind in parts.names(room):
        parts.load(room, kind)
heavy = {"tensorflow", "keras", "numpy", "pyarrow", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "name", ["dense", "dense_2", "activation_1", "rows/second", "rows_second", "mean", "größe (m²)"]
)
def test_any_column_name_will_do(name: str) -> None:
    data = spec(column(name, (3,)), column("flatten", (2, 2)), targets=(category("is/red"), category(name)))
    network = build_network(mlp, mlp.Options(), data)
    outputs = network({name: tf.zeros((2, 3)), "flatten": tf.zeros((2, 2, 2))})
    assert set(outputs) == {"is/red", name}


def test_pairs_are_made_of_single_numbers() -> None:
    assert models.to_pair(3) == (3, 3)
    assert models.to_pair((3, 5)) == (3, 5)


def test_every_option_is_described() -> None:
    for room in ("models", "objectives"):
        for kind in parts.names(room):
            options = parts.load(room, kind).Options
            assert options.__doc__
            assert [name for name, field in options.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("kind", "rows", "options", "expected"),
    [
        ("number", np.arange(9.0), {}, True),
        ("number", np.ones((9, 2)) * np.arange(9)[:, None], {"flag": True}, True),
        ("number", np.arange(9.0), {"bins": 3}, False),
        ("number", np.arange(18.0).reshape(9, 2, 1), {}, False),
        ("boolean", np.arange(9) % 2, {}, False),
        ("date", np.arange(9) * 1e6, {"format": "seconds"}, False),
        ("category", np.arange(9), {}, False),
        ("text", pa.chunked_array([["one", "two", "three"] * 3]), {"encoding": "bag"}, False),
    ],
)
def test_numbers_are_those_on_a_scale(
    kind: str, rows: Any, options: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the fake columns
    part = parts.load("inputs", kind)
    _, (feature,) = models.create_inputs(spec(part.fit("x", rows, part.Options(**options))))
    assert models.is_number(feature) is expected
