from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import application
from bmcli.recipe.load import load_recipe
from tests.models.fakes import build_network, column, spec

PHOTO = column("photo", (32, 32, 3), "uint8")


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(application, application.Options(**{"architecture": "mobilenet", **options}), data)


def _backbone(network: Any) -> Any:
    return next(layer for layer in network.layers if isinstance(layer, keras.Model))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the architecture with other random numbers."""
    path = tmp_path_factory.mktemp("weights") / "notop.weights.h5"
    keras.utils.set_random_seed(9)
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    network.save_weights(path)
    return path


def test_every_architecture_is_one_of_keras() -> None:
    for module, name in application._ARCHITECTURES.values():
        assert hasattr(getattr(keras.applications, module), "preprocess_input")
        assert callable(getattr(keras.applications, name))


def test_every_architecture_of_keras_has_a_name() -> None:
    known = {name for _, name in application._ARCHITECTURES.values()}
    assert {name for name in dir(keras.applications) if name[0].isupper()} == known


def test_weights_come_from_the_file(weights: Path) -> None:
    network = _backbone(_build(PHOTO, weights=str(weights)))
    random = _backbone(_build(PHOTO))
    keras.utils.set_random_seed(9)
    expected = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3)).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(network.get_weights(), expected, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(random.get_weights(), expected, strict=True))


def test_pixels_are_scaled_as_the_architecture_expects(weights: Path) -> None:
    network = _build(PHOTO, weights=str(weights))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    expected = _backbone(network)(keras.applications.mobilenet.preprocess_input(pixels.astype("float32")))
    found = keras.Model(network.inputs, network.layers[-1].input)([tf.constant(pixels)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_frozen_weights_are_not_trained(weights: Path) -> None:
    assert len(_build(PHOTO, weights=str(weights), freeze=True).trainable_variables) == 2
    assert len(_build(PHOTO, weights=str(weights)).trainable_variables) > 50


def test_a_column_may_be_called_like_the_architecture() -> None:
    network = _build(column("mobilenet", (32, 32, 3), "uint8"))
    assert set(network({"mobilenet": tf.zeros((1, 32, 32, 3), tf.uint8)})) == {"label"}


def test_a_missing_file_is_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"nowhere\.h5: no such file") as caught:
        _build(PHOTO, weights="nowhere.h5")
    assert caught.value.faults[0].path == "model.weights"


def test_weights_of_another_architecture_are_a_fault(weights: Path) -> None:
    with pytest.raises(BmcliError, match="not the weights of mobilenet_v2 without its top") as caught:
        _build(PHOTO, architecture="mobilenet_v2", weights=str(weights))
    assert caught.value.faults[0].path == "model.weights"


def test_a_damaged_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "damaged.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    with pytest.raises(BmcliError, match="not the weights of mobilenet without its top"):
        _build(PHOTO, weights=str(tmp_path / "damaged.weights.h5"))


def test_an_image_too_small_for_the_architecture_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="Input size must be at least 32x32") as caught:
        _build(column("photo", (28, 28, 3), "uint8"))
    assert "size: [224, 224]" in caught.value.faults[0].suggestion


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (column("photo", (32, 32, 1), "uint8"), "expect 3 channels, but 'photo' has 1"),
        (column("photo", (32, 32, 3)), "expect pixels from 0 to 255, but 'photo' holds float32"),
    ],
)
def test_pixels_must_be_those_of_pictures(photo: Any, message: str) -> None:
    with pytest.raises(BmcliError, match=message):
        _build(photo)


def test_random_weights_cannot_be_frozen() -> None:
    with pytest.raises(ValidationError, match="random weights would never be trained") as caught:
        application.Options(architecture="mobilenet", freeze=True)
    assert caught.value.errors()[0]["loc"] == ("freeze",)


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="no architecture 'resnet_50'") as caught:
        application.Options(architecture="resnet_50")
    assert caught.value.errors()[0]["ctx"]["suggestion"] == "Did you mean 'resnet50'?"


def test_the_file_is_found_beside_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: photos\ndata: {source: {kind: builtin, name: digits}}\n"
        "model: {kind: application, architecture: mobilenet, weights: kept.h5}\n"
    )
    assert load_recipe(str(path)).recipe.model.weights == str(tmp_path / "kept.h5")
