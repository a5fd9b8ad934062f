"""Combinations of categories, from the recipe to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from bmcli import models
from bmcli.data.preparation import prepare
from bmcli.errors import BmcliError
from bmcli.layers.cross import Cross
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import PartField
from bmcli.specs import PreparedData
from tests.models.fakes import build_network

TABLE = "split,a,b,n,y\n" + "".join(
    f"{split},{a},{b},{n},{int((a == 'x') != (b == 'u'))}\n"
    for split in ("train",) * 4 + ("test",)
    for n, (a, b) in enumerate([("x", "u"), ("x", "v"), ("y", "u"), ("y", "v")])
)
INPUTS = {"a": {"kind": "category"}, "b": {"kind": "category"}, "n": {"kind": "number", "bins": 4}}


def options(**data: Any) -> DataOptions:
    described = {"source": {"kind": "csv", "path": "t.csv"}, "split": {"column": "split"}, "inputs": INPUTS, **data}
    return DataOptions.model_validate({"targets": {"y": {"kind": "category"}}, **described}, strict=False)


def prepared(folder: Path, *crosses: dict[str, Any], **data: Any) -> PreparedData:
    (folder / "t.csv").write_text(TABLE)
    source = {"kind": "csv", "path": str(folder / "t.csv")}
    data_options = options(source=source, crosses=crosses, **data)
    return prepare(data_options, {"y": PartField("data.targets").check({"kind": "category"})}, 0, folder / "cache")


def crossed(data: PreparedData) -> np.ndarray:
    """The last cross of the training rows, as the network sees it."""
    tensors, features = models.create_inputs(data.spec)
    opened = models.create_keras_model(tensors, {"cross": features[-1].tensor})
    rows = {name: np.array(array) for name, array in data.split("train").inputs.items()}
    return keras.ops.convert_to_numpy(opened(rows)["cross"])


def test_every_combination_is_one_category(tmp_path: Path) -> None:
    array = crossed(prepared(tmp_path, {"columns": ("a", "b")}))
    assert array.shape == (16, 16)  # with places for missing and unknown cells
    assert (array.sum(axis=1) == 1).all()
    assert len(np.unique(array, axis=0)) == 4


def test_bins_are_crossed_and_combinations_embedded(tmp_path: Path) -> None:
    array = crossed(prepared(tmp_path, {"columns": ("a", "n", "b"), "dimension": 3}))
    assert array.shape == (16, 3)
    assert len(np.unique(array, axis=0)) == 4


def test_a_linear_model_learns_from_a_cross_what_it_cannot_from_its_parts(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"columns": ("a", "b"), "buckets": 1000}, inputs={"a": INPUTS["a"], "b": INPUTS["b"]})
    from bmcli.models import linear

    network = build_network(linear, linear.Options(), data.spec)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    network.optimizer.learning_rate = 0.3
    rows = {name: np.array(array) for name, array in data.split("train").inputs.items()}
    labels = np.array(data.split("train").targets["y"])
    history = network.fit(rows, {"y": labels}, epochs=30, verbose=0).history
    assert history["accuracy"][-1] == 1


def test_yes_and_no_are_crossed(tmp_path: Path) -> None:
    words = ["yes", "no", "", "no"]
    rows = "".join(f"train,{words[n % 4]},{'uv'[n // 4]},{n % 2}\n" for n in range(8))
    (tmp_path / "t.csv").write_text(f"split,a,b,y\n{rows}test,yes,u,1\n")
    inputs = {"a": {"kind": "boolean"}, "b": {"kind": "category"}}
    source = {"kind": "csv", "path": str(tmp_path / "t.csv")}
    data_options = options(source=source, inputs=inputs, crosses=({"columns": ("b", "a")},))
    data = prepare(data_options, {"y": PartField("data.targets").check({"kind": "category"})}, 0, tmp_path / "cache")
    array = crossed(data)
    assert array.shape == (8, 12)
    assert array.argmax(axis=1).tolist() == [1, 0, 2, 0, 4, 3, 5, 3]


def test_crosses_are_kept_with_the_prepared_data(tmp_path: Path) -> None:
    spec = prepared(tmp_path, {"columns": ("a", "b")}).spec
    assert [cross.name for cross in spec.crosses] == ["a_x_b"]
    assert prepared(tmp_path, {"columns": ("a", "b")}).spec.crosses == spec.crosses


def test_hashed_combinations_spread_over_all_buckets() -> None:
    layer = Cross([1000, 1000], 1000)
    first, second = np.meshgrid(np.arange(1000), np.arange(1000))
    array = np.asarray(layer([first.ravel(), second.ravel()]))
    counts = np.bincount(array, minlength=1000)
    assert len(counts) == 1000
    assert 500 < counts.min() <= counts.max() < 2000
    of_one = np.asarray(layer([np.full(1000, 7), np.arange(1000)]))
    assert len(np.unique(of_one)) > 500


@pytest.mark.parametrize(
    ("crosses", "inputs", "message"),
    [
        ([{"columns": ("a",)}], INPUTS, "at least 2 items"),
        ([{"columns": ("a", "c")}], INPUTS, "there is no input 'c'"),
        ([{"columns": ("a", "a")}], INPUTS, "crossed with itself"),
        ([{"columns": ("a", "b")}, {"columns": ("a", "b")}], INPUTS, "there are two inputs 'a_x_b'"),
        ([{"columns": ("a", "b")}], {**INPUTS, "a_x_b": "number"}, "there are two inputs 'a_x_b'"),
        ([{"columns": ("a", "n")}], {**INPUTS, "n": "number"}, "'n' is no category, but number"),
        ([{"columns": ("a", "n")}], {**INPUTS, "n": "image"}, "'n' is no category, but image"),
        ([{"columns": ("a", "b")}], {**INPUTS, "b": {"kind": "category", "separator": ";"}}, "'b' is no category"),
    ],
)
def test_what_cannot_be_crossed_is_a_fault_of_the_recipe(crosses: Any, inputs: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(crosses=crosses, inputs=inputs)


def test_inputs_found_by_themselves_are_checked_once_they_are_known(tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="'n' is no category, but number") as caught:
        prepared(tmp_path, {"columns": ("a", "n")}, inputs=None)
    assert caught.value.faults[0].path == "data.crosses.0.columns.1"


def test_numbers_of_several_channels_are_not_crossed(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", a=np.arange(8), v=np.ones((8, 2)), y=np.arange(8) % 2)
    data_options = DataOptions.model_validate(
        {
            "source": {"kind": "npz", "path": str(tmp_path / "t.npz")},
            "inputs": {"a": {"kind": "category"}, "v": {"kind": "number", "bins": 3}},
            "targets": {"y": {"kind": "category"}},
            "crosses": ({"columns": ("a", "v")},),
        },
        strict=False,
    )
    with pytest.raises(BmcliError, match="expected inputs of one value a row, but 'v' has several"):
        prepare(data_options, {"y": PartField("data.targets").check({"kind": "category"})}, 0, tmp_path / "cache")
