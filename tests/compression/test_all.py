"""Laws of every compression method."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from bmcli import parts
from bmcli.compression.methods import ModelSize, clone_model, compress_model, measure_model_size
from bmcli.recipe.fields import PartField

from .conftest import accuracy, examples, given, logits

WAYS = parts.names("compression.methods")
# A network that learned for a second has no kernel of low rank yet.
CHOSEN = {kind: {"kind": kind, **({"energy": 0.8} if kind == "low_rank" else {})} for kind in WAYS}


def smaller(model: keras.Model, *kinds: str) -> keras.Model:
    return compress_model(
        [PartField("compression.methods").check(CHOSEN[kind]) for kind in kinds], model, given(examples())
    )


def test_there_are_ways() -> None:
    assert {"cluster", "low_rank", "quantize", "round"} <= set(WAYS)


@pytest.mark.parametrize("kind", WAYS)
def test_the_network_stays_as_it_is_and_its_copy_decides_alike(trained: keras.Model, kind: str) -> None:
    before, weights = logits(trained), trained.get_weights()
    found = smaller(trained, kind)
    assert found is not trained
    assert all(np.array_equal(a, b) for a, b in zip(weights, trained.get_weights(), strict=True))
    np.testing.assert_array_equal(logits(trained), before)
    assert not np.array_equal(logits(found), before)
    assert accuracy(found) >= 0.95
    assert found.input.keys() == trained.input.keys()
    assert found.name == trained.name


@pytest.mark.parametrize("kind", WAYS)
def test_a_compressed_network_is_smaller_once_compressed_by_gzip(trained: keras.Model, kind: str) -> None:
    found = smaller(trained, kind)
    assert measure_model_size(found).gzip_bytes < 0.9 * measure_model_size(trained).gzip_bytes


@pytest.mark.parametrize("kind", WAYS)
def test_a_compressed_network_is_one_of_keras_that_needs_nothing_of_ours(
    trained: keras.Model, kind: str, tmp_path: Path
) -> None:
    found = smaller(trained, kind)
    found.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(logits(again), logits(found), atol=1e-6)
    assert all(type(layer).__module__.startswith("keras.") for layer in found._flatten_layers())


def test_ways_follow_one_another(trained: keras.Model) -> None:
    found = smaller(trained, "low_rank", "cluster")
    alone = [measure_model_size(smaller(trained, kind)).gzip_bytes for kind in ("low_rank", "cluster")]
    assert measure_model_size(found).gzip_bytes < min(alone)
    assert accuracy(found) >= 0.9


def test_a_copy_computes_the_same(trained: keras.Model) -> None:
    found = clone_model(trained)
    np.testing.assert_array_equal(logits(found), logits(trained))
    assert [layer.name for layer in found.layers] == [layer.name for layer in trained.layers]


def test_the_size_of_a_network_is_that_of_its_numbers() -> None:
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(10)])
    model.set_weights([np.eye(100, 10, dtype="float32"), np.ones(10, "float32")])
    found = measure_model_size(model)
    assert (found.parameters, found.nonzero, found.bytes) == (1010, 20, 4040)
    assert found.gzip_bytes < 200
    assert found.nonzero_share == pytest.approx(20 / 1010)
    assert measure_model_size(model) == found, "the same size at any time"
    assert ModelSize(0, 0, 0, 20).nonzero_share == 0.0
