from __future__ import annotations

import keras
import pytest

from bmcli.layers.keras_objects import make_keras_object
from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject


def test_options_are_passed_on() -> None:
    optimizer = make_keras_object("optimizers", KerasObject("adam", {"beta_1": 0.8}), learning_rate=0.5)
    assert (optimizer.beta_1, float(optimizer.learning_rate)) == (0.8, 0.5)


def test_nested_descriptions_become_objects() -> None:
    described = KerasObject("bidirectional", {"layer": {"kind": "lstm", "units": 3, "kernel_initializer": "ones"}})
    layer = make_keras_object("layers", described)
    assert isinstance(layer.forward_layer, keras.layers.LSTM)
    assert isinstance(layer.forward_layer.cell.kernel_initializer, keras.initializers.Ones)


def test_nothing_stays_nothing() -> None:
    assert make_keras_object("regularizers", None) is None


@pytest.mark.parametrize(
    "family", ["activations", "initializers", "regularizers", "losses", "schedules", "constraints"]
)
def test_everything_without_required_options_can_be_made(family: str) -> None:
    kinds = [kind for kind in catalogue.list_kinds(family) if not catalogue.get_entry(family, kind)["required"]]
    assert kinds or family == "schedules"
    for kind in kinds:
        assert make_keras_object(family, KerasObject(kind)) is not None


@pytest.mark.parametrize("kind", ["spatial_dropout1d", "dropout", "bidirectional"])
def test_every_layer_can_be_frozen(kind: str) -> None:
    options = {"layer": {"kind": "lstm", "units": 2}} if kind == "bidirectional" else {"rate": 0.3}
    layer = make_keras_object("layers", KerasObject(kind, {**options, "trainable": False}))
    layer.build((None, 3, 2))
    assert not layer.trainable
    assert layer.trainable_variables == []
