"""Encoding of raw texts as the ids of their words or characters, or of n-grams of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bmcli.layers.token_encoder import TokenEncoder
from bmcli.token_ids import FIRST_TOKEN, UNKNOWN

_WORD = r"\p{L}\p{M}\p{N}_"
_SPACE = r"[\s\p{Z}\p{Cc}]+"


@keras.saving.register_keras_serializable(package="bmcli")
class TextEncoder(TokenEncoder):
    """Ids of the terms of texts in a vocabulary.

    Terms are words or characters, and sequences of them (n-grams). Further arguments are those of `TokenEncoder`.

    Args:
        vocabulary: The distinct terms.
        length, bag: See `TokenEncoder`.
        tokens: `words` or `characters`.
        ngrams: Numbers of tokens of the shortest and the longest term.
        punctuation: `split`: each sign is a token; `drop`: signs are spaces; `keep`: signs are part of words.
        spaces: `collapse` those in a row to one, and remove those around a text; `keep` every one, of characters.
        edges: Put a space before and after each text that is not empty, of characters.

    Input shape:
        `(batch,)`, text.

    Output shape:
        `(batch, length)`, int32; of a bag `(batch, 2, length)`, terms and counts.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        length: int,
        bag: bool,
        tokens: str = "words",
        ngrams: Sequence[int] = (1, 1),
        punctuation: str = "split",
        spaces: str = "collapse",
        edges: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(FIRST_TOKEN + len(vocabulary), length, bag, **kwargs)
        self.vocabulary = list(vocabulary)
        self.tokens, self.ngrams = tokens, list(ngrams)
        self.punctuation, self.spaces, self.edges = punctuation, spaces, edges
        keys = tf.constant(["", *self.vocabulary], "string")  # a table must not be empty, and no term is ""
        numbers = tf.range(UNKNOWN, FIRST_TOKEN + len(self.vocabulary), dtype="int64")
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, numbers), UNKNOWN)

    def split_terms(self, texts: Any) -> tf.RaggedTensor:
        """Split each text into terms, shorter n-grams before longer ones."""
        tokens = self._split(self.normalize(texts))
        if self.ngrams == [1, 1]:
            return tokens
        widths = list(range(self.ngrams[0], self.ngrams[1] + 1))
        return tf.strings.ngrams(tokens, widths, separator=" " if self.tokens == "words" else "")

    def count_terms(self, texts: Any) -> dict[bytes, int]:
        """Count each term in all texts together."""
        terms, _, counts = tf.unique_with_counts(self.split_terms(texts).values)
        return dict(zip(terms.numpy().tolist(), counts.numpy().tolist(), strict=True))

    def encode_ragged(self, texts):
        terms = self.split_terms(texts)
        return terms.with_values(self.table.lookup(terms.values))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["size"]
        return {
            **config,
            "vocabulary": self.vocabulary,
            "tokens": self.tokens,
            "ngrams": self.ngrams,
            "punctuation": self.punctuation,
            "spaces": self.spaces,
            "edges": self.edges,
        }

    def _split(self, texts):
        if self.punctuation == "drop":
            texts = tf.strings.regex_replace(texts, rf"[^{_WORD}]+", " ")
        elif self.punctuation == "split":
            texts = tf.strings.regex_replace(texts, rf"([^{_WORD}\s\p{{Z}}\p{{Cc}}])", r" \1 ")
        if self.spaces == "collapse":
            texts = tf.strings.strip(tf.strings.regex_replace(texts, _SPACE, " "))
        if self.tokens == "words":
            return tf.strings.split(texts)
        if self.edges:
            texts = tf.where(texts == "", "", tf.strings.join([" ", texts, " "]))
        return tf.strings.unicode_split(texts, "UTF-8")
