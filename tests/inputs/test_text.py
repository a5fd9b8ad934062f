from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pydantic import ValidationError
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from bmcli.errors import BmcliError
from bmcli.inputs import Guess, text
from bmcli.raw_columns import ColumnCells
from bmcli.specs import Column

REVIEWS = [
    "The tea is good, very good!",
    "Not good. The box was open",
    "",
    "Bad tea, bad box: bad",
    "good value for the money",
    "unlike all others",
]
PLAIN = {"punctuation": "drop", "min_count": 1}


def rows(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def options_of(**options: Any) -> text.Options:
    """Options of a text, with those of its tokens beside them."""
    unit = {name: options.pop(name) for name in ("ngrams", "punctuation", "min_count", "size") if name in options}
    return text.Options(tokens={"kind": options.pop("tokens", "words"), **unit}, **options)


def fit(*cells: str | None, **options: Any) -> Column:
    return text.fit("x", rows(*cells), options_of(**{"min_count": 1, **options}))


def vocabulary_of(column: Column) -> list[str]:
    terms: list[str] = column.state["tokenizer"]["vocabulary"]
    return terms


def terms(cell: str, **options: Any) -> list[str]:
    """Return the terms of a text, shorter n-grams first."""
    layer = text.build_encoder(fit("some text of six words here", **{"ngrams": (1, 1), **options}))
    return [term.decode() for term in layer.split_terms([cell]).values.numpy()]


def vectors(column: Column, *cells: str | None) -> np.ndarray:
    """Return the features of the network, one column for each term of the vocabulary."""
    feature = text.build_feature(column, keras.ops.convert_to_tensor(text.encode(rows(*cells), column)))
    return feature.tensor.numpy()[:, 2:]


def in_our_order(vectorizer: Any, column: Column, texts: list[str]) -> np.ndarray:
    found = vectorizer.transform(texts).toarray()
    return found[:, [vectorizer.vocabulary_[term] for term in vocabulary_of(column)]]


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2), (2, 3)])
def test_tfidf_is_that_of_scikit_learn(ngrams: tuple[int, int]) -> None:
    column = fit(*REVIEWS, ngrams=ngrams, punctuation="drop")
    theirs = TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=ngrams).fit(REVIEWS)
    assert set(theirs.vocabulary_) == set(vocabulary_of(column))
    others = ["good tea and a bad bad box", "nothing of it", "the the the"]
    for texts in (REVIEWS, others):
        np.testing.assert_allclose(vectors(column, *texts), in_our_order(theirs, column, texts), atol=1e-6)


@pytest.mark.parametrize("ngrams", [(1, 1), (2, 4)])
def test_a_bag_of_characters_is_that_of_scikit_learn(ngrams: tuple[int, int]) -> None:
    column = fit(*REVIEWS, encoding="bag", tokens="characters", ngrams=ngrams)
    theirs = CountVectorizer(analyzer="char", ngram_range=ngrams).fit(REVIEWS)
    assert set(theirs.vocabulary_) == set(vocabulary_of(column))
    np.testing.assert_array_equal(vectors(column, *REVIEWS), in_our_order(theirs, column, REVIEWS))


def test_accents_are_stripped_as_scikit_learn_strips_them() -> None:
    cells = ["Déjà vu, ÅNGSTRÖM e\u0301", "Ελλάδα ёлка й", "한국 がく"]
    theirs = CountVectorizer(token_pattern=r"(?u)\w+", strip_accents="unicode").fit(cells[:2])
    assert set(fit(*cells[:2], accents="strip", **{**PLAIN, "ngrams": (1, 1)}).state["tokenizer"]["vocabulary"]) == set(
        theirs.vocabulary_
    )
    assert terms(cells[2], accents="strip") == ["한국", "がく"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["don", "'", "t", "pay", "£", "5", "!", "!", "ça"]),
        ({"punctuation": "drop"}, ["don", "t", "pay", "5", "ça"]),
        ({"punctuation": "keep"}, ["don't", "pay", "£5!!", "ça"]),
        ({"lowercase": False, "punctuation": "drop"}, ["DON", "t", "pay", "5", "Ça"]),
        ({"punctuation": "drop", "ngrams": (2, 2)}, ["don t", "t pay", "pay 5", "5 ça"]),
        ({"punctuation": "drop", "ngrams": (4, 6)}, ["don t pay 5", "t pay 5 ça", "don t pay 5 ça"]),
    ],
)
def test_texts_are_split_into_words(options: dict[str, Any], expected: list[str]) -> None:
    assert terms("DON't pay\t£5!!\u00a0\n Ça", **options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["ñ", " ", "ß", "!", "👍"]),
        ({"punctuation": "drop"}, ["ñ", " ", "ß"]),
        ({"ngrams": (2, 2)}, ["ñ ", " ß", "ß!", "!👍"]),
    ],
)
def test_texts_are_split_into_characters(options: dict[str, Any], expected: list[str]) -> None:
    assert terms(" Ñ  ß!👍 ", tokens="characters", **options) == expected


def test_the_vocabulary_is_the_most_frequent_terms_and_then_the_first_by_letters() -> None:
    column = fit("b b c d", "a c d", ngrams=(1, 1), size=3)
    assert vocabulary_of(column) == ["b", "c", "d"]
    assert fit("b b c d", "a c d", ngrams=(1, 1), min_count=2).state["tokenizer"]["vocabulary"] == ["b", "c", "d"]


def test_terms_of_other_rows_are_not_learned() -> None:
    column = fit("a b", "b", ngrams=(1, 1))
    assert text.encode(rows("b z", "z"), column).tolist() == [[[2, 0], [1, 0]], [[0, 0], [0, 0]]]


def test_a_sequence_keeps_the_place_of_unknown_terms() -> None:
    column = fit("b b a", "b", encoding="sequence", length=4)
    array = text.encode(rows("z a b", None, "", "a a a a b"), column)
    assert array.tolist() == [[1, 3, 2, 0], [1, 0, 0, 0], [1, 0, 0, 0], [3, 3, 3, 3]]
    feature = text.build_feature(column, keras.ops.convert_to_tensor(array))
    assert feature.tensor.shape == (4, 4, 64)
    np.testing.assert_array_equal(feature.mask, array != 0)


def test_empty_and_missing_texts_are_empty_bags() -> None:
    column = fit("a", "b")
    assert not vectors(column, "", None, "z", "?").any()


def test_texts_are_cut_at_the_length_of_nearly_all() -> None:
    cells = [" ".join(f"w{i}" for i in range(count)) for count in range(1, 101)]
    assert fit(*cells, ngrams=(1, 1)).shape == (2, 100)
    assert fit(*cells, ngrams=(1, 1), length=7).shape == (2, 7)
    assert fit(*cells, encoding="sequence").shape == (96,)
    assert fit(*cells, encoding="sequence", length=0.5).shape == (51,)
    longest = " ".join(f"w{i}" for i in range(5000))
    assert fit(longest, encoding="sequence", length=0.9).shape == (5000,)
    assert fit(longest, longest, ngrams=(1, 1)).shape == (2, 2048)


def test_n_grams_of_edges_tell_how_a_text_ends() -> None:
    column = text.fit(
        "x", rows("ann", "nan"), text.Options(tokens={"kind": "characters", "edges": True, "min_count": 1})
    )
    assert {" a", " n", "n ", "nn ", " an", "nan "} < set(vocabulary_of(column))
    assert not vectors(column, "", None).any()
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)).fit(["ann", "nan"])
    assert set(theirs.vocabulary_) == set(vocabulary_of(column))
    np.testing.assert_allclose(vectors(column, "ann", "nana"), in_our_order(theirs, column, ["ann", "nana"]), atol=1e-6)


@pytest.mark.parametrize("encoding", ["bag", "sequence"])
def test_a_plan_shows_the_tokens_of_texts(encoding: str) -> None:
    column = fit("a a b", "a c", "a", encoding=encoding, ngrams=(1, 1), min_count=2, length=2)
    summary = text.get_traits(column).summarize_tokens(text.encode(rows("a b", "a", None), column))
    assert summary is not None
    assert (summary.tokens, summary.length) == ("1 words", 2)
    assert summary.unknown_share == pytest.approx(2 / 6)
    assert summary.cut_share == (0 if encoding == "bag" else pytest.approx(1 / 6))
    assert summary.samples == ((("a",), ("a",), ()) if encoding == "bag" else (("a", "?"), ("a",), ("?",)))


def test_a_bag_with_a_dimension_is_the_vector_times_a_matrix() -> None:
    from bmcli.layers.text_bag import TextBag

    column = fit(*REVIEWS)
    encoded = text.encode(rows(*REVIEWS), column)
    weights = column.state["weights"]
    layer = TextBag(weights, normalize=True, dimension=5)
    embedded = layer(encoded)
    wide = TextBag(weights, normalize=True)(encoded)
    np.testing.assert_allclose(embedded, wide @ layer.embeddings, atol=1e-6)
    compiled = tf.function(TextBag(weights, normalize=True), jit_compile=True)
    np.testing.assert_allclose(compiled(encoded), wide, atol=1e-6)


def test_a_served_text_that_is_no_utf8_is_read_all_the_same() -> None:
    layer = text.build_encoder(fit("a b", ngrams=(1, 1)))
    assert layer(tf.constant([b"a \xff\xfe b"])).numpy().tolist() == [[[2, 3], [1, 1]]]


def test_numbers_are_no_texts() -> None:
    with pytest.raises(BmcliError, match="column 'x': expected text, received an array of numbers"):
        text.fit("x", np.zeros((3, 2)), text.Options())


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([None, ""], {}, "no text with words"),
        (["?!", " "], {"punctuation": "drop"}, "no text with words"),
        (["a", "b"], {"min_count": 2}, "no term occurs 2 times in the training rows"),
    ],
)
def test_texts_without_terms_are_a_fault(cells: list[str | None], options: dict[str, Any], message: str) -> None:
    with pytest.raises(BmcliError, match=message):
        fit(*cells, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngrams": (2, 1)}, "shortest, longest"),
        ({"encoding": "sequence", "ngrams": (1, 2)}, "have no order"),
        ({"tokens": "characters", "punctuation": "split"}, "Input should be 'drop' or 'keep'"),
    ],
)
def test_options_that_do_not_fit_are_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options_of(**options)


def test_a_family_of_sequences_says_how_it_can_read_a_text() -> None:
    from bmcli.models import VECTOR, rnn
    from bmcli.specs import DataSpec

    spec = DataSpec((fit(*REVIEWS),), (), {}, "", "")
    with pytest.raises(BmcliError, match="rnn works on one sequence or image") as caught:
        rnn.build(rnn.Options(), spec, (VECTOR,))
    assert caught.value.faults[0].suggestion == "Write `encoding: sequence` for 'x' in data.inputs, or use `kind: mlp`."
    spec = DataSpec((fit(*REVIEWS, encoding="sequence"),), (), {}, "", "")
    features = rnn.build(rnn.Options(), spec, (VECTOR,)).find_features("y", VECTOR)
    assert features is not None
    assert len(features.tensor.shape) == 2


def write_unspaced(words: list[str], count: int = 90, length: int = 7) -> list[str | None]:
    """Write texts of words without blanks between them."""
    dice = np.random.default_rng(0)
    return ["".join(dice.choice(words, length)) for _ in range(count)]


CHINESE = write_unspaced(["今天", "天气", "很好", "我们", "喜欢", "电影", "这部", "非常", "无聊", "精彩", "演员"])
JAPANESE = write_unspaced(["この", "映画は", "とても", "面白い", "です", "つまらない", "iPhone", "スーパー"])
THAI = write_unspaced(["วันนี้", "อากาศ", "ดีมาก", "เรา", "ชอบ", "หนัง", "เรื่องนี้", "สนุก", "น่าเบื่อ"])


def guess(cells: list[str | None]) -> Guess | None:
    return text.guess(ColumnCells("x", rows(*cells)))


@pytest.mark.parametrize("cells", [CHINESE, JAPANESE, THAI], ids=["Chinese", "Japanese", "Thai"])
def test_prose_without_blanks_is_text_of_characters(cells: list[str | None]) -> None:
    found = guess(cells)
    assert found is not None
    assert (found.needs_options, found.options) == (False, {"tokens": "characters"})
    assert "without blanks between words" in found.why
    # A recipe that says `text` alone means the same.
    column = text.fit("x", rows(*cells), text.Options())
    assert column.state["tokenizer"]["kind"] == "characters"
    assert text.get_traits(column).reading_options == {"tokens": "characters"}


def test_words_between_blanks_stay_words() -> None:
    column = text.fit("x", rows(*REVIEWS), text.Options())
    assert column.state["tokenizer"]["kind"] == "words"
    assert text.get_traits(column).reading_options == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda i: f"{i * 7919:08x}-4a5b-8c9d-{i * 104729:012x}",
        lambda i: f"京A{i:05d}",
        lambda i: f"客户编号{100_000 + i}",
        lambda i: f"https://example.com/文/{i}",
        lambda i: f"user{i}@例え.jp",
        lambda i: "".join(chr(0x4E00 + (i * 6 + k) * 31 % 20_000) for k in range(6)),
    ],
    ids=["UUID", "plates", "numbered", "addresses", "mail", "random signs"],
)
def test_identifiers_are_no_prose(write: Any) -> None:
    found = guess([write(i) for i in range(90)])
    assert found is not None
    assert found.needs_options
