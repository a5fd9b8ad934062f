"""Encoding of raw texts as the ids of their tokens; for preparing data and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.layers.canonical_texts import compose
from bmcli.normalization import ACCENTED, MARKS, find_plain_letter
from bmcli.token_ids import PADDING, UNKNOWN


@keras.saving.register_keras_serializable(package="bmcli")
class TokenEncoder(keras.layers.Layer):
    """Base class of the layers that encode texts, each of which defines `encode_ragged`.

    Unknown tokens are left out of a bag, and are UNKNOWN in a sequence. A text without tokens is an empty bag, or a
    sequence of one UNKNOWN.

    Args:
        size: Number of ids, without those of begin and end.
        length: Largest number of tokens of a text, the first ones; of distinct ones in a bag.
        bag: Return each token once, with its count, instead of the sequence of tokens.
        composed: Convert texts to Unicode's normal form C.
        lowercase: Convert texts to lower case.
        accents: `keep`, or `strip` those of Latin, Greek and Cyrillic letters.
        ends: Of `begin` and `end`: put `size` before the ids of a sequence, and `size + 1` after them where it is not
            cut. An empty text has these alone.

    Input shape:
        `(batch,)`, text.

    Output shape:
        `(batch, length)`, int32, PADDING after the last token; of a bag `(batch, 2, length)`, tokens and counts.
    """

    def __init__(
        self,
        size: int,
        length: int,
        bag: bool,
        composed: bool = True,
        lowercase: bool = True,
        accents: str = "keep",
        ends: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.size, self.length, self.bag = size, length, bag
        self.composed, self.lowercase, self.accents, self.ends = composed, lowercase, accents, list(ends)

    def encode_ragged(self, texts: Any) -> tf.RaggedTensor:
        """Encode texts as their ids, int64, without padding."""
        raise NotImplementedError

    def normalize(self, texts: Any) -> Any:
        """Normalise texts, to `(batch,)`."""
        texts = tf.reshape(texts, [-1])
        # Texts that are served may not be valid UTF-8; this replaces invalid bytes.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        # `tf.strings.lower` ends a text at the character 0.
        texts = tf.strings.regex_replace(texts, r"\x00", "\N{REPLACEMENT CHARACTER}")
        texts = compose(texts) if self.composed else texts
        texts = tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts
        return _strip_accents(texts) if self.accents == "strip" else texts

    def count_known(self, ids: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Find the distinct known ids of each text in their order, and their counts."""
        known = ids.values != UNKNOWN
        # Text and id combined to one number, so that one `unique` counts the ids of all texts.
        pairs = ids.value_rowids() * self.size + ids.values
        pairs, _, counts = tf.unique_with_counts(tf.boolean_mask(pairs, known))
        found = tf.RaggedTensor.from_value_rowids(tf.cast(pairs % self.size, "int32"), pairs // self.size, ids.nrows())
        return found, found.with_values(counts)

    def call(self, inputs):
        shape = [None, self.length]
        ids = self.encode_ragged(inputs)
        if self.ends:
            begin = tf.fill([ids.nrows(), 1], tf.constant(self.size, ids.dtype))
            ids = tf.concat([begin, ids, begin + 1] if "end" in self.ends else [begin, ids], axis=1)
            return tf.cast(ids.to_tensor(PADDING, shape=shape), "int32")
        if not self.bag:
            empty = (ids.row_lengths() == 0)[:, tf.newaxis] & (tf.range(self.length) == 0)
            return tf.where(empty, UNKNOWN, tf.cast(ids.to_tensor(PADDING, shape=shape), "int32"))
        known, counts = self.count_known(ids)
        return tf.stack([known.to_tensor(PADDING, shape=shape), counts.to_tensor(0, shape=shape)], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2, self.length) if self.bag else (input_shape[0], self.length)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "length": self.length,
            "bag": self.bag,
            "composed": self.composed,
            "lowercase": self.lowercase,
            "accents": self.accents,
            "ends": self.ends,
        }


def _strip_accents(texts: Any) -> Any:
    plain_letters = _list_plain_letters()
    letters = tf.strings.unicode_decode(texts, "UTF-8")
    values = letters.values
    size = len(plain_letters)
    plain = tf.where(values < size, tf.gather(plain_letters, tf.minimum(values, size - 1)), values)
    letters = letters.with_values(plain)
    marks = (plain >= MARKS.start) & (plain < MARKS.stop)
    return tf.strings.unicode_encode(tf.ragged.boolean_mask(letters, letters.with_values(~marks)), "UTF-8")


@cache
def _list_plain_letters() -> np.ndarray:
    """Map each code point of the scripts with accents to the letter without them, and others to themselves."""
    return np.array([find_plain_letter(code) for code in range(ACCENTED[-1].stop)], "int32")
