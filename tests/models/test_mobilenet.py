from __future__ import annotations

from typing import Any

import keras
import pytest
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import mobilenet
from tests.models.fakes import build_network, column, spec

IMAGE = column("image", (8, 8, 1))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(mobilenet, mobilenet.Options(**options), data)


def test_a_block_widens_filters_and_narrows() -> None:
    network = _build(IMAGE, widths=(4,), blocks=(1,), expansion=3.0, last=None)
    convolutions = [layer for layer in network.layers if "conv" in layer.name]
    assert [type(layer).__name__ for layer in convolutions] == ["Conv2D", "Conv2D", "DepthwiseConv2D", "Conv2D"]
    assert [layer.kernel.shape for layer in convolutions] == [(3, 3, 1, 4), (1, 1, 4, 12), (3, 3, 12, 1), (1, 1, 12, 4)]
    assert len([layer for layer in network.layers if isinstance(layer, keras.layers.Add)]) == 1


def test_it_has_a_fraction_of_the_weights_of_a_residual_network() -> None:
    from bmcli.models import resnet

    data = spec(IMAGE)
    residual = build_network(resnet, resnet.Options(widths=(16, 32, 64), blocks=(1, 2, 2)), data)
    assert _build(IMAGE, last=None).count_params() < residual.count_params() / 2


def test_blocks_and_widths_must_agree() -> None:
    with pytest.raises(ValidationError, match="1 stages of blocks for 2 widths") as caught:
        mobilenet.Options(widths=(4, 8), blocks=(1,))
    assert caught.value.errors()[0]["loc"] == ("blocks",)


def test_an_image_is_needed() -> None:
    with pytest.raises(BmcliError, match=r"mobilenet works on one image, but none of these inputs fits: age \(3\)"):
        _build(column("age", (3,)))
