from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.models import cnn
from tests.models.fakes import build_network, column, spec

IMAGE = column("image", (8, 8, 1))


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(cnn, cnn.Options(**options), data)


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


def test_one_image_or_sequence_is_needed() -> None:
    with pytest.raises(
        BmcliError, match=r"works on one sequence or image, but none of these inputs fits: age \(3\)"
    ) as caught:
        _build(column("age", (3,)))
    assert caught.value.faults[0].path == "model"
    with pytest.raises(BmcliError, match=r"but 2 of these inputs fits: image \(8x8x1\), other \(8x8x1\)"):
        _build(IMAGE, column("other", (8, 8, 1)))


def test_an_image_too_small_for_the_pooling_names_the_block() -> None:
    with pytest.raises(BmcliError, match="block 4: an image of 1x1 is smaller than a pooling of 2x2") as caught:
        _build(IMAGE, filters=(2, 2, 2, 2))
    assert caught.value.faults[0].path == "model.pool"


def test_an_image_too_small_for_the_convolution_names_the_block() -> None:
    with pytest.raises(BmcliError, match="block 2: an image of 3x3 is smaller than a convolution of 5x5") as caught:
        _build(column("image", (10, 10, 1)), kernel_size=5, padding="valid")
    assert caught.value.faults[0].path == "model.kernel_size"


def test_a_sequence_is_convolved_along_its_steps() -> None:
    network = _build(column("series", (12, 3)), filters=(4, 6), kernel_size=5, dense=())
    assert network.count_params() == (5 * 3 * 4 + 4) + (5 * 4 * 6 + 6) + (6 * 3 + 3)
    assert [type(layer).__name__ for layer in network.layers][1:] == [
        "Conv1D", "Activation", "MaxPooling1D", "Conv1D", "Activation", "MaxPooling1D", "StepPooling", "Dense",
    ]  # fmt: skip


@pytest.mark.parametrize("pool_kind", ["max", "average"])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("options", [{}, {"padding": "valid"}, {"pool": 3}, {"strides": 3, "kernel_size": 3}])
def test_a_sequence_gives_the_same_however_far_it_is_padded(
    options: dict[str, Any], pooling: str, pool_kind: str
) -> None:
    options = {"filters": (4, 4), "pooling": pooling, "pool_kind": pool_kind, "kernel_size": 2, **options}
    short, long = (_build(column("text", (steps, 3), padding=0.0), **options) for steps in (36, 72))
    long.set_weights(short.get_weights())
    rows = np.random.default_rng(0).normal(size=(3, 36, 3)).astype("float32")
    rows[1, 10:] = 0.0
    padded = np.concatenate([rows, np.zeros_like(rows)], axis=1)
    first, second = short({"text": tf.constant(rows)})["label"], long({"text": tf.constant(padded)})["label"]
    if options.get("padding") == "valid":  # Only the long one has windows that begin in a row and end behind it.
        first, second = first[1:2], second[1:2]
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_average_pooling_counts_no_padding() -> None:
    network = _build(column("text", (4, 1), padding=0.0), filters=(1,), pool=2, pool_kind="average", dense=())
    pooled = next(layer for layer in network.layers if type(layer).__name__ == "StepPooling")
    kernel, bias, *rest = network.get_weights()
    network.set_weights([np.array([[[0.0]], [[1.0]], [[0.0]]], "float32"), bias, *rest])
    rows = np.array([[[3.0], [1.0], [5.0], [0.0]]], "float32")
    assert kernel.shape == (3, 1, 1)
    found = keras.Model(network.inputs, pooled.input)([tf.constant(rows)])
    np.testing.assert_allclose(found[0][0, :, 0], [2.0, 5.0])


@pytest.mark.parametrize("option", ["kernel_size", "strides", "pool"])
def test_a_sequence_has_no_rows_and_columns(option: str) -> None:
    with pytest.raises(BmcliError, match="only images have rows and columns, but 'series' is a sequence") as caught:
        _build(column("series", (12, 3)), **{option: (2, 3)})
    assert caught.value.faults[0].path == f"model.{option}"


def test_a_sequence_too_short_for_the_pooling_names_the_block() -> None:
    with pytest.raises(BmcliError, match="block 3: a sequence of 1 is smaller than a pooling of 2") as caught:
        _build(column("series", (4, 3)), filters=(2, 2, 2))
    assert caught.value.faults[0].suggestion == "Use fewer `filters`, a smaller window, or longer sequences."
