from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.layers.class_token import ClassToken


def test_one_token_comes_before_the_others() -> None:
    layer, tokens = ClassToken(), tf.random.normal((3, 4, 2))
    with_token = layer(tokens).numpy()
    assert layer.compute_output_shape((None, 4, 2)) == (None, 5, 2)
    np.testing.assert_array_equal(with_token[:, 1:], tokens)
    np.testing.assert_array_equal(with_token[:, 0], np.repeat(layer.token.numpy()[0], 3, axis=0))
