"""The canonical form of texts in a graph is that of `bmcli.canonical`."""

from __future__ import annotations

import random
import unicodedata
from typing import get_args

import pyarrow as pa
import pytest
import tensorflow as tf

from bmcli import canonical
from bmcli.layers.canonical_texts import canonicalize, compose


def make_texts(count: int) -> list[str]:
    """Make random texts of letters, marks, syllables and their parts, in any order and form."""
    draw = random.Random(0)
    everything = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    changing = [each for each in everything if unicodedata.normalize("NFD", each) != each]
    marks = [each for each in everything if unicodedata.combining(each)]
    parts = [part for each in changing for part in unicodedata.normalize("NFD", each)]
    pools = (everything, changing, marks, parts, [*" \u00a0.+-0123\ufeff"])
    return ["".join(draw.choice(draw.choice(pools)) for _ in range(draw.randrange(8))) for _ in range(count)]


def test_texts_are_composed_as_unicode_defines_it() -> None:
    decomposed = [unicodedata.normalize("NFD", chr(code)) for code in (*range(0xC0, 0x250), *range(0xAC00, 0xAD00))]
    texts = [*make_texts(5000), *decomposed, "", "\x00a\u0301"]
    composed = [text.decode() for text in tf.function(compose)(tf.constant(texts)).numpy()]
    assert composed == [unicodedata.normalize("NFC", text) for text in texts]


def test_a_composed_text_among_others_is_unchanged() -> None:
    assert compose(tf.constant(["Zürich"])).numpy().tolist() == ["Zürich".encode()]
    assert compose(tf.constant([], tf.string)).shape == (0,)


@pytest.mark.parametrize("spelling", get_args(canonical.Spelling))
def test_the_graph_converts_texts_as_arrow_does(spelling: canonical.Spelling) -> None:
    numbers = ["3", "3.0", " 3", "003", "+3", "-3.0", "-0", ".5", "-.50", "00.50", "+-3", "1e5", ".0", "3.", "3\n"]
    texts = [*numbers, *make_texts(2000)]
    graph = [text.decode() for text in canonicalize(tf.constant(texts), spelling).numpy()]
    assert graph == canonical.canonicalize(pa.array(texts), spelling).fill_null("").to_pylist()
