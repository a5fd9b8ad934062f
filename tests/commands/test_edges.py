"""Edge cases of data: one row, one class, constant columns. All numbers are valid JSON, and no raw warning appears."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bmcli import records

from .conftest import Bmcli

RECIPE = """\
bmcli: 1
name: edge
data:
  source: {kind: npz, path: edge.npz}
  inputs: {x: {kind: number}}
  targets: {y: {kind: TARGET}}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false, optimizer: {kind: sgd, learning_rate: 1e-30}}
runtime: {jit: false}
"""
_DICE = np.random.default_rng(0)
_NUMBERS = _DICE.normal(size=40)

EDGES = {
    "a constant input": ("category", np.full(40, 5.0), np.arange(40) % 2, np.arange(20) % 2),
    "a constant target of the test": ("number", _NUMBERS, _NUMBERS, np.full(9, 5.0)),
    "one row of numbers": ("number", _NUMBERS, _NUMBERS, np.ones(1)),
    "one row of a class": ("category", _NUMBERS, np.arange(40) % 3, np.ones(1, int)),
    "one class": ("category", _NUMBERS, np.arange(40) % 2, np.ones(9, int)),
    "one grade": ("ordered", _NUMBERS, np.arange(40) % 3, np.ones(9, int)),
    "one row of a grade": ("ordered", _NUMBERS, np.arange(40) % 3, np.ones(1, int)),
    "one row of counts": ("count", _NUMBERS, np.arange(40) % 4, np.zeros(1, int)),
}


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
@pytest.mark.parametrize("edge", EDGES)
def test_every_figure_of_data_at_its_edge_is_finite(bmcli: Bmcli, tmp_path: Path, edge: str) -> None:
    target, inputs, trained, tested = EDGES[edge]
    test_inputs = np.full(len(tested), 5.0) if edge == "a constant input" else _DICE.normal(size=len(tested))
    validation = np.arange(12) % 2
    np.savez(
        tmp_path / "edge.npz",
        x_train=inputs, x_validation=np.resize(inputs, 12), x_test=test_inputs,
        y_train=trained, y_validation=validation.astype(trained.dtype), y_test=tested.astype(trained.dtype),
    )  # fmt: skip
    (tmp_path / "edge.yaml").write_text(RECIPE.replace("TARGET", target))
    for command in (("train", "edge.yaml"), ("evaluate", "edge"), ("report", "edge"), ("compare", "edge", "copy")):
        if command[0] == "compare":
            bmcli("train", "edge.yaml", "name=copy", "--json")
        done = bmcli(*command, "--json")
        assert done.code == 0, (command, done.err)
        json.dumps(done.json(), allow_nan=False)
        assert "Warning" not in done.err
    run = tmp_path / "runs" / "edge" / "latest"
    for file in run.glob("*.json"):
        records.parse_json(file.read_bytes())
    assert bmcli("evaluate", "edge").code == 0
