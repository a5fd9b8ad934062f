"""Embedding of tokens whose matrix a head may share."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bmcli")
class TokenEmbedding(keras.layers.Embedding):
    """Embedding that gives its whole matrix, too, by the transpose of which a head computes logits.

    The matrix is a tensor of the graph, so that a head that is a model of its own reads it like any other feature. A
    layer that two models share would be two layers once it is saved and loaded.

    Args of the call:
        whole: Whether to give the matrix instead of the vectors of the ids.

    Input shape:
        Ids, `(batch, steps)`.

    Output shape:
        Vectors `(batch, steps, output_dim)`, or the matrix `(input_dim, output_dim)`.
    """

    def call(self, inputs, whole=False):
        return ops.cast(self.embeddings, self.compute_dtype) if whole else super().call(inputs)

    def compute_output_shape(self, input_shape, whole=False):
        return (self.input_dim, self.output_dim) if whole else (*input_shape, self.output_dim)

    def compute_output_spec(self, inputs, whole=False):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, whole), self.compute_dtype)
