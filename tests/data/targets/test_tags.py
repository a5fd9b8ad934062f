"""A tag for each word of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data.profiling.column_profile import profile_column
from bmcli.data.targets import tags
from bmcli.errors import BmcliError
from bmcli.normalization import split_words
from bmcli.raw_columns import RowFault

TEXTS = ["fly to Bonn", "stay !", "fly"]
CELLS = ["VERB ADP NAME", " VERB  SIGN ", "VERB"]


def records(cells: list[str | None], texts: list[str]) -> Any:
    columns = {"tags": pa.array(cells, pa.string()), "text": pa.array(texts, pa.string())}
    return pa.table(columns).to_struct_array()


def options(**more: Any) -> tags.Options:
    return tags.Options(input="text", **more)


def test_tags_are_indices_and_minus_one_after_the_last_word() -> None:
    rows = records([*CELLS], TEXTS)
    column = tags.fit("tags", rows, options(length=3))
    assert column.state == {"tags": ["ADP", "NAME", "SIGN", "VERB"], "columns": ["tags", "text"]}
    encoded = tags.encode(rows, column)
    np.testing.assert_array_equal(encoded, [[3, 0, 1], [3, 2, -1], [3, -1, -1]])
    assert encoded.dtype == np.int32
    np.testing.assert_array_equal(tags.decode(encoded, column), encoded)


@pytest.mark.parametrize("cell", ["['B-x', 'O']", '["B-x", "O"]', "[B-x, O]", "B-x O", "B-x\tO"])
def test_a_cell_is_a_list_or_separated_by_blanks(cell: str) -> None:
    rows = records([cell], ["Bonn now"])
    np.testing.assert_array_equal(tags.encode(rows, tags.fit("tags", rows, options())), [[0, 1]])


def test_longer_rows_are_cut() -> None:
    rows = records([*CELLS], TEXTS)
    np.testing.assert_array_equal(tags.encode(rows, tags.fit("tags", rows, options(length=1))), [[3]] * 3)


def test_the_usual_length_is_that_of_a_text_read_as_a_sequence() -> None:
    rows = records(["A B"] * 19 + ["A B A B A"], ["x y"] * 19 + ["v w x y z"])
    assert tags.fit("tags", rows, options()).shape == (5,)
    assert tags.fit("tags", rows, options(length=0.5)).shape == (2,)


@pytest.mark.parametrize(
    ("cell", "text", "message"),
    [
        ("A", "x y z", "each of the 3 words, received 1: the word 'y' has no tag"),
        ("A B", "x", "each of the 1 words, received 2: the tag 'B' has no word"),
        ("A", "", "each of the 0 words, received 1"),
        ("", "x", "received nothing"),
        (None, "x", "received nothing"),
        ("[]", "x", "received nothing"),
        ("['A b']", "x", "without blanks, received 'A b'"),
        ("['A', '']", "x y", "without blanks, received ''"),
    ],
)
def test_a_row_whose_tags_do_not_fit_its_words_is_a_fault(cell: str | None, text: str, message: str) -> None:
    rows = records(["A B", cell], ["x y", text])
    for read in (lambda: tags.check(rows, options()), lambda: tags.fit("tags", rows, options())):
        with pytest.raises(RowFault, match=message.replace("(", r"\(")) as caught:
            read()
        assert caught.value.row == 1


def test_an_unknown_tag_is_a_fault_that_names_the_nearest_even_where_it_is_cut() -> None:
    column = tags.fit("tags", records([*CELLS], TEXTS), options(length=1))
    with pytest.raises(RowFault, match="received 'NAMES'") as caught:
        tags.encode(records(["VERB", "ADP NAMES"], ["x", "x y"]), column)
    assert caught.value.row == 1
    assert "NAME" in caught.value.suggestion


def test_one_tag_alone_cannot_be_learned() -> None:
    with pytest.raises(BmcliError, match="every word of the training rows has the tag 'O'"):
        tags.fit("tags", records(["O O", "O"], ["x y", "z"]), options())


def test_tags_can_be_named_before_and_others_are_faults() -> None:
    named = options(classes=("VERB", "SIGN", "NAME", "ADP", "RARE"))
    rows = records([*CELLS], TEXTS)
    assert tags.fit("tags", rows, named).state["tags"] == ["VERB", "SIGN", "NAME", "ADP", "RARE"]
    with pytest.raises(RowFault, match="received 'NEW'"):
        tags.check(records(["NEW"], ["x"]), named)


def test_the_different_tags_of_each_row_are_found_for_splits() -> None:
    rows, found = tags.index_classes(records(["A B A", "B", None], ["x y z", "x", ""]), options())
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("text", ["a b", "a\u00a0b", " a\t b\n", "a\x00 b!", "a,b c"])
def test_words_are_those_of_the_tokens(text: str) -> None:
    from bmcli.normalization import Normalization
    from bmcli.recipe.tokens import TokensField
    from bmcli.tokens import words

    chosen = TokensField().check({"kind": "words", "punctuation": "keep", "min_count": 1})
    tokenizer = words.fit(chosen, Normalization(), [text], "sequence")
    assert tokenizer.has_words
    assert len(tokenizer.encode_flat([text])[0]) == len(split_words(text)) == 2


WORDY = ["fly to Bonn on day one", "stay in Rome", "go now to Oslo please"]
TAGGED = ["V P N P N N", "V P N", "V A P N A"]


def guess(cells: list[str], texts: list[str], times: int = 20) -> Any:
    columns = {"t": pa.chunked_array([cells * times]), "text": pa.chunked_array([texts * times])}
    return tags.guess(profile_column("t", columns["t"]), columns)


def test_a_tag_for_each_word_of_another_column_is_recognised() -> None:
    found = guess(TAGGED, WORDY)
    assert (found.kind, found.options, found.why) == (
        "tags",
        {"input": "text"},
        "a tag for each word of text, 4 different",
    )
    assert found.inputs["text"].options == {"encoding": "sequence", "tokens": {"kind": "words", "punctuation": "keep"}}


@pytest.mark.parametrize(
    ("cells", "texts", "times"),
    [
        pytest.param(["V P N P N", *TAGGED[1:]], WORDY, 20, id="a row has fewer tags than words"),
        pytest.param(WORDY, TAGGED, 20, id="the words of the other column are fewer"),
        pytest.param(TAGGED, WORDY, 2, id="tags that hardly repeat"),
        pytest.param(["V", "N"], ["Bonn", "Oslo"], 20, id="one word a row is a class"),
    ],
)
def test_other_words_are_no_tags(cells: list[str], texts: list[str], times: int) -> None:
    assert guess(cells, texts, times) is None
