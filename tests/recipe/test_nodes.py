"""Reading YAML 1.2, with limits, and with a place for every fault."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bmcli.errors import BmcliError, Fault
from bmcli.recipe import nodes


def read(text: str) -> Any:
    return nodes.parse_tree(text, "r.yaml", Path()).plain()


def fault(text: str) -> Fault:
    with pytest.raises(BmcliError) as caught:
        read(text)
    (found,) = caught.value.faults
    return found


SCALARS: list[tuple[str, Any]] = [
    ("1", 1), ("+1", 1), ("-0", 0), ("010", 10), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("0b1", "0b1"),
    ("-" + "9" * 40, 1 - 10**40),
    ("1e-3", 0.001), ("1.", 1.0), (".5", 0.5), ("-1.5E+2", -150.0), ("1e", "1e"), (".", "."), ("1:30", "1:30"),
    ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"), ("yes", "yes"), ("no", "no"), ("on", "on"),
    ("", None), ("~", None), ("null", None), ("Null", None), ("nULL", "nULL"), ("2001-01-01", "2001-01-01"),
    ("'1'", "1"), ('"true"', "true"), ("'~'", "~"), ("=", "="), ("a b", "a b"), ("a#b", "a#b"), ("a:b", "a:b"),
    ("|\n 1", "1"), (">\n 1\n 2", "1 2"), ('"\\u00e9\\t"', "é\t"), ("٣", "٣"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), SCALARS)
def test_scalars_follow_the_core_schema(written: str, value: Any) -> None:
    found = read(f"key: {written}")["key"]
    assert (found, type(found)) == (value, type(value))


KEYS = [
    ("1: 2.0", {"1": 2.0}),
    ("true: 1", {"true": 1}),
    ("null: 1", {"null": 1}),
    ("~: 1", {"~": 1}),
    ("'<<': 1", {"<<": 1}),
]


@pytest.mark.parametrize(("text", "value"), KEYS)
def test_keys_are_text_as_written(text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "---\n...\n"])
def test_a_file_without_values_is_an_empty_mapping(text: str) -> None:
    assert read(text) in ({}, None)


def test_a_file_with_windows_line_ends_has_the_same_places() -> None:
    assert nodes.parse_tree("a: 1\r\nb:\r\n  c: 2\r\n", "r.yaml", Path()).value["b"].value["c"].place.line == 3


def test_an_anchor_is_read_again_at_its_alias() -> None:
    assert read("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


FAULTS = [
    ("a: 1\nb: 2\na: 3", (3, 1), "'a' is written twice, first on line 1."),
    ("a: {b: 1, b: 2}", (1, 11), "'b' is written twice, first on line 1."),
    ("a:\n  <<: {b: 1}", (2, 3), "merge keys are not part of YAML 1.2."),
    ("a:\n\tb: 1", (2, 1), "a tab is not allowed here."),
    ("a: \t1", (1, 4), "a tab is not allowed here."),
    ("a: !x 1", (1, 4), "the tag !x is not allowed"),
    ("a: ! 1", (1, 4), "the tag ! is not allowed"),
    ("a: !!str 1", (1, 4), "the tag !!str is not allowed"),
    ("a: !!python/object:os.system {}", (1, 4), "the tag !!python/object:os.system is not allowed"),
    ("!x a: 1", (1, 1), "the tag !x is not allowed"),
    ("a: 1\n---\nb: 2", (2, 1), "a second document starts here."),
    ("[a]: 1", (1, 1), "a key must be text, not a collection."),
    ("'': 1", (1, 1), "a key cannot be empty."),
    ("? " + "k" * 1200 + "\n: 1", (1, 3), "a key must be text of at most 1,000 characters."),
    ('"\\0": 1', (1, 1), "a key must be text of at most 1,000 characters."),
    ('a: "\\U00110000"', (1, 7), "the number of a character or version is too large."),
    ('a: "\\ud83d"', (1, 4), "text must not contain NUL or lone surrogates."),
    ('a: "\\0"', (1, 4), "text must not contain NUL or lone surrogates."),
    ("a: " + "9" * 5000, (1, 4), "expected a whole number of at most 40 digits."),
    ("%YAML " + "9" * 5000 + "\n---\na: 1", (1, 7), "the number of a character or version is too large."),
    ("a: 1e999", (1, 4), "expected a finite number, received 1e999."),
    ("a: [.nan]", (1, 5), "expected a finite number, received .nan."),
    ("a: -.Inf", (1, 4), "expected a finite number, received -.Inf."),
    ("a: 1\nb: \x07", (2, 4), "character U+0007 is not allowed in a recipe."),
    ("a: \u2028", (1, 4), "character U+2028 is not allowed in a recipe."),
    ("a: 'b", (1, 6), "a closing quote is missing."),
    ("a: [1, 2\nb: 3", (2, 2), "a closing bracket or a comma is missing."),
    ("a: b: c", (1, 5), "a colon is not allowed here."),
    ("a: {b: ${c}}", (1, 9), "braces inside braces."),
    ("a: 1\n b: 2", (2, 3), "a colon is not allowed here."),
    ("  a: 1\n b: 2", (2, 2), "this does not fit the lines above."),
    ("a: *x", (1, 4), "found undefined alias 'x'"),
    ("a: &x 1\nb: &x 2", (2, 4), "there are two anchors of this name."),
    ("a: &x [*x]", (1, 4), "nested more than 50 deep."),
    ("[" * 1000, (1, 51), "nested more than 50 deep."),
    ("{" * 1000, (1, 51), "nested more than 50 deep."),
    ("- " * 1000, (1, 101), "nested more than 50 deep."),
    ("a: [" + "1," * 30_000, (1, 49_999), "more than 25,000 values."),
]


@pytest.mark.parametrize(("text", "place", "message"), FAULTS)
def test_a_fault_names_its_place(text: str, place: tuple[int, int], message: str) -> None:
    found = fault(text)
    assert message in found.message
    assert found.place is not None
    assert (found.place.line, found.place.column) == place


def lines(line: str, letters: str = "abcdefgh") -> str:
    """A line for each letter, which can refer to the letter before it as {old}."""
    return "".join(line.format(old=old, new=new) for old, new in pairwise(letters))


BOMBS = {
    "nines": "a: &a [x]\n" + lines("{new}: &{new} [" + ",".join(["*{old}"] * 9) + "]\n"),
    "twos": "a: &a [x]\n" + lines("{new}: &{new} [*{old}, *{old}]\n", "abcdefghijklmnopqrstuvwxyz"),
    "mappings": "a: &a {x: 1}\n" + lines("{new}: &{new} {{p: *{old}, q: *{old}, r: *{old}}}\n", "abcdefghijkl"),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_an_alias_bomb_is_refused(text: str) -> None:
    assert "once aliases are expanded" in fault(text).message


def test_a_merge_bomb_is_refused() -> None:
    with pytest.raises(BmcliError, match="merge keys are not part of YAML"):
        read("a: &a {x: 1}\n" + lines("{new}: &{new} {{<<: [*{old}, *{old}]}}\n"))


def test_faults_that_leave_the_rest_readable_come_together() -> None:
    with pytest.raises(BmcliError) as caught:
        read("a: 1\na: 2\nb: !x 1\nc: 1e999\n<<: 1\n")
    assert [found.place.line for found in caught.value.faults if found.place] == [2, 3, 4, 5]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(nodes.read_text(tmp_path / "r.yaml", "r.yaml", ["a"])) == {"a": 1}


FILES = [
    (b"a: 1\nb: \xc3\xa9 \xff\n", (2, 6), "received byte 0xff"),
    ("a: 1".encode("utf-16"), (1, 1), "received byte 0xff"),
    (b"a: \x00", (1, 4), "character U\\+0000 is not allowed"),
    (b"#" * 1_000_001, (1, 1), "at most 1,000,000 bytes"),
]


@pytest.mark.parametrize(("data", "place", "message"), FILES)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes, place: tuple[int, int], message: str) -> None:
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(BmcliError, match=message) as caught:
        read(nodes.read_text(tmp_path / "r.yaml", "r.yaml", ["a"]))
    (found,) = caught.value.faults
    assert found.place is not None
    assert (found.place.line, found.place.column) == place


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="cannot be read: is a directory"):
        nodes.read_text(tmp_path, "r.yaml", ["a"])
