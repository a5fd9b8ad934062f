from __future__ import annotations

from typing import Any

import keras
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import resnet
from tests.models.fakes import CLASSES, build_network, column, spec

PHOTO = column("photo", (224, 224, 3))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(resnet, resnet.Options(**options), data)


def _layers(network: Any, kind: type) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (18, 11_689_512),
        pytest.param(34, 21_797_672, marks=pytest.mark.slow),
        pytest.param(50, 25_557_032, marks=pytest.mark.slow),
    ],
)
def test_variants_have_the_weights_of_the_paper(variant: int, weights: int) -> None:
    """The published counts are those of 1,000 classes, without the statistics of batch normalization."""
    network = _build(PHOTO, variant=variant)
    width = 2048 if variant == 50 else 512
    trained = sum(weight.shape.num_elements() for weight in network.trainable_variables)
    assert trained == weights - (width + 1) * (1000 - len(CLASSES))
    assert len(_layers(network, keras.layers.Conv2D)) == {18: 20, 34: 36, 50: 53}[variant]  # with the shortcuts


@pytest.mark.parametrize(
    ("options", "size", "left"),
    [({}, 28, 7), ({}, 32, 8), ({"stem": "halving"}, 32, 4), ({}, 64, 4), ({"stem": "small"}, 64, 16)],
)
def test_the_stem_suits_the_size_of_the_image(options: dict[str, Any], size: int, left: int) -> None:
    network = _build(column("image", (size, size, 1)), **options)
    (pooling,) = _layers(network, keras.layers.GlobalAveragePooling2D)
    assert pooling.input.shape[1:] == (left, left, 64)


def test_a_block_is_its_shortcut_at_first() -> None:
    network = _build(column("image", (8, 8, 1)), blocks=(1,), widths=(4,))
    (add,) = _layers(network, keras.layers.Add)
    shortcut, branch = keras.Model(network.inputs, add.input)(keras.random.normal((2, 8, 8, 1)))
    assert float(keras.ops.max(keras.ops.abs(branch))) == 0.0
    assert float(keras.ops.max(keras.ops.abs(shortcut))) > 0.0


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"variant": 18, "blocks": (2, 2)}, "blocks", "`blocks` does nothing beside variant 18"),
        ({"variant": 50, "bottleneck": False}, "bottleneck", "`bottleneck` does nothing beside variant 50"),
        ({"blocks": (2, 2), "widths": (8, 16, 32)}, "blocks", "2 stages of blocks for 3 widths"),
    ],
)
def test_options_that_contradict_each_other_are_a_fault(options: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        resnet.Options(**options)
    assert caught.value.errors()[0]["loc"] == (where,)


def test_an_image_is_needed() -> None:
    with pytest.raises(BmcliError, match=r"resnet works on one image, but none of these inputs fits: age \(3\)"):
        _build(column("age", (3,)))
