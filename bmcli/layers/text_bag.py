"""Vectors of bags of terms: counts, TF-IDF, or sums of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.token_ids import FIRST_TOKEN


@keras.saving.register_keras_serializable(package="bmcli")
class TextBag(keras.layers.Layer):
    """Vector of each term's count times its weight, over the vocabulary.

    With a dimension, that vector times a learned matrix, which is the sum of the terms' embeddings (Joulin et al.
    2017).

    Args:
        weights: A number for each term, e.g. its inverse document frequency.
        normalize: Divide each text's values by their Euclidean norm.
        dimension: Width of the embeddings, or None for the vector itself.

    Input shape:
        `(batch, 2, length)` of integers: terms from FIRST_TOKEN on, and their counts; 0 is padding.

    Output shape:
        `(batch, 2 + terms)`, of which the first two are always 0, or `(batch, dimension)`.
    """

    def __init__(
        self, weights: Sequence[float], normalize: bool = False, dimension: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.term_weights, self.normalize, self.dimension = list(weights), normalize, dimension
        self.width = FIRST_TOKEN + len(self.term_weights)

    def build(self, input_shape):
        if self.dimension is not None:
            self.embeddings = self.add_weight(
                shape=(self.width, self.dimension), initializer="glorot_uniform", name="embeddings"
            )

    def call(self, inputs):
        terms = tf.cast(inputs[:, 0], "int32")
        factors = tf.constant([0.0] * FIRST_TOKEN + self.term_weights, "float32")
        values = tf.cast(inputs[:, 1], "float32") * tf.gather(factors, terms)
        if self.normalize:
            values = tf.math.divide_no_nan(values, tf.norm(values, axis=1, keepdims=True))
        if self.dimension is not None:
            # Only the rows of the terms are read: the vector over the vocabulary is never computed.
            vectors = tf.gather(tf.cast(self.embeddings, "float32"), terms)
            return tf.cast(tf.einsum("bl,bld->bd", values, vectors), self.compute_dtype)
        rows = tf.broadcast_to(tf.range(tf.shape(terms)[0])[:, tf.newaxis], tf.shape(terms))
        places = tf.stack([rows, terms], axis=-1)
        return tf.cast(tf.scatter_nd(places, values, [tf.shape(terms)[0], self.width]), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.dimension or self.width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "weights": self.term_weights,
            "normalize": self.normalize,
            "dimension": self.dimension,
        }
