"""A network as one graph, and as a backbone with heads: the same layers, the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from bmcli.compression.methods import clone_model
from bmcli.compression.methods.low_rank import Options, apply
from bmcli.errors import BmcliError
from bmcli.models import MAP, PYRAMID, STEPS, Features, allow_column_names
from bmcli.networks.network import Network, save_network
from bmcli.objectives import classification
from bmcli.training import prepare_data
from tests.conftest import WriteRecipe
from tests.trainers import COSTLY, FAMILIES, MakeTrainer, Silent, same

every_family = pytest.mark.parametrize(
    "kind", [kind if kind not in COSTLY else pytest.param(kind, marks=pytest.mark.slow) for kind in FAMILIES]
)


def values(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.weights]


def run(network: Network, model: keras.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Outputs for random rows."""
    draw = np.random.default_rng(seed)
    rows = {
        name: draw.integers(0, 3, (4, *tensor.shape[1:])).astype(tensor.dtype)
        for name, tensor in network.model.input.items()
    }
    outputs = model({name: tf.constant(array) for name, array in rows.items()}, training=False)
    return {name: output.numpy() for name, output in outputs.items()}


@every_family
def test_backbone_and_heads_compute_what_the_graph_computes(make_family: MakeTrainer, kind: str) -> None:
    network = make_family(kind).network
    nested = network.nest()
    backbone, head = nested.get_layer("backbone"), nested.get_layer("head_label")
    for name, output in run(network, network.model).items():
        np.testing.assert_array_equal(run(network, nested)[name], output)
    inside = [id(weight) for weight in (*backbone.weights, *head.weights)]
    assert sorted(inside) == sorted(id(weight) for weight in network.model.weights)
    assert head.trainable_weights


@every_family
def test_the_copy_of_a_network_has_its_backbone_and_heads(make_family: MakeTrainer, kind: str) -> None:
    network = make_family(kind).network
    copy = replace(network, model=clone_model(network.model))
    nested = copy.nest()
    assert {id(weight) for weight in nested.weights}.isdisjoint(id(weight) for weight in network.model.weights)
    for name, output in run(network, network.model).items():
        np.testing.assert_allclose(run(network, nested)[name], output, atol=1e-6)


def test_a_compressed_network_has_a_backbone(make_family: MakeTrainer) -> None:
    network = make_family("mlp", "model.hidden=[32, 32]").network
    thin = replace(network, model=apply(Options(energy=0.3), network.model, {}))
    names = [weight.path for weight in thin.nest().get_layer("backbone").weights]
    assert any("_first" in name for name in names)
    assert run(thin, thin.nest())["label"].shape == (4, 3)


def test_a_linear_model_of_two_parts_has_both_in_its_head(make_family: MakeTrainer) -> None:
    nested = make_family("wide_deep").network.nest()
    assert len(nested.get_layer("head_label").inputs) == 2
    assert sum("kernel" in weight.path for weight in nested.get_layer("head_label").weights) == 2


def test_a_saved_model_holds_them_by_name(make_family: MakeTrainer, cache: Path, tmp_path: Path) -> None:
    trainer = make_family("cnn")
    recipe = trainer.recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    with allow_column_names():
        network = keras.saving.load_model(tmp_path / "model.keras", compile=False).get_layer("network")
    backbone, head = network.get_layer("backbone"), network.get_layer("head_label")
    assert list(backbone.output) == ["vector"]
    assert len(head.weights) == 2
    assert same(values(network), values(trainer.network.model))


def test_columns_may_have_the_names_of_its_parts(
    make_of: MakeTrainer, write_recipe: WriteRecipe, cache: Path, tmp_path: Path
) -> None:
    rows = "".join(f"{n},{n % 5},{'ab'[n % 2]}\n" for n in range(30))
    (tmp_path / "t.csv").write_text(f"backbone,head_y,y\n{rows}")
    described = {
        "name": "names", "data": {"source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": {"kind": "category"}}},
        "model": "mlp", "train": {"epochs": 1, "tensorboard": False},
    }  # fmt: skip
    trainer = make_of(write_recipe(yaml.safe_dump(described)))
    recipe = trainer.recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    with allow_column_names():
        model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert same(values(model), values(trainer.network.model))


def test_a_head_of_steps_is_trained(make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_head(options: object, target: object, features: Features) -> object:
        steps = keras.layers.Dense(3, dtype="float32")(features.tensor)
        return keras.layers.GlobalAveragePooling1D()(steps, mask=features.mask)

    monkeypatch.setattr(classification, "REQUEST", STEPS)
    monkeypatch.setattr(classification, "build_head", build_head)
    for kind in ("rnn", "transformer"):
        trainer = make_family(kind, "train.epochs=2")
        before = values(trainer.network.model)
        trainer.train(Silent())
        assert not same(before, values(trainer.network.model))
        assert set(trainer.network.nest().get_layer("backbone").output) == {"steps", "steps_mask"}


def test_a_head_of_a_pyramid_is_trained(make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_head(options: object, target: object, features: Features) -> object:
        pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in features.tensor]
        return keras.layers.Dense(3, dtype="float32")(keras.layers.Concatenate()(pooled))

    monkeypatch.setattr(classification, "REQUEST", PYRAMID)
    monkeypatch.setattr(classification, "build_head", build_head)
    trainer = make_family("resnet", "train.epochs=1")
    before = values(trainer.network.model)
    trainer.train(Silent())
    assert not same(before, values(trainer.network.model))
    expected, nested = (run(trainer.network, each) for each in (trainer.network.model, trainer.network.nest()))
    assert same(list(expected.values()), list(nested.values()))


def test_features_that_a_family_lacks_name_those_that_give_them(
    make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "REQUEST", STEPS)
    with pytest.raises(BmcliError, match=r"mlp does not give features as steps .* which classification") as caught:
        make_family("mlp")
    fault = caught.value.faults[0]
    assert fault.path == "model.kind"
    assert fault.suggestion == "For these inputs rnn, transformer give them."
    monkeypatch.setattr(classification, "REQUEST", MAP)
    with pytest.raises(BmcliError) as caught:
        make_family("ft_transformer")
    assert caught.value.faults[0].suggestion == "No family gives them."


def test_outputs_of_listed_layers_must_have_the_form(make_family: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "REQUEST", STEPS)
    with pytest.raises(BmcliError, match="layers does not give features as steps"):
        make_family("layers")
