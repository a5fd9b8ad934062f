"""The sketches of objectives in docs/extending.md: each trains a small network by its head and loss alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.models import Features
from bmcli.objectives import Batch, TargetObjective
from bmcli.specs import Column
from bmcli.training.augmentation import StatelessRandom

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(
    r"^```python\n# objectives/(\w+)\.py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
SKETCHES = dict(BLOCKS)
ROWS = 6
TOKENS = np.array([[1, 2, 3, 4, 0, 0], [4, 3, 2, 1, 2, 3], [2, 3, 0, 0, 0, 0]] * 2, "int32")
BOXES = np.array(
    [[[0, 0, 0.5, 0.6, 1], [0.4, 0.3, 1, 1, 0]], [[0.1, 0.2, 0.9, 0.8, 0], [0, 0, 0, 0, -1]]] * 3, "float32"
)
DICE = np.random.default_rng(5)

# Features of the form that a sketch needs, its target, and the state of the target; None without a target.
CASES: dict[str, tuple[Any, np.ndarray | None, dict[str, Any]]] = {
    "next_token": ((6, 8), TOKENS, {"tokens": list("-abcd")}),
    "detection": (((8, 8, 4), (4, 4, 6)), BOXES, {"classes": ["cat", "dog"]}),
    "ctc": ((16, 8), TOKENS, {"letters": list("abcd")}),
    "contrastive": ((8,), None, {}),
}


def make_objective(code: str) -> tuple[TargetObjective, dict[str, Any]]:
    """Run a sketch: its objective, with what it leaves out, and its functions."""
    names: dict[str, Any] = {}
    exec(code, names)
    (sketch,) = (each for each in names.values() if isinstance(each, type) and each.__module__ == "builtins")
    whole: Any = type(sketch.__name__, (sketch,), dict.fromkeys(sketch.__abstractmethods__))
    return whole(), names


def test_there_is_a_sketch_of_each_case() -> None:
    assert set(SKETCHES) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_sketch_learns(name: str) -> None:
    keras.utils.set_random_seed(3)
    shapes, target, state = CASES[name]
    objective, functions = make_objective(SKETCHES[name])
    inputs = tuple(map(keras.Input, shapes)) if isinstance(shapes[0], tuple) else keras.Input(shapes)
    if target is None:
        output, column = functions["describe_inputs"](None, "goal", [Column("0", "number", shapes, "float32")])
        assert functions["TARGETS"] == ()
        assert output.inputs == ("0",)
    else:
        column = Column("goal", "any", target.shape[1:], target.dtype.name, state=state)
    network = keras.Model(inputs, functions["build_head"](None, column, Features(inputs)))
    values = [tf.constant(DICE.normal(size=(ROWS, *each.shape[1:])), tf.float32) for each in network.inputs]
    learned = {"0": values[0]} if target is None else tf.constant(target)
    optimizer, losses = keras.optimizers.Adam(0.05), []
    for step in range(60):
        draws = StatelessRandom(1, name, step, ROWS, None)
        batch = objective.prepare(Batch({str(i): each for i, each in enumerate(values)}, learned), draws, True)
        with tf.GradientTape() as tape:
            given = [batch.inputs[str(position)] for position in range(len(values))]
            merged = [tf.reshape(each, (-1, *each.shape[-1:])) for each in given] if objective.views > 1 else given
            output = network(merged if len(merged) > 1 else merged[0])
            if objective.views > 1:
                output = tf.reshape(output, (ROWS, objective.views, -1))
            by_example = objective.loss(batch.target, output)
            units = objective.count_units(batch.target)
            loss = tf.reduce_sum(by_example) / tf.reduce_sum(units)
        assert by_example.shape == units.shape == (ROWS,)
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.85 * losses[0]
