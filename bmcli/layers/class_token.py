"""Class token: an additional token, in which attention gathers information from the others."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package="bmcli")
class ClassToken(keras.layers.Layer):
    """A learned token before the others (Devlin et al. 2019; Dosovitskiy et al. 2021).

    Input shape:
        `(batch, steps, width)`.

    Output shape:
        `(batch, 1 + steps, width)`.
    """

    def build(self, input_shape):
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="token",
        )

    def call(self, inputs):
        token = keras.ops.broadcast_to(
            keras.ops.cast(self.token, inputs.dtype), (keras.ops.shape(inputs)[0], 1, inputs.shape[-1])
        )
        return keras.ops.concatenate([token, inputs], axis=1)

    def compute_output_shape(self, input_shape):
        batch, steps, width = input_shape
        return batch, None if steps is None else steps + 1, width
