"""Encoding of raw traces, for serving."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="seismology")
class TraceEncoder(keras.layers.Layer):
    """Readings of texts, scaled, with 1 at each; two zeros where there is none.

    Input shape:
        `(batch,)` of text.

    Output shape:
        `(batch, steps, 2)`, float32.
    """

    def __init__(self, steps, mean, scale, **kwargs):
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.steps, self.mean, self.scale = steps, mean, scale

    def call(self, cells):
        words = tf.strings.split(cells).to_tensor("", shape=(None, self.steps))
        is_present = words != ""
        values = (tf.strings.to_number(tf.where(is_present, words, "0")) - self.mean) / self.scale
        return tf.stack([tf.where(is_present, values, 0.0), tf.cast(is_present, "float32")], axis=-1)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps, "mean": self.mean, "scale": self.scale}
