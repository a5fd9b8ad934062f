"""Masking of tokens at places that depend on their text alone, so that every pass over it hides the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bmcli.token_ids import FIRST_TOKEN


@keras.saving.register_keras_serializable(package="bmcli")
class TokenMasks(keras.layers.Layer):
    """Replace tokens in even distances by the mask token.

    The first distance depends on the sum of the ids. Of a text that has mask tokens already, nothing is changed; of any
    other one, at least one token is masked if it has a known one.

    Args:
        mask: Id of the mask token, one above all others.
        percent: Share of the tokens, or words, that are masked.
        word_starts: Ids of tokens that begin a word, whose tokens are masked together; empty to mask them one by one.

    Input shape:
        `(batch, steps)`, int32.

    Output shape:
        The same.
    """

    def __init__(self, mask: int, percent: int, word_starts: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.mask, self.percent, self.word_starts = mask, percent, list(word_starts)
        known = set(self.word_starts)
        self._starts = [int(each in known) for each in range(mask + 1)]

    def number_words(self, ids: Any) -> Any:
        """Number the words of each text, or the tokens if they are masked one by one, int32 `(batch, steps)`."""
        places = ops.zeros_like(ids) + ops.expand_dims(ops.arange(ids.shape[1], dtype="int32"), 0)
        if not self.word_starts:
            return places
        starts = ops.take(ops.convert_to_tensor(self._starts, "int32"), ids, axis=0)
        # The first token begins a word, whether there is a space before it or not.
        return ops.cumsum(ops.where(places == 0, 0, starts), axis=1)

    def call(self, inputs):
        ids = ops.cast(inputs, "int32")
        offset = ops.mod(ops.sum(ids, axis=1, keepdims=True), 100)
        places = ops.mod(self.number_words(ids) + offset, 100) + 1
        known = ops.logical_and(ids >= FIRST_TOKEN, ids < self.mask)
        # As many of 100 places as `percent`, in distances that differ by at most 1.
        chosen = ops.logical_and(known, ops.mod(places * self.percent, 100) < self.percent)
        first = ops.logical_and(known, ops.cumsum(ops.cast(known, "int32"), axis=1) == 1)
        chosen = ops.where(ops.any(chosen, axis=1, keepdims=True), chosen, first)
        has_masks = ops.any(ids == self.mask, axis=1, keepdims=True)
        return ops.where(ops.logical_and(chosen, ops.logical_not(has_masks)), self.mask, ids)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask": self.mask, "percent": self.percent, "word_starts": self.word_starts}
