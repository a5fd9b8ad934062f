"""Documents that are cut into windows."""

from __future__ import annotations

import codecs
import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bmcli.data.sources import SourceRows, text
from bmcli.errors import BmcliError

PLAY = "First citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n"


def read(path: Path, **options: Any) -> SourceRows:
    return text.read(text.Options.model_validate({"kind": "text", "path": str(path), **options}))


def windows_of(rows: SourceRows) -> list[str]:
    column: Any = rows.columns["text"]
    found: list[str] = column.to_pylist()
    return found


@pytest.mark.parametrize("window", [2, 7, 16, 1000])
def test_windows_give_back_the_document(tmp_path: Path, window: int) -> None:
    (tmp_path / "play.txt").write_text(PLAY)
    found = windows_of(read(tmp_path / "play.txt", window=window))
    assert "".join(found) == PLAY
    assert max(map(len, found)) <= window


def test_a_window_ends_at_a_blank_near_its_end(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(PLAY)
    found = windows_of(read(tmp_path / "play.txt", window=18))
    assert found[:3] == ["First citizen:\n", "Before we proceed ", "any further, hear "]


def test_a_script_without_blanks_is_cut_at_the_length(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("春眠不覺曉處處聞啼鳥")
    assert windows_of(read(tmp_path / "poem.txt", window=5)) == ["春眠不覺曉", "處處聞啼鳥"]


def test_a_letter_keeps_its_marks(tmp_path: Path) -> None:
    (tmp_path / "word.txt").write_text("abce\u0301\u0323fg")
    assert windows_of(read(tmp_path / "word.txt", window=4)) == ["abce\u0301\u0323", "fg"]


def test_each_window_says_where_it_is_from(tmp_path: Path) -> None:
    for name, words in (("a.txt", "one two three "), ("b.txt", ""), ("c.md", "four")):
        (tmp_path / name).write_text(words)
    (tmp_path / "d.csv").write_text("a,b\n")
    rows = read(tmp_path, window=8)
    documents: Any = rows.columns["document"]
    assert windows_of(rows) == ["one two ", "three ", "four"]
    assert documents.to_pylist() == ["a.txt", "a.txt", "c.md"]
    assert list(rows.columns["position"]) == [0, 1, 2]
    assert rows.describe_row(1).endswith("a.txt from character 9")
    assert rows.notes == (f"1 document is empty, such as {tmp_path / 'b.txt'}.",)


def test_documents_of_each_split(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name} {name} ")
    rows = text.read(
        text.Options.model_validate(
            {"kind": "text", "path": {n: str(tmp_path / f"{n}.txt") for n in ("train", "test")}, "window": 6}
        )
    )
    assert rows.split is not None
    splits: list[str] = rows.split.tolist()
    assert splits == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (codecs.BOM_UTF8 + "Zürich\r\nBern".encode(), {}),
        ("Zürich\nBern".encode("utf-16"), {}),
        ("Zürich\rBern".encode("cp1252"), {"encoding": "cp1252"}),
    ],
)
def test_encodings_and_line_ends_give_one_text(tmp_path: Path, content: bytes, options: dict[str, str]) -> None:
    (tmp_path / "towns.txt").write_bytes(content)
    assert windows_of(read(tmp_path / "towns.txt", **options)) == ["Zürich\nBern"]


def test_a_wrong_encoding_is_a_fault_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "towns.txt").write_bytes("Zürich".encode("cp1252"))
    with pytest.raises(BmcliError, match="byte 2 is not utf-8"):
        read(tmp_path / "towns.txt")


def test_documents_without_text_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(BmcliError, match="holds no text"):
        read(tmp_path / "empty.txt")


SONG = "".join(f"line {number} of a song " for number in range(60))


def test_a_stride_cuts_the_text_at_every_offset(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text("abcdefghij")
    assert windows_of(read(tmp_path / "song.txt", window=4, stride=2)) == [
        "abcd", "efgh", "ij", "cdef", "ghij",
    ]  # fmt: skip


def test_a_stride_of_the_window_is_no_overlap(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text(SONG)
    assert windows_of(read(tmp_path / "song.txt", window=20, stride=20)) == windows_of(
        read(tmp_path / "song.txt", window=20)
    )


def test_windows_overlap_within_sections_alone(tmp_path: Path) -> None:
    """So that a split by position keeps the text of the test out of training."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(SONG)
    rows = read(tmp_path, window=20, stride=5)
    documents: Any = rows.columns["document"]
    spans: dict[int, tuple[str, int, int]] = {}
    covered: set[tuple[str, int]] = set()
    columns = zip(windows_of(rows), documents.to_pylist(), list(rows.columns["position"]), strict=True)
    for number, (window, document, position) in enumerate(columns):
        start = int(rows.describe_row(number).rsplit(" ", 1)[1]) - 1
        assert SONG[start : start + len(window)] == window
        covered |= {(document, place) for place in range(start, start + len(window))}
        _, first, last = spans.get(position, (document, start, start))
        spans[position] = (document, min(first, start), max(last, start + len(window)))
    assert len(covered) == 2 * len(SONG)
    in_order = [spans[position] for position in sorted(spans)]
    assert in_order == sorted(in_order)
    assert len(in_order) > 4
    for (name, _, last), (following, first, _) in itertools.pairwise(in_order):
        assert last == first if name == following else first == 0


@pytest.mark.parametrize(
    ("stride", "message"),
    [(9, "a stride of 9 leaves gaps between windows of 8"), (0, "greater than or equal to 1")],
)
def test_a_stride_must_suit_the_window(tmp_path: Path, stride: int, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(tmp_path, window=8, stride=stride)


def test_a_tiny_stride_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cuts the text 128 times, and 64 are the most"):
        read(tmp_path, window=256, stride=2)
