from __future__ import annotations

from typing import Any

import pytest

from bmcli.errors import BmcliError
from bmcli.models import cnn
from tests.models.fakes import column, heads, spec

IMAGE = column("image", (8, 8, 1))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return cnn.build(cnn.Options(**options), data, heads(data))


def test_layers_come_in_the_documented_order() -> None:
    network = _build(IMAGE, filters=(4,), normalization="layer", dropout=0.1, dense=(5,))
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds[1:] == [
        "Conv2D", "LayerNormalization", "Activation", "MaxPooling2D", "Dropout", "Flatten",
        "Dense", "LayerNormalization", "Activation", "Dropout", "Dense",
    ]  # fmt: skip


def test_lenet_is_five_by_five_convolutions_and_two_dense_layers() -> None:
    network = _build(column("image", (28, 28, 1)), kernel_size=5, filters=(16, 16), dense=(120, 84))
    assert network.count_params() == (25 * 16 + 16) + (25 * 16 * 16 + 16) + (784 * 120 + 120) + (120 * 84 + 84) + 85 * 3


def test_strides_are_those_of_a_blocks_first_convolution() -> None:
    network = _build(IMAGE, filters=(4,), convolutions=2, strides=(2, 1), pool=1)
    assert [tuple(layer.strides) for layer in network.layers if type(layer).__name__ == "Conv2D"] == [
        (2, 1),
        (1, 1),
    ]


def test_one_image_is_needed() -> None:
    with pytest.raises(BmcliError, match=r"works on one image, but none of these inputs fits: age \(3\)") as caught:
        _build(column("age", (3,)))
    assert caught.value.faults[0].path == "model"
    with pytest.raises(BmcliError, match=r"but 2 of these inputs fits: image \(8x8x1\), other \(8x8x1\)"):
        _build(IMAGE, column("other", (8, 8, 1)))


def test_an_image_too_small_for_the_pooling_names_the_block() -> None:
    with pytest.raises(BmcliError, match="block 4: an image of 1x1 cannot hold a pooling of 2x2") as caught:
        _build(IMAGE, filters=(2, 2, 2, 2))
    assert caught.value.faults[0].path == "model.pool"


def test_an_image_too_small_for_the_convolution_names_the_block() -> None:
    with pytest.raises(BmcliError, match="block 2: an image of 3x3 cannot hold a convolution of 5x5") as caught:
        _build(column("image", (10, 10, 1)), kernel_size=5, padding="valid")
    assert caught.value.faults[0].path == "model.kernel_size"
