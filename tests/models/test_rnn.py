from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.models import rnn
from tests.models.fakes import build_network, column, spec


def _build(*columns: Any, **options: Any) -> Any:
    data = spec(*columns)
    return build_network(rnn, rnn.Options(**options), data)


def test_an_image_is_read_row_by_row() -> None:
    network = _build(column("image", (4, 3, 2)), cell="simple", units=5)
    assert next(layer for layer in network.layers if layer.name.startswith("simple_rnn")).cell.kernel.shape == (6, 5)


def test_both_directions_start_with_weights_of_their_own() -> None:
    network = _build(column("series", (4, 3)), bidirectional=True, units=5)
    both = next(layer for layer in network.layers if layer.name.startswith("bidirectional"))
    assert (both.forward_layer.cell.kernel.numpy() != both.backward_layer.cell.kernel.numpy()).any()


def test_a_sequence_is_needed() -> None:
    with pytest.raises(BmcliError, match=r"one sequence or image, but none of these inputs fits: age \(3\)"):
        _build(column("age", (3,)))


def test_shared_layers_have_one_set_of_weights() -> None:
    one, shared, apart = (
        _build(column("series", (4, 5)), units=units, share=share, pooling="mean")
        for units, share in ((5, False), ((5, 5, 5), True), ((5, 5, 5), False))
    )
    assert shared.count_params() == one.count_params()
    assert apart.count_params() > 2 * shared.count_params()


def test_a_shared_layer_reads_what_a_linear_map_makes_as_wide_as_its_output() -> None:
    network = _build(column("series", (4, 3)), units=(5, 5), share=True, bidirectional=True)
    first = next(layer for layer in network.layers if type(layer).__name__ == "Dense")
    assert first.kernel.shape == (3, 10)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_state_of_shared_layers_is_that_of_keras(bidirectional: bool) -> None:
    """Shared layers give all steps; the last state is taken out of these."""
    units = 2 if bidirectional else 4  # as wide as the series, so that there is no linear map
    network = _build(column("text", (6, 4), padding=0.0), units=(units,) * 2, share=True, bidirectional=bidirectional)
    rows = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    rows[1, 4:, 0] = 0.0
    mask = tf.constant(rows[:, :, 0] != 0)
    found = keras.Model(network.inputs, network.layers[-1].input)([tf.constant(rows)])
    steps = keras.layers.LSTM(units, return_sequences=True), keras.layers.LSTM(units)
    steps, last = map(keras.layers.Bidirectional, steps) if bidirectional else steps
    for layer in (steps, last):
        layer.build((None, 6, 4))
        layer.set_weights(network.get_weights()[:-2])
    np.testing.assert_allclose(found, last(steps(tf.constant(rows), mask=mask), mask=mask), atol=1e-6)


@pytest.mark.parametrize("units", [4, (4,), (4, 5)])
def test_layers_of_other_units_cannot_share(units: Any) -> None:
    with pytest.raises(
        ValidationError, match="sharing weights needs several recurrent layers of the same units"
    ) as caught:
        rnn.Options(units=units, share=True)
    assert caught.value.errors()[0]["loc"] == ("share",)
