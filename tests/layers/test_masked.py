from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from bmcli.layers.masked import Masked

STEPS = np.array([[[2.0], [4.0], [90.0]], [[5.0], [6.0], [7.0]]], "float32")


def test_layers_behind_it_see_the_mask() -> None:
    mask = tf.constant([[True, True, False], [True, True, True]])
    pooled = keras.layers.GlobalAveragePooling1D()(Masked()([STEPS, mask]))
    np.testing.assert_allclose(pooled, [[3.0], [6.0]])


def test_a_sequence_of_padding_keeps_its_first_step() -> None:
    mask = tf.constant([[False, False, False], [False, True, False]])
    pooled = keras.layers.GlobalAveragePooling1D()(Masked()([STEPS, mask]))
    np.testing.assert_allclose(pooled, [[2.0], [6.0]])
