from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import transformer
from tests.models.fakes import build_network, column, spec

IMAGE = column("image", (4, 6, 1))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(transformer, transformer.Options(width=8, heads=2, depth=1, **options), data)


def _tokens(network: Any, rows: np.ndarray) -> np.ndarray:
    """Inputs of the first dense layer, the embedding."""
    import keras

    dense = next(layer for layer in network.layers if type(layer).__name__ == "Dense")
    return keras.Model(network.inputs, dense.input)([tf.constant(rows)]).numpy()


def test_patches_are_cut_row_by_row() -> None:
    rows = np.arange(24, dtype="float32").reshape(1, 4, 6, 1)
    tokens = _tokens(_build(IMAGE, patch=(2, 3)), rows)
    assert tokens.shape == (1, 4, 6)
    np.testing.assert_array_equal(tokens[0, 0], [0, 1, 2, 6, 7, 8])
    np.testing.assert_array_equal(tokens[0, 1], [3, 4, 5, 9, 10, 11])


def test_without_patches_the_tokens_are_the_rows() -> None:
    rows = np.arange(24, dtype="float32").reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(_tokens(_build(IMAGE), rows), rows[..., 0])


def test_without_positions_the_order_of_steps_does_not_matter() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    turned = np.ascontiguousarray(rows[:, ::-1])
    blind, seeing = (_build(column("series", (5, 3)), positions=p) for p in (None, "learned"))
    first, second = (blind({"series": tf.constant(each)})["label"].numpy() for each in (rows, turned))
    np.testing.assert_allclose(first, second, atol=1e-5)
    first, second = (seeing({"series": tf.constant(each)})["label"].numpy() for each in (rows, turned))
    assert np.abs(first - second).max() > 1e-4


def test_patches_must_divide_the_image() -> None:
    with pytest.raises(BmcliError, match="an image of 4x6 cannot be cut into patches of 3x3") as caught:
        _build(IMAGE, patch=3)
    assert caught.value.faults[0].path == "model.patch"
    assert caught.value.faults[0].suggestion == "Rows can be divided by 1, 2, 4; columns by 1, 2, 3, 6."


def test_patches_of_a_sequence_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="only images have patches, but 'series' is a sequence"):
        _build(column("series", (5, 3)), patch=2)


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"width": 10, "heads": 4}, "heads", "width 10 is not a multiple of 4 heads"),
        ({"width": 9, "heads": 3, "positions": "sinusoidal"}, "width", "need an even width, received 9"),
    ],
)
def test_the_width_must_suit_heads_and_positions(options: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        transformer.Options(**options)
    assert caught.value.errors()[0]["loc"] == (where,)


def test_shared_blocks_have_one_set_of_weights() -> None:
    def count(**options: Any) -> int:
        data = spec(IMAGE)
        return build_network(transformer, transformer.Options(width=8, heads=2, **options), data).count_params()

    assert count(depth=3, share=True) == count(depth=1)
    assert count(depth=3) > 2 * count(depth=1)


def test_one_block_shares_with_no_other() -> None:
    with pytest.raises(ValidationError, match="sharing weights needs more than one block") as caught:
        transformer.Options(depth=1, share=True)
    assert caught.value.errors()[0]["loc"] == ("share",)
