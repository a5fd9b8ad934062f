from __future__ import annotations

import numpy as np
import tensorflow as tf

from bmcli.layers.channel_scale import ChannelScale


def test_each_channel_has_a_factor_of_its_own() -> None:
    layer = ChannelScale(0.1)
    maps = tf.ones((2, 3, 3, 4))
    np.testing.assert_allclose(layer(maps), np.full((2, 3, 3, 4), 0.1), rtol=1e-6)
    layer.set_weights([np.arange(4.0)])
    np.testing.assert_array_equal(layer(maps)[0, 0, 0], [0.0, 1.0, 2.0, 3.0])
