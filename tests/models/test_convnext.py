from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import convnext
from tests.models.fakes import build_network, column, spec

IMAGE = column("image", (8, 8, 1))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(convnext, convnext.Options(**options), data)


def _rates(network: Any) -> list[float]:
    return [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.slow
def test_tiny_has_the_weights_of_the_paper() -> None:
    """28,589,128 with 1,000 classes."""
    network = _build(column("photo", (224, 224, 3)), widths=(96, 192, 384, 768), blocks=(3, 3, 9, 3))
    assert network.count_params() == 28_589_128 - 769 * 997


def test_later_blocks_are_skipped_more_often() -> None:
    assert _rates(_build(IMAGE, widths=(4, 8), blocks=(1, 2), drop_path=0.2)) == [0.1, 0.2]
    assert _rates(_build(IMAGE, widths=(4,), blocks=(1,), drop_path=0.2)) == [0.2]
    assert _rates(_build(IMAGE, widths=(4,), blocks=(2,))) == []


def test_a_block_is_skipped_whole() -> None:
    network = _build(IMAGE, widths=(4,), blocks=(1,), drop_path=0.5)
    dropout = next(layer for layer in network.layers if isinstance(layer, keras.layers.Dropout))
    branch = dropout(tf.ones((64, 4, 4, 4)), training=True).numpy().reshape(64, -1)
    assert (branch == branch[:, :1]).all()
    assert set(np.unique(branch)) == {0.0, 2.0}


def test_patches_must_fit_in_the_image() -> None:
    with pytest.raises(BmcliError, match="patches of 16x16 are larger than 'image'") as caught:
        _build(IMAGE, patch=16)
    assert caught.value.faults[0].path == "model.patch"


def test_blocks_and_widths_must_agree() -> None:
    with pytest.raises(ValidationError, match="1 stages of blocks for 3 widths"):
        convnext.Options(blocks=(1,))
