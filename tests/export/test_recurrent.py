"""Recurrent layers as loops over plain tensors compute what Keras' own loops compute."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from bmcli.export import recurrent

MAKERS = {
    "lstm": lambda: keras.layers.LSTM(5),
    "gru": lambda: keras.layers.GRU(5, return_sequences=True),
    "simple": lambda: keras.layers.SimpleRNN(5, go_backwards=True, return_sequences=True),
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(5, return_sequences=True)),
    "bidirectional, last": lambda: keras.layers.Bidirectional(keras.layers.LSTM(5, dropout=0.5)),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_loop_gives_what_keras_gives(name: str, masked: bool) -> None:
    keras.utils.set_random_seed(3)
    inputs, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    given: dict[str, Any] = {"mask": mask} if masked else {}
    model = keras.Model([inputs, mask], MAKERS[name]()(inputs, **given))
    found = recurrent.replace_recurrent_layers(model)
    assert found is not model
    drawn = np.random.default_rng(0)
    rows = [drawn.normal(size=(7, 6, 4)).astype("float32"), drawn.random((7, 6)) < 0.6]
    rows[1][0] = False  # a row of padding alone
    rows[1][1] = True
    np.testing.assert_allclose(found(rows), model(rows), atol=1e-6)


def test_a_network_without_recurrent_layers_is_left_alone() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert recurrent.replace_recurrent_layers(model) is model
