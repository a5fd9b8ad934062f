"""Low-rank factorisation: two thin layers for one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from bmcli.compression.methods import low_rank, measure_model_size
from bmcli.errors import BmcliError

from .conftest import examples, given, logits


def of_rank(rank: int, *shape: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    rows = int(np.prod(shape[:-1]))
    return (draw.normal(size=(rows, rank)) @ draw.normal(size=(rank, shape[-1]))).reshape(shape).astype("float32")


LAYERS: dict[str, tuple[tuple[int, ...], Any]] = {
    "dense": ((20,), lambda: keras.layers.Dense(30, activation="tanh")),
    "without bias": ((20,), lambda: keras.layers.Dense(30, use_bias=False)),
    "conv2d": ((9, 7, 6), lambda: keras.layers.Conv2D(16, (3, 2), strides=2, padding="same", activation="relu")),
    "dilated": ((9, 9, 6), lambda: keras.layers.Conv2D(16, 3, dilation_rate=2)),
    "causal": ((9, 6), lambda: keras.layers.Conv1D(16, 3, padding="causal")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_kernel_of_low_rank_is_replaced_exactly(name: str) -> None:
    shape, make = LAYERS[name]
    given = keras.Input(shape)
    model = keras.Model(given, make()(given))
    (layer,) = (layer for layer in model.layers if layer.weights)
    layer.set_weights([of_rank(3, *layer.kernel.shape), *layer.get_weights()[1:]])
    found = low_rank.apply(low_rank.Options(energy=1.0), model, {})
    (pair,) = (each for each in found.layers if each.weights)
    assert [each.kernel.shape[-1] for each in pair.layers] == [3, layer.kernel.shape[-1]]
    rows = np.random.default_rng(2).normal(size=(4, *shape)).astype("float32")
    np.testing.assert_allclose(found(rows), model(rows), atol=1e-3, rtol=1e-3)
    assert found.count_params() < model.count_params()


@pytest.mark.parametrize(("energy", "rank"), [(0.6, 1), (0.64, 1), (0.7, 2), (1.0, 3)])
def test_the_rank_follows_from_the_share_that_is_left(energy: float, rank: int) -> None:
    assert low_rank.choose_rank(np.array([8.0, 6.0, 1e-9, 0.0]), energy) == min(rank, 2)


def test_no_other_product_of_this_rank_is_nearer(trained: keras.Model) -> None:
    """The error is the root of the sum of squares of what is left out (Eckart and Young 1936)."""
    layer = next(layer for layer in trained.layers if isinstance(layer, keras.layers.Dense))
    first, second = low_rank._factorize_kernel(layer, 0.8)
    values = np.linalg.svd(layer.kernel.numpy(), compute_uv=False)
    error = np.linalg.norm(layer.kernel.numpy() - first @ second)
    assert error == pytest.approx(np.sqrt((values[first.shape[-1] :] ** 2).sum()), rel=1e-4)


def test_layers_that_would_not_become_smaller_stay(trained: keras.Model) -> None:
    found = low_rank.apply(low_rank.Options(energy=0.9), trained, given(examples()))
    assert (
        type(found.get_layer("head")) is keras.layers.Dense
        or measure_model_size(found).parameters < measure_model_size(trained).parameters
    )
    with pytest.raises(BmcliError, match="no layer becomes smaller"):
        low_rank.apply(low_rank.Options(energy=1.0), trained, given(examples()))


def test_less_energy_leaves_a_smaller_network_that_is_further_away(trained: keras.Model) -> None:
    expected = logits(trained)
    networks = [low_rank.apply(low_rank.Options(energy=e), trained, given(examples())) for e in (0.85, 0.5)]
    sizes = [network.count_params() for network in networks]
    errors = [float(np.abs(logits(network) - expected).mean()) for network in networks]
    assert sizes[1] < sizes[0] < trained.count_params()
    assert errors[0] < errors[1]
