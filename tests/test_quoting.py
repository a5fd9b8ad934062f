from __future__ import annotations

import pytest

from bmcli import parts
from bmcli.quoting import MAX_SHOWN, brief, listed, quoted

HUGE = "z" * 1_000_000


@pytest.mark.parametrize("text", ["", "cat", "it's", "é 你", "a" * MAX_SHOWN])
def test_a_short_value_is_quoted_whole(text: str) -> None:
    assert quoted(text) == repr(text)


def test_a_long_value_is_cut_and_its_length_shown() -> None:
    assert quoted(HUGE) == f"'{'z' * 57}...' (1,000,000 characters)"
    assert quoted("z" * 100, most=100) == repr("z" * 100)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202e", "\ud800", "\0", "\x85", "a\r"])
def test_nothing_foreign_ends_a_line_or_moves_a_cursor(text: str) -> None:
    for shown in (quoted(text), brief(text), listed([text]), quoted(text + HUGE), brief(HUGE + text)):
        assert shown.isprintable()
        shown.encode()


def test_text_without_quotes_is_cut_too() -> None:
    assert brief("plain") == "plain"
    assert brief(HUGE, 10) == "zzzzzzz... (1,000,000 characters)"


def test_a_list_is_cut_by_its_items_and_by_its_length() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde", most=3) == "a, b, c, ..."
    assert len(listed([HUGE] * 1000, most=1000)) < 1000


def test_a_huge_word_is_near_to_none_and_no_word_near_to_it() -> None:
    assert parts.nearest(HUGE, ["cat", HUGE[1:]]) is None
    assert parts.did_you_mean("cta", ["cat", HUGE]) == "Did you mean 'cat'?"
    assert len(parts.did_you_mean("q", [HUGE, "cat"])) < 200


def test_of_thousands_of_wrong_words_the_first_are_worth_a_suggestion_each() -> None:
    known = [f"column_{number}" for number in range(1000)]
    parts.reset_suggestions()
    found = [parts.did_you_mean(f"colum_{number}", known) for number in range(30)]
    assert found[0] == "Did you mean 'column_0'?"
    assert found[-1] == ""
    parts.reset_suggestions()
    assert parts.did_you_mean("colum_7", known) == "Did you mean 'column_7'?"
