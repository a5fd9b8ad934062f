"""Laws of every kind of tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bmcli import encoder, parts, tokens
from bmcli.normalization import Normalization
from bmcli.recipe.fields import PartField
from bmcli.tokenization.base import Tokenizer, Use

from .packages import require_packages
from .padding import encode_padded

TRAINING = (
    "To be, or not to be: that is the question.",
    "Whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune,",
    "Or to take arms against a sea of troubles, and by opposing end them.",
    "",
    "To die: to sleep; no more; and by a sleep to say we end the heart-ache",
    "and the thousand natural shocks that flesh is heir to, 'tis a consummation devoutly to be wish'd.",
) * 3

AWKWARD = (
    "",
    " ",
    "to be",
    "  two  blanks\tand a tab \n\nlines\r\n",
    "Ça va, Zu\u0308rich? A\u030angstro\u0308m ﬁ",
    "👍🏽 👩\u200d👩\u200d👧 🇨🇭",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "क्षत्रिय ไทย 한국어 日本語 e\u0301\u0323\u0301",
    "\u2581 under \u2581\u2581low_line",
    "\x00\x01 control \x7f \x85",
    "ΑΣ ΟΔΟΣ İstanbul ẞ",
    "\ufffd \ufeff\u00a0\u3000",
    "<0x41> <s> </s> <unk> <pad>",
    "a" * 3000,
    "to sleep " * 200,
)


@dataclass(frozen=True)
class Case:
    """Options of a kind, and how texts are normalised."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    normalization: Normalization = field(default_factory=Normalization)
    use: Use = "sequence"


CASES = {
    "words": Case("words"),
    "words, lower case without accents": Case("words", {"min_count": 1}, Normalization(True, True, "strip")),
    "words, written": Case("words", {"min_count": 1}, use="written"),
    "words, dropped signs": Case("words", {"min_count": 1, "punctuation": "drop"}),
    "pairs of words": Case("words", {"ngrams": (1, 2), "punctuation": "drop"}, use="bag"),
    "characters": Case("characters"),
    "characters, written": Case("characters", use="written"),
    "characters, dropped signs": Case("characters", {"punctuation": "drop"}, Normalization(False, True, "strip")),
    "characters between edges": Case("characters", {"edges": True, "ngrams": (1, 1)}),
    "n-grams of characters between edges": Case("characters", {"edges": True}, use="bag"),
    "n-grams of characters": Case("characters", {"ngrams": (2, 3), "size": 50}),
    "bpe": Case("bpe", {"size": 340}),
    "bpe, lower case without accents": Case("bpe", {"size": 8000}, Normalization(True, True, "strip")),
    "unigram": Case("unigram", {"size": 340}),
    "unigram, raw": Case("unigram", {"size": 8000}, Normalization(False)),
    "bytes": Case("bytes"),
    "bytes, lower case without accents": Case("bytes", {}, Normalization(True, True, "strip")),
}

every_case = pytest.mark.parametrize("name", CASES)


@cache
def fit(name: str) -> Tokenizer:
    case = CASES[name]
    require_packages(case.kind)
    options = PartField("tokens").check({"kind": case.kind, **case.options})
    return tokens.fit(options, case.normalization, TRAINING, case.use)


def test_every_kind_has_a_case() -> None:
    assert {case.kind for case in CASES.values()} == set(parts.names("tokens"))


@every_case
def test_special_ids_are_the_same_for_all(name: str) -> None:
    tokenizer = fit(name)
    assert (tokenizer.padding, tokenizer.unknown) == (0, 1)
    assert (tokenizer.begin, tokenizer.end, tokenizer.size) == (
        tokenizer.inner_size, tokenizer.inner_size + 1, tokenizer.inner_size + 2
    )  # fmt: skip
    ids, _ = tokenizer.encode_flat(AWKWARD)
    assert ids.dtype == np.int32
    assert ids.min() >= tokenizer.unknown
    assert ids.max() < tokenizer.inner_size


@every_case
def test_the_layer_encodes_as_the_tokenizer(name: str) -> None:
    tokenizer = fit(name)
    ids, starts = tokenizer.encode_flat(AWKWARD)
    ragged = tokenizer.make_layer(1).encode_ragged(np.array(AWKWARD, object))
    np.testing.assert_array_equal(np.diff(starts), ragged.row_lengths())
    np.testing.assert_array_equal(ids, ragged.values)
    np.testing.assert_array_equal(
        tokenizer.make_layer(40)(np.array(AWKWARD, object)), encode_padded(tokenizer, AWKWARD, 40)
    )


@every_case
def test_the_encoder_beside_an_artefact_encodes_as_the_tokenizer(name: str) -> None:
    tokenizer = fit(name)
    state = {"tokenizer": json.loads(json.dumps(tokenizer.to_state())), "length": 70, "bag": False, "ends": []}
    column = {"kind": "text", "shape": [70], "dtype": "int32", "state": state}
    np.testing.assert_array_equal(encoder.encode(column, AWKWARD), encode_padded(tokenizer, AWKWARD, 70))
    layer = tokenizer.make_layer(70)
    for ends in (["begin"], ["begin", "end"]):
        state["ends"] = layer.ends = ends
        np.testing.assert_array_equal(encoder.encode(column, AWKWARD), layer(tf.constant(AWKWARD)))


@every_case
def test_known_tokens_give_back_the_normalised_text(name: str) -> None:
    tokenizer = fit(name)
    assert (
        tokenizer.is_lossless
        or CASES[name].options.get("ngrams")
        or CASES[name].use == "bag"
        or (CASES[name].kind == "words" and tokenizer.to_state()["punctuation"] == "split")
    )
    if not tokenizer.is_lossless:
        return
    for text in (*TRAINING, *AWKWARD):
        ids, _ = tokenizer.encode_flat([text])
        if tokenizer.unknown not in ids:
            special = np.array([tokenizer.begin, *ids, tokenizer.end, 0, 0])
            assert tokenizer.decode(special) == tokenizer.normalize(text)
    ids, starts = tokenizer.encode_flat(TRAINING)
    assert tokenizer.unknown not in ids
    assert len(starts) == len(TRAINING) + 1


@every_case
def test_texts_are_decoded_piece_by_piece(name: str) -> None:
    """What is written token by token is what is decoded at once, up to characters that are split."""
    tokenizer = fit(name)
    if not tokenizer.is_lossless:
        return
    ids, _ = tokenizer.encode_flat(TRAINING[:1])
    pieces = [tokenizer.decode(ids[at : at + 1]) for at in range(len(ids))]
    assert tokenizer.separator.join(pieces) == tokenizer.decode(ids)
    assert pieces[0] + tokenizer.find_joint(pieces[0]) + tokenizer.decode(ids[1:]) == tokenizer.decode(ids)


@every_case
def test_an_unknown_token_is_a_sign(name: str) -> None:
    tokenizer = fit(name)
    assert tokenizer.decode(np.array([1])) == "\N{REPLACEMENT CHARACTER}"
    assert tokenizer.decode(np.array([], "int32")) == ""
    assert all(tokenizer.get_token(number) for number in range(1, tokenizer.inner_size))


@every_case
def test_a_tokenizer_survives_json(name: str) -> None:
    tokenizer = fit(name)
    again = tokens.from_state(json.loads(json.dumps(tokenizer.to_state(), allow_nan=False)))
    assert again == tokenizer
    assert again.kind == CASES[name].kind


@every_case
def test_fitting_is_deterministic_and_free_of_the_order_of_the_rows(name: str) -> None:
    case = CASES[name]
    require_packages(case.kind)
    options = PartField("tokens").check({"kind": case.kind, **case.options})
    again = tokens.fit(options, case.normalization, pa.chunked_array([[*TRAINING[::-1], None]]), case.use)
    assert again.to_state() == fit(name).to_state()


@every_case
def test_a_served_text_that_is_no_utf8_is_read_with_replaced_bytes(name: str) -> None:
    tokenizer = fit(name)
    broken = b"to \xff\xfe be \xc3"
    ragged = tokenizer.make_layer(1).encode_ragged(tf.constant([broken]))
    np.testing.assert_array_equal(ragged.values, tokenizer.encode_flat([broken.decode("utf-8", "replace")])[0])


# Capital letters since Unicode 14, of which TensorFlow has no small ones.
YOUNG_CAPITALS = {0x2C2F, 0xA7C0, 0xA7D0, 0xA7D6, 0xA7D8, *range(0x10570, 0x10596)}


def test_every_character_is_normalised_as_in_a_graph() -> None:
    """By the tokenizer of characters, which NumPy splits, and by its layer."""
    every = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000 and code not in YOUNG_CAPITALS]
    texts = ["".join(every[start : start + 256]) for start in range(0, len(every), 256)]
    options = PartField("tokens").check({"kind": "characters", "size": 1_000_000})
    for normalization in (Normalization(), Normalization(False, True, "strip")):
        tokenizer = tokens.fit(options, normalization, texts, "written")
        ids, _ = tokenizer.encode_flat(texts)
        np.testing.assert_array_equal(ids, tokenizer.make_layer(1).encode_ragged(np.array(texts, object)).values)


@every_case
def test_a_word_of_a_million_letters_is_encoded(name: str) -> None:
    text = "ab" * 500_000
    ids, starts = fit(name).encode_flat(["to be", text])
    assert starts.tolist()[-1] == len(ids)
    assert encode_padded(fit(name), [text], 5).shape == (1, 5)
