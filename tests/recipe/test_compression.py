"""`train.prune` and `train.quantize_aware`: valid options, and those that are refused before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmcli.errors import BmcliError
from bmcli.recipe.compression import ChannelPruning, WeightPruning
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe

TEXT = """\
name: small
data: {source: {kind: builtin, name: digits}}
model: {kind: cnn, filters: [8, 12], dense: [10]}
train: {epochs: 2, %s}
"""


def recipe(tmp_path: Path, train: str, *overrides: str) -> Recipe:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT % train)
    return load_recipe(str(path), overrides).recipe


@pytest.mark.parametrize("section", ["prune: weights", "prune: {}", "prune: {kind: weights, sparsity: 0.8}"])
def test_pruning_removes_weights_by_default(tmp_path: Path, section: str) -> None:
    assert recipe(tmp_path, section).train.prune == WeightPruning()


def test_pruning_channels_leaves_a_recipe_of_a_narrower_network(tmp_path: Path) -> None:
    found = recipe(tmp_path, "prune: {kind: channels, sparsity: 0.75, widths: {dense: [7]}}, quantize_aware: int4")
    assert isinstance(found.train.prune, ChannelPruning)
    left = found.after_training()
    assert (left.model.filters, left.model.dense) == ((2, 3), (7,))
    assert (left.train.prune, left.train.rounding) == (None, None)
    assert left.train.epochs == found.train.epochs


def test_at_least_one_channel_is_left(tmp_path: Path) -> None:
    left = recipe(tmp_path, "prune: {kind: channels, sparsity: 0.99}").after_training()
    assert (left.model.filters, left.model.dense) == ((1, 1), (1,))


def test_a_recipe_without_compression_is_kept_as_it_is(tmp_path: Path) -> None:
    found = recipe(tmp_path, "prune: null")
    assert found.after_training() == found
    assert recipe(tmp_path, "prune: {sparsity: 0.5}").after_training().model == found.model


def test_a_name_alone_is_the_type_of_rounded_weights(tmp_path: Path) -> None:
    found = recipe(tmp_path, "quantize_aware: int4").train.rounding
    assert found is not None
    assert (found.weights, found.activations) == ("int4", "int8")


WRONG: dict[str, tuple[str, str, str]] = {
    "prune: {sparsity: 1}": ("train.prune.sparsity", "expected a number below 1", ""),
    "prune: {sparsty: 0.5}": ("train.prune.sparsty", "no such key", "Did you mean 'sparsity'?"),
    "prune: chanels": ("train.prune", "no kind 'chanels'", "Did you mean 'channels'?"),
    "prune: {start: 0.8}": ("train.prune.start", "start at 0.8 and end at 0.75", "Set a smaller `start`"),
    "prune: {kind: channels, layers: {}}": ("train.prune.layers", "no such key", ""),
    "prune: {kind: channels, widths: {filter: [2, 2]}}": (
        "train.prune.widths.filter", "cnn has no widths 'filter'", "Did you mean 'filters'?",
    ),
    "prune: {kind: channels, widths: {filters: [2]}}": (
        "train.prune.widths.filters", "1 widths for 2 layers", "Those of the model: [8, 12].",
    ),
    "prune: {kind: channels, widths: {filters: [2, 13]}}": (
        "train.prune.widths.filters", "cannot make a layer wider: 13 instead of 12.", "",
    ),
    "prune: {kind: channels, widths: {filters: 2.5}}": (
        "train.prune.widths.filters", "expected a list of widths.", "Those of the model: [8, 12].",
    ),
    "prune: {kind: channels, sparsity: 0}": ("train.prune", "no channel would be removed", "Raise `sparsity`."),
    "quantize_aware: int2": ("train.quantize_aware", "expected 'int8' or 'int4' or a mapping", ""),
    "quantize_aware: {weights: int4, start: 1}": ("train.quantize_aware.start", "below 1", ""),
}  # fmt: skip


@pytest.mark.parametrize("section", WRONG)
def test_a_fault_has_its_place(tmp_path: Path, section: str) -> None:
    path, message, suggestion = WRONG[section]
    with pytest.raises(BmcliError) as caught:
        recipe(tmp_path, section)
    (fault,) = caught.value.faults
    assert fault.place is not None
    assert (fault.path, fault.place.line) == (path, 4)
    assert message in fault.message
    assert suggestion in fault.suggestion


@pytest.mark.parametrize("model", ["{kind: ft_transformer}", "{kind: linear}"])
def test_families_that_cannot_lose_channels_are_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(BmcliError, match=r"channels of \w+ cannot be removed") as caught:
        recipe(tmp_path, "prune: {kind: channels}", f"model={model}")
    able = "Those of cnn, convnext, mlp, mobilenet, resnet, rnn, table_resnet, transformer and wide_deep can"
    assert any(able in fault.suggestion for fault in caught.value.faults)


NETWORKS: dict[str, tuple[str, str]] = {
    "{kind: mlp, normalization: layer}": ("channels before layer normalization cannot be removed", "batch"),
    "{kind: resnet, normalization: group}": ("channels before group normalization cannot be removed", "batch"),
    "{kind: cnn, activation: sigmoid}": ("channels before sigmoid cannot be removed", "relu"),
    "{kind: rnn, dense: [8], dense_activation: softplus}": ("channels before softplus cannot be removed", "relu"),
    "{kind: transformer, share: true}": ("layers that share their weights", "Prune weights."),
    "{kind: rnn}": ("no channel would be removed", "Raise `sparsity`."),
    "{kind: mobilenet, expansion: 2}": ("1 would be left of expansion 2, expected more than 1", "Lower `sparsity`."),
}


@pytest.mark.parametrize("model", NETWORKS)
def test_networks_that_cannot_lose_channels_are_refused(tmp_path: Path, model: str) -> None:
    message, suggestion = NETWORKS[model]
    with pytest.raises(BmcliError) as caught:
        recipe(tmp_path, "prune: {kind: channels}", f"model={model}")
    (fault,) = caught.value.faults
    assert fault.path == "train.prune"
    assert message in fault.message
    assert suggestion in fault.suggestion


@pytest.mark.parametrize(
    ("model", "option", "left"),
    [
        ("{kind: transformer}", "mlp_ratio", 1.0),
        ("{kind: table_resnet, normalization: layer}", "ratio", 0.5),
        ("{kind: resnet}", "inner", 0.25),
        ("{kind: mobilenet, expansion: 6}", "expansion", 1.5),
    ],
)
def test_widths_may_be_multiples_of_others(tmp_path: Path, model: str, option: str, left: float) -> None:
    found = recipe(tmp_path, "prune: {kind: channels, sparsity: 0.75}", f"model={model}").after_training().model
    assert getattr(found, option) == left


def test_a_dumped_recipe_is_read_back_unchanged(tmp_path: Path) -> None:
    found: Any = recipe(tmp_path, "prune: {sparsity: 0.9, layers: {'dense/*': 0}}, quantize_aware: {weights: int4}")
    assert Recipe.model_validate(found.model_dump()) == found
