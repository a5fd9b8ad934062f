"""What one kind of tokens has, and others have not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bmcli import tokens
from bmcli.errors import BmcliError
from bmcli.inputs import text
from bmcli.normalization import Normalization
from bmcli.recipe.fields import PartField
from bmcli.tokenization import pieces
from bmcli.tokenization.base import Tokenizer, TokensError, Use

from .packages import require_packages
from .padding import encode_padded

PROSE = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 5
PIECES = ["bpe", "unigram"]


def fit(kind: str, texts: list[str], use: Use = "sequence", **options: Any) -> Tokenizer:
    require_packages(kind)
    return tokens.fit(PartField("tokens").check({"kind": kind, **options}), Normalization(), texts, use)


def test_written_characters_keep_spaces_and_rare_ones() -> None:
    written = fit("characters", ["a b\n\nc"], "written")
    assert written.decode(written.encode_flat(["c\n b"])[0]) == "c\n b"
    read = fit("characters", ["a a  bb c"])
    assert read.normalize(" a \n b ") == "a b"
    assert read.decode(read.encode_flat([" a \n c "])[0]) == "a \N{REPLACEMENT CHARACTER}"


def test_written_words_give_back_the_text_between_single_blanks() -> None:
    phones = fit("words", ["EH1 K S", "K AE1 T", "S EH1 T"], "written", min_count=1)
    assert phones.is_lossless
    ids, _ = phones.encode_flat(["K EH1 T", " S\t K "])
    assert phones.decode(ids[:3]) == "K EH1 T"
    assert phones.decode(ids[3:]) == phones.normalize(" S\t K ") == "S K"
    prose = fit("words", ["don't (stop), now"], "written", min_count=1)
    assert prose.decode(prose.encode_flat(["(stop), don't"])[0]) == "(stop), don't"


@pytest.mark.parametrize("options", [{"punctuation": "split"}, {"ngrams": (2, 2)}])
def test_words_that_do_not_give_back_the_text_are_not_written(options: dict[str, Any]) -> None:
    column = pa.chunked_array([PROSE])
    written = text.Options(encoding="written", tokens={"kind": "words", **options})
    with pytest.raises(BmcliError, match="words do not give back the text") as caught:
        text.fit("x", column, written)
    assert "`punctuation: keep`" in caught.value.faults[0].suggestion


def test_characters_of_one_letter_are_a_vocabulary_of_one() -> None:
    tokenizer = fit("characters", ["aaaa", "aa"])
    assert tokenizer.inner_size == 3
    assert encode_padded(tokenizer, ["aab", ""], 4).tolist() == [[2, 2, 1, 0], [1, 0, 0, 0]]


def test_bytes_are_two_above_their_values() -> None:
    tokenizer = fit("bytes", [])
    assert tokenizer.encode_flat(["aé"])[0].tolist() == [2 + 0x61, 2 + 0xC3, 2 + 0xA9]
    assert tokenizer.size == 260


@pytest.mark.parametrize("kind", PIECES)
def test_frequent_words_are_pieces(kind: str) -> None:
    tokenizer = fit(kind, PROSE, size=300)
    shown = [tokenizer.get_token(number) for number in tokenizer.encode_flat(["the cat"])[0].tolist()]
    assert "".join(shown).replace("\u2581", " ") == "the cat"
    assert len(shown) < len("the cat")


@pytest.mark.parametrize("kind", PIECES)
def test_what_no_piece_covers_is_bytes(kind: str) -> None:
    tokenizer = fit(kind, PROSE, size=300)
    shown = [tokenizer.get_token(number) for number in tokenizer.encode_flat(["👍"])[0].tolist()]
    assert shown == ["<F0>", "<9F>", "<91>", "<8D>"]


@pytest.mark.parametrize("kind", PIECES)
def test_the_pieces_of_a_word_do_not_depend_on_the_text_before_it(kind: str) -> None:
    tokenizer = fit(kind, [*PROSE, "!!! !!!!! !!!!!!! ....... ....."], size=320)
    alone, _ = tokenizer.encode_flat([" !!!!!!!!"])
    behind, _ = tokenizer.encode_flat(["the cat sat " * 500 + "!!!!!!!!"])
    np.testing.assert_array_equal(behind[-len(alone) :], alone)


@pytest.mark.parametrize("kind", PIECES)
def test_a_larger_vocabulary_than_the_texts_give_is_smaller(kind: str) -> None:
    tokenizer = fit(kind, ["aaaa", "aaa"], size=8000)
    assert 259 <= tokenizer.inner_size < 300


@pytest.mark.parametrize("kind", PIECES)
def test_a_vocabulary_without_room_for_the_characters_is_a_fault(kind: str) -> None:
    with pytest.raises(TokensError, match="too small for the 256 bytes and each character") as caught:
        fit(kind, PROSE, size=260)
    needed = int(caught.value.suggestion.split(": ")[1].split("`")[0])
    assert fit(kind, PROSE, size=needed).inner_size <= needed


@pytest.mark.parametrize("kind", PIECES)
def test_texts_without_characters_are_a_fault(kind: str) -> None:
    with pytest.raises(TokensError, match="the training rows have no text"):
        fit(kind, ["", "\n"])


@pytest.mark.parametrize("kind", PIECES)
def test_long_words_and_signs_of_sentencepiece_do_not_hinder_training(kind: str) -> None:
    tokenizer = fit(kind, ["a" * 100_000, "\u2585 x \u2581y <unk>\tz"], size=300)
    assert tokenizer.decode(tokenizer.encode_flat(["\u2585<unk>\t"])[0]) == "\u2585<unk>\t"


@pytest.mark.parametrize("kind", PIECES)
def test_a_missing_package_says_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "find_spec", lambda name: None)
    with pytest.raises(BmcliError, match="not installed: sentencepiece, tensorflow_text") as caught:
        tokens.fit(PartField("tokens").check(kind), Normalization(), PROSE, "sequence")
    assert caught.value.faults[0].suggestion == "Install them: pip install 'bmcli[text]'."


def test_a_column_of_too_small_a_vocabulary_names_the_option() -> None:
    require_packages("bpe")
    column = pa.chunked_array([PROSE])
    with pytest.raises(BmcliError, match="column 'x': a vocabulary of 260 is too small") as caught:
        text.fit("x", column, text.Options(tokens={"kind": "bpe", "size": 260}))
    assert caught.value.faults[0].path == "data.inputs.x.tokens.size"


def test_a_column_keeps_how_many_tokens_are_unknown_and_cut() -> None:
    column = pa.chunked_array([["a a b b c", "a b", "a"]])
    fitted = text.fit("x", column, text.Options(encoding="sequence", length=2, tokens="words"))
    assert fitted.state["unknown_share"] == pytest.approx(1 / 8)
    assert fitted.state["cut_share"] == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wordz", "no kind"),
        ({"kind": "bpe", "ngrams": [1, 2]}, "no such key"),
        ({"kind": "bpe", "size": 10}, "greater than or equal to 260"),
        ({"kind": "bytes", "size": 10}, "no such key"),
    ],
)
def test_options_of_tokens_that_do_not_exist_are_faults(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        text.Options(tokens=value)


def test_a_flat_array_is_cut_and_padded_by_rows() -> None:
    tokenizer = fit("characters", ["abc"], "written")
    ids, starts = tokenizer.encode_flat(["abc", "", "a"])
    assert (ids.dtype, starts.dtype) == (np.int32, np.int64)
    assert starts.tolist() == [0, 3, 3, 4]
    assert encode_padded(tokenizer, ["abc", "", "a"], 2).tolist() == [[2, 3], [1, 0], [2, 0]]
