from __future__ import annotations

import numpy as np

from bmcli.layers.number_tokens import NumberTokens


def test_a_token_is_a_number_times_a_vector_plus_another() -> None:
    numbers = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    layer = NumberTokens(3)
    found = layer(numbers)
    kernel, bias = layer.get_weights()
    assert found.shape == layer.compute_output_shape((5, 2)) == (5, 2, 3)
    np.testing.assert_allclose(found, numbers[:, :, None] * kernel + bias, atol=1e-6)
    assert (kernel != bias).any()
