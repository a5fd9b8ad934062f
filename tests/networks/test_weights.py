"""The door by which weights of a file get into a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmcli import disk
from bmcli.errors import BmcliError
from bmcli.networks.network import Network, save_network
from bmcli.networks.weights import SavedNetwork, load_weights
from bmcli.training import prepare_data
from tests.trainers import MakeTrainer

Saved = tuple[Network, SavedNetwork]


@pytest.fixture
def saved(make_family: MakeTrainer, cache: Path, tmp_path: Path) -> Saved:
    """A network, its file, and another network of the same structure to read the file into."""
    trainer, recipe = make_family("mlp"), make_family("mlp").recipe
    spec = prepare_data(recipe, cache).spec
    save_network(trainer.network, spec, tmp_path / "model.keras")
    return trainer.network, SavedNetwork(tmp_path / "model.keras", spec, network=make_family("mlp", "seed=8").network)


def equal_weights(first: Network, second: Network) -> dict[str, bool]:
    """For each weight that both have, whether its bits are equal."""
    others = {weight.path: weight.numpy() for weight in second.model.weights}
    return {
        weight.path: weight.numpy().tobytes() == others[weight.path].tobytes()
        for weight in first.model.weights
        if weight.path in others
    }


HEAD = {"dense_1/kernel"}  # a bias is 0 in both


def test_a_backbone_is_taken_without_the_head(make_family: MakeTrainer, saved: Saved) -> None:
    network, source = saved
    other = make_family("mlp", "seed=9", target="grade").network
    before = {weight.path: weight.numpy() for weight in other.model.weights}
    taken = load_weights(source, other, "backbone")
    assert {*taken.taken, *taken.left_out} == {weight.path for weight in network.model.weights}
    assert set(taken.left_out) == {"dense_1/kernel", "dense_1/bias"}
    assert taken.digest == disk.compute_sha256(source.path)
    equal = equal_weights(other, network)
    assert all(equal[name] for name in taken.taken)
    for name in taken.left_out:
        np.testing.assert_array_equal(before[name], next(w.numpy() for w in other.model.weights if w.path == name))


def test_weights_are_taken_by_name(make_family: MakeTrainer, saved: Saved) -> None:
    network, source = saved
    other = make_family("mlp", "seed=9").network
    taken = load_weights(source, other, ["dense_1/*"])
    assert taken.taken == ("dense_1/kernel", "dense_1/bias")
    equal = equal_weights(other, network)
    assert equal["dense_1/kernel"]
    assert not equal["dense/kernel"]


def test_a_name_that_no_weight_has_is_a_fault(make_family: MakeTrainer, saved: Saved) -> None:
    other = make_family("mlp", "seed=9").network
    with pytest.raises(BmcliError, match=r"no weight is called 'dense_1/kernl'") as caught:
        load_weights(saved[1], other, ["dense_1/kernl"])
    assert caught.value.faults[0].suggestion == "Did you mean 'dense_1/kernel'?"


@pytest.mark.parametrize(
    ("override", "message"),
    [("model.hidden=[9]", r"'dense/kernel' is \d+x9 in this network, and the file has \d+x8"),
     ("model.normalization=layer", "'layer_normalization/gamma' is 8 in this network, and the file does not have it")],
)  # fmt: skip
def test_another_backbone_is_a_fault(make_family: MakeTrainer, saved: Saved, override: str, message: str) -> None:
    other = make_family("mlp", override).network
    before = [weight.numpy() for weight in other.model.weights]
    with pytest.raises(BmcliError, match=message):
        load_weights(saved[1], other, "backbone")
    assert all(map(np.array_equal, before, (weight.numpy() for weight in other.model.weights)))


def test_a_file_that_changed_is_a_fault(make_family: MakeTrainer, saved: Saved) -> None:
    source = SavedNetwork(saved[1].path, saved[1].spec, "0" * 64, saved[1].network)
    with pytest.raises(BmcliError, match="has changed since it was chosen"):
        load_weights(source, make_family("mlp").network, "backbone")
