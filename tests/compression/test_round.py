"""Rounding: weights that small integers stand for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bmcli.compression.methods.round import Options, apply, list_kernels, round_to_levels, scale_axes

from .conftest import examples, given, kernels


@pytest.mark.parametrize(("to", "levels"), [("int4", 7), ("int8", 127)])
def test_every_channel_has_integers_of_its_own(trained: keras.Model, to: str, levels: int) -> None:
    found = apply(Options(to=to), trained, given(examples()))
    for before, after in zip(kernels(trained), kernels(found), strict=True):
        scale = np.abs(before).reshape(-1, before.shape[-1]).max(axis=0) / levels
        integers = after / scale
        np.testing.assert_allclose(integers, np.round(integers), atol=1e-3)
        assert np.abs(integers).max() == pytest.approx(levels)
        assert np.abs(after - before).max() <= scale.max() / 2 + 1e-6


def test_a_channel_of_zeros_stays_so() -> None:
    assert np.asarray(round_to_levels(np.zeros((3, 2), "float32"), (0,), 7)).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("make", "shape", "scales"),
    [
        (lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 4), [(1, 1, 4, 2)]),
        (lambda: keras.layers.SeparableConv2D(6, 3), (5, 5, 4), [(1, 1, 4, 1), (1, 1, 1, 6)]),
        (lambda: keras.layers.Conv1D(6, 3), (5, 4), [(1, 1, 6)]),
        (lambda: keras.layers.EinsumDense("ab,bcd->acd", (2, 3)), (4,), [(1, 1, 1)]),
    ],
)
def test_each_kind_of_layer_has_its_own_channels(make: object, shape: tuple[int, ...], scales: list[object]) -> None:
    layer = make()  # type: ignore[operator]
    layer.build((None, *shape))
    found = [
        np.abs(weight.numpy()).max(axis=scale_axes(layer, weight), keepdims=True).shape
        for weight in list_kernels(layer)
    ]
    assert found == scales
