"""A network behind its preprocessing: raw rows in, the same predictions out; foreign files are refused."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from bmcli.errors import BmcliError
from bmcli.models import allow_column_names
from bmcli.networks.network import Network, save_network
from bmcli.networks.weights import SavedNetwork, load_weights
from bmcli.recipe.load import load_recipe
from bmcli.recipe.runtime import RuntimeOptions
from bmcli.specs import DataSpec, PreparedData
from bmcli.training import build_network, prepare_data
from bmcli.training.predictor import predict
from tests.conftest import WriteRecipe
from tests.trainers import COSTLY, FAMILIES, MakeTrainer, Silent, same, table

Saved = tuple[Network, DataSpec, Path]


@pytest.fixture
def prepared(cache: Path, write_recipe: WriteRecipe) -> PreparedData:
    """The data of the tiny recipe."""
    recipe = load_recipe(str(write_recipe())).recipe
    return prepare_data(recipe, cache)


@pytest.fixture
def saved(make_trainer: MakeTrainer, prepared: PreparedData, tmp_path: Path) -> Saved:
    trainer = make_trainer()
    save_network(trainer.network, prepared.spec, tmp_path / "model.keras")
    return trainer.network, prepared.spec, tmp_path / "model.keras"


def test_a_saved_model_holds_no_state_of_the_optimizer(saved: Saved) -> None:
    network, _, path = saved
    assert network.model.optimizer is not None, "callbacks look for the learning rate there"
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        names: list[str] = []
        weights.visit(names.append)
    assert not [name for name in names if "optimizer" in name]


def test_a_saved_model_gives_the_networks_predictions_on_raw_rows(
    make_trainer: MakeTrainer, prepared: PreparedData, tmp_path: Path
) -> None:
    trainer = make_trainer("train.epochs=1")
    rows = prepared.split("test")
    save_network(trainer.network, prepared.spec, tmp_path / "model.keras")
    with allow_column_names():
        model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    states = {column.name: column.state for column in prepared.spec.inputs}
    raw = {
        name: array[:, 0] * states[name]["scale"][0] + states[name]["offset"][0] for name, array in rows.inputs.items()
    }
    served = model({name: np.float32(values) for name, values in raw.items()})
    (target,) = rows.targets
    np.testing.assert_allclose(
        served[target], predict(trainer.network, rows, RuntimeOptions(), trainer.placement)[target], atol=1e-5
    )


@pytest.mark.parametrize(
    ("target", "settings", "shape"),
    [
        ("tags", (), (9, 3)),
        ("grade", (), (9, 4)),
        ("visits", (), (9,)),
        ("price", ("objective=quantile",), (9, 3)),
        ("price", ("data.targets.price.scale=log",), (9,)),
    ],
    ids=["labels", "ordered", "count", "quantile", "log"],
)
def test_what_is_saved_predicts_every_kind_of_target(
    make_family: MakeTrainer,
    cache: Path,
    tmp_path: Path,
    target: str,
    settings: tuple[str, ...],
    shape: tuple[int, ...],
) -> None:
    trainer = make_family("mlp", "train.epochs=1", *settings, target=target)
    trainer.train(Silent())
    recipe = trainer.recipe
    prepared = prepare_data(recipe, cache)
    save_network(trainer.network, prepared.spec, tmp_path / "model.keras")
    with allow_column_names():
        model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    served = model({name: keras.ops.convert_to_tensor(table(9)[name]) for name in FAMILIES["mlp"][1]})[target]
    expected = predict(trainer.network, prepared.split("validation"), recipe.runtime, trainer.placement)[target]
    assert expected.shape == shape
    np.testing.assert_allclose(served, expected, rtol=1e-5)
    again = make_family("mlp", "seed=9", *settings, target=target).network
    load_weights(SavedNetwork(tmp_path / "model.keras", prepared.spec), again)
    assert same([w.numpy() for w in trainer.network.model.weights], [w.numpy() for w in again.model.weights])


def test_loading_gives_a_network_its_weights_back(make_trainer: MakeTrainer, saved: Saved) -> None:
    first, spec, path = saved
    other = make_trainer("seed=9").network
    load_weights(SavedNetwork(path, spec), other)
    assert same([w.numpy() for w in first.model.weights], [w.numpy() for w in other.model.weights])


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 torn"])
def test_a_damaged_model_is_a_fault(saved: Saved, content: bytes) -> None:
    network, spec, path = saved
    path.write_bytes(content)
    with pytest.raises(BmcliError, match="not a Keras archive"):
        load_weights(SavedNetwork(path, spec), network)


def test_a_model_that_is_not_there_is_a_fault(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="no such file"):
        load_weights(SavedNetwork(tmp_path / "none.keras", saved[1]), saved[0])


def test_the_model_of_another_network_is_refused(make_trainer: MakeTrainer, saved: Saved) -> None:
    other = make_trainer("model.hidden=[3, 3]").network
    with pytest.raises(BmcliError, match="not the model of this run"):
        load_weights(SavedNetwork(saved[2], saved[1]), other)


def test_weights_survive_a_failed_save(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    network, spec, path = saved
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match=r"(?i)no space left"):
        save_network(network, spec, path)
    assert path.read_bytes() == before
    assert list(path.parent.glob(".model*")) == []


@pytest.mark.parametrize("kind", [kind if kind not in COSTLY else pytest.param(kind, marks=pytest.mark.slow)
                                  for kind in FAMILIES])  # fmt: skip
def test_every_family_is_loaded_as_it_was_saved(
    make_family: MakeTrainer, cache: Path, tmp_path: Path, kind: str
) -> None:
    trainer, recipe = make_family(kind), make_family(kind).recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    again = make_family(kind, "seed=9").network
    load_weights(SavedNetwork(tmp_path / "model.keras", spec), again)
    assert same([w.numpy() for w in trainer.network.model.weights], [w.numpy() for w in again.model.weights])


def _with_state(spec: DataSpec, name: str, **state: Any) -> DataSpec:
    """A data.json of another run, in which one column was fitted to other rows."""
    columns = [
        replace(each, state={**each.state, **state}) if each.name == name else each
        for each in (*spec.inputs, *spec.targets)
    ]
    count = len(spec.inputs)
    return replace(spec, inputs=tuple(columns[:count]), targets=tuple(columns[count:]))


def test_a_mean_of_other_rows_is_a_fault_that_names_both_files(saved: Saved) -> None:
    network, spec, path = saved
    column = spec.inputs[1]
    offset = [column.state["offset"][0] + 1e-3]
    with pytest.raises(BmcliError, match=rf"model\.keras and .*data\.json .*'{re.escape(column.name)}'"):
        load_weights(SavedNetwork(path, _with_state(spec, column.name, offset=offset)), network)


def test_a_category_in_another_place_is_a_fault(make_family: MakeTrainer, cache: Path, tmp_path: Path) -> None:
    trainer = make_family("linear")
    recipe = trainer.recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    city = spec.input("city")
    turned = replace(city, classes=city.classes[::-1])
    other = replace(spec, inputs=tuple(turned if each.name == "city" else each for each in spec.inputs))
    with pytest.raises(BmcliError, match="the input 'city' differs"):
        load_weights(SavedNetwork(tmp_path / "model.keras", other), trainer.network)


def test_a_unit_of_another_target_is_a_fault(make_family: MakeTrainer, cache: Path, tmp_path: Path) -> None:
    trainer = make_family("linear", target="price")
    recipe = trainer.recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    other = _with_state(spec, "price", mean=spec.target("price").state["mean"] + 0.5)
    network = build_network(recipe, other, {"price": np.zeros(3, "float32")}, trainer.placement)
    with pytest.raises(BmcliError, match="the target 'price' differs"):
        load_weights(SavedNetwork(tmp_path / "model.keras", other), network)
