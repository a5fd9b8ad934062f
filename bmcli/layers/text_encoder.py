"""Encoding of raw texts as the numbers of their words or characters; for preparing data and for serving."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli.layers.canonical_texts import compose

PADDING, UNKNOWN, FIRST_TERM = 0, 1, 2
"""Numbers with special meanings, and the number of the first term of the vocabulary."""

_WORD = r"\p{L}\p{M}\p{N}_"
_SPACE = r"[\s\p{Z}\p{Cc}]+"
# Scripts in which marks are accents; in others a mark distinguishes letters.
_ACCENTED = (range(0xC0, 0x250), range(0x370, 0x530), range(0x1E00, 0x2000))
_MARKS = range(0x300, 0x370)


@keras.saving.register_keras_serializable(package="bmcli")
class TextEncoder(keras.layers.Layer):
    """Numbers of the terms of texts in a vocabulary.

    Terms are words or characters, and sequences of them (n-grams). Terms that the vocabulary lacks are left out of a
    bag, and are UNKNOWN in a sequence. A text without terms is an empty bag, or a sequence of one UNKNOWN.

    Args:
        vocabulary: The distinct terms.
        length: Largest number of terms of a text, the first ones; of distinct ones in a bag.
        bag: Return each term once, with its count, instead of the sequence of terms.
        tokens: `words` or `characters`.
        ngrams: Numbers of tokens of the shortest and the longest term.
        lowercase: Convert texts to lower case.
        accents: `keep`, or `strip` those of Latin, Greek and Cyrillic letters.
        punctuation: `split`: each sign is a token; `drop`: signs are spaces; `keep`: signs are part of words.
        composed: Convert texts to Unicode's normal form C.

    Input shape:
        `(batch,)`, text.

    Output shape:
        `(batch, length)`, int32, PADDING after the last term; of a bag `(batch, 2, length)`, terms and counts.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        length: int,
        bag: bool,
        tokens: str = "words",
        ngrams: Sequence[int] = (1, 1),
        lowercase: bool = True,
        accents: str = "keep",
        punctuation: str = "split",
        composed: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "trainable": False})
        self.vocabulary, self.length, self.bag = list(vocabulary), length, bag
        self.tokens, self.ngrams = tokens, list(ngrams)
        self.lowercase, self.accents, self.punctuation = lowercase, accents, punctuation
        self.composed = composed
        keys = tf.constant(["", *self.vocabulary], "string")  # a table must not be empty, and no term is ""
        numbers = tf.range(UNKNOWN, FIRST_TERM + len(self.vocabulary), dtype="int64")
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, numbers), UNKNOWN)

    def split_terms(self, texts: Any) -> tf.RaggedTensor:
        """Split each text into terms, shorter n-grams before longer ones."""
        texts = tf.reshape(texts, [-1])
        # Texts that are served may not be valid UTF-8; this replaces invalid bytes.
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        texts = compose(texts) if self.composed else texts
        texts = tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts
        texts = self._without_accents(texts) if self.accents == "strip" else texts
        tokens = self._split(texts)
        if self.ngrams == [1, 1]:
            return tokens
        widths = list(range(self.ngrams[0], self.ngrams[1] + 1))
        return tf.strings.ngrams(tokens, widths, separator=" " if self.tokens == "words" else "")

    def count_terms(self, texts: Any) -> dict[bytes, int]:
        """Count each term in all texts together."""
        terms, _, counts = tf.unique_with_counts(self.split_terms(texts).values)
        return dict(zip(terms.numpy().tolist(), counts.numpy().tolist(), strict=True))

    def count_known_terms(self, texts: Any) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Find the distinct known terms of each text in their order, and their counts."""
        numbers = self._numbers(texts)
        known = numbers.values != UNKNOWN
        width = FIRST_TERM + len(self.vocabulary)
        # Text and term combined to one number, so that one `unique` counts the terms of all texts.
        pairs = numbers.value_rowids() * width + numbers.values
        pairs, _, counts = tf.unique_with_counts(tf.boolean_mask(pairs, known))
        terms = tf.RaggedTensor.from_value_rowids(tf.cast(pairs % width, "int32"), pairs // width, numbers.nrows())
        return terms, terms.with_values(counts)

    def call(self, inputs):
        shape = [None, self.length]
        if not self.bag:
            numbers = self._numbers(inputs)
            empty = (numbers.row_lengths() == 0)[:, tf.newaxis] & (tf.range(self.length) == 0)
            return tf.where(empty, UNKNOWN, tf.cast(numbers.to_tensor(PADDING, shape=shape), "int32"))
        terms, counts = self.count_known_terms(inputs)
        return tf.stack([terms.to_tensor(PADDING, shape=shape), counts.to_tensor(0, shape=shape)], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2, self.length) if self.bag else (input_shape[0], self.length)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "length": self.length,
            "bag": self.bag,
            "tokens": self.tokens,
            "ngrams": self.ngrams,
            "lowercase": self.lowercase,
            "accents": self.accents,
            "punctuation": self.punctuation,
            "composed": self.composed,
        }

    def _numbers(self, texts):
        terms = self.split_terms(texts)
        return terms.with_values(self.table.lookup(terms.values))

    def _split(self, texts):
        if self.punctuation == "drop":
            texts = tf.strings.regex_replace(texts, rf"[^{_WORD}]+", " ")
        elif self.punctuation == "split":
            texts = tf.strings.regex_replace(texts, rf"([^{_WORD}\s\p{{Z}}\p{{Cc}}])", r" \1 ")
        texts = tf.strings.strip(tf.strings.regex_replace(texts, _SPACE, " "))
        if self.tokens == "words":
            return tf.strings.split(texts)
        return tf.strings.unicode_split(texts, "UTF-8")

    def _without_accents(self, texts):
        plain_letters = _plain_letters()
        letters = tf.strings.unicode_decode(texts, "UTF-8")
        values = letters.values
        size = len(plain_letters)
        plain = tf.where(values < size, tf.gather(plain_letters, tf.minimum(values, size - 1)), values)
        letters = letters.with_values(plain)
        marks = (plain >= _MARKS.start) & (plain < _MARKS.stop)
        return tf.strings.unicode_encode(tf.ragged.boolean_mask(letters, letters.with_values(~marks)), "UTF-8")


@cache
def _plain_letters() -> np.ndarray:
    """Map each code point of the scripts with accents to the letter without them, and others to themselves."""
    plain = np.arange(_ACCENTED[-1].stop, dtype="int32")
    for letter in (letter for script in _ACCENTED for letter in script):
        base, *marks = list(unicodedata.normalize("NFD", chr(letter)))
        if all(unicodedata.combining(mark) for mark in marks):
            plain[letter] = ord(base)
    return plain
