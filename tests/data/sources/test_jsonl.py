from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data.sources import SourceRows, jsonl
from bmcli.errors import BmcliError
from bmcli.raw_columns import UnreadableColumn, to_texts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.jsonl"


def read(path: Path, text: str | bytes) -> SourceRows:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return jsonl.read(jsonl.Options(path=str(path)))


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def fault(file: Path, text: str | bytes) -> str:
    with pytest.raises(BmcliError) as caught:
        dict(read(file, text).columns)
    return str(caught.value).removeprefix(str(file))


def test_keys_are_columns(file: Path) -> None:
    rows = read(file, lines({"a": 1, "b": 0.5, "c": "x", "d": True}, {"a": 2, "b": None, "d": None}))
    assert list(rows.columns) == ["a", "b", "c", "d"]
    assert rows.columns["a"].tolist() == [1, 2]
    np.testing.assert_array_equal(rows.columns["b"], [0.5, np.nan])
    assert rows.columns["c"].to_pylist() == ["x", None]
    assert rows.columns["d"].to_pylist() == ["true", None]


def test_nested_objects_and_lists_of_numbers(file: Path) -> None:
    rows = read(file, lines({"at": {"x": 1, "day": "2024-02-29"}, "v": [1, 2]}, {"at": {"x": 2}, "v": [3.5, None]}))
    assert rows.columns["at.x"].tolist() == [1, 2]
    assert rows.columns["at.day"].to_pylist() == ["2024-02-29", None]
    np.testing.assert_array_equal(rows.columns["v"], [[1, 2], [3.5, np.nan]])


def test_text_that_looks_like_a_date_stays_as_it_is(file: Path) -> None:
    assert read(file, lines({"day": "2024-02-29 10:00:00"})).columns["day"].to_pylist() == ["2024-02-29 10:00:00"]


def test_blank_lines_count_in_the_place_of_a_row(file: Path) -> None:
    rows = read(file, '{"a": 1}\n\n  \n{"a": 2}')
    assert [rows.describe_row(row) for row in range(2)] == [f"{file}:1", f"{file}:4"]


def test_gzip_and_a_byte_order_mark(file: Path) -> None:
    assert read(file, gzip.compress(b'\xef\xbb\xbf{"a": 1}\n')).columns["a"].tolist() == [1]


@pytest.mark.parametrize("block", [2**24, 16])
def test_text_and_numbers_in_a_column_are_text(file: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", block)
    rows = read(file, lines({"a": 7}, {"a": "seven"}, {"a": 0.5}, {"a": None}, {"a": True}))
    assert rows.columns["a"].to_pylist() == ["7", "seven", "0.5", None, "true"]


@pytest.mark.parametrize("block", [2**24, 20])
def test_whole_and_broken_numbers_in_a_column_are_numbers(
    file: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", block)
    rows = read(file, lines({"a": 7, "b": 1}, {"a": 0.5, "c": 2**70}))
    np.testing.assert_array_equal(rows.columns["a"], [7, 0.5])
    np.testing.assert_array_equal(rows.columns["b"], [1, np.nan])
    assert rows.columns["c"].to_pylist() == [None, str(2**70)]  # an identifier, which keeps its digits


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1', ":3  is not JSON: Expecting ',' delimiter."),
        ("a,b", ":3  is not JSON: Expecting value."),
        ("[1]", ":3  expected an object, received a list."),
        ("null", ":3  expected an object, received null."),
        ('{"a": 1}{"a": 2}', ":3  is not JSON: Extra data."),
        ('{"a": 1, "a": 2}', ":3  is not JSON: the key 'a' is repeated."),
        ("[" * 100_000, ":3  lists and objects are nested more than 60 levels deep."),
    ],
)
def test_a_broken_line_is_a_fault_with_its_number(file: Path, line: str, message: str) -> None:
    assert fault(file, f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n').startswith(message)


def test_values_of_other_types_are_a_fault_where_the_column_is_used(file: Path) -> None:
    rows = read(file, '{"a": 1, "b": 5}\n\n{"a": [1], "b": 6}\n{"a": 2, "b": 7}\n')
    assert rows.columns["b"].tolist() == [5, 6, 7]
    with pytest.raises(UnreadableColumn, match=r":3  column 'a': expected a number, as in line 1, received a list\."):
        rows.columns["a"]


def test_bytes_that_are_no_text_are_a_fault_with_their_line(file: Path) -> None:
    assert fault(file, b'{"a": "x"}\n{"a": "\xff"}\n') == ":2  byte 0xff is not utf-8."


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_a_fault(file: Path, text: str) -> None:
    assert fault(file, text) == ": is empty."


def test_objects_without_keys_are_a_fault(file: Path) -> None:
    assert fault(file, "{}\n{}\n") == ":1  expected objects with keys, received empty ones from this line on."


def test_lists_of_several_lengths_are_a_fault_with_the_line(file: Path) -> None:
    message = ":2  column 'x': expected a list of 2 values, as in the rows before, received one of 1."
    assert fault(file, lines({"x": [1, 2]}, {"x": [3]})) == message


def test_files_must_have_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1, "y": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(BmcliError, match=r"b.jsonl: has no column 'y', which .*a.jsonl has"):
        jsonl.read(jsonl.Options(path=str(tmp_path)))


def test_a_line_may_be_longer_than_a_block(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", 100)
    rows = read(file, lines({"a": "x" * 1000}, {"a": "y"}))
    assert rows.columns["a"].to_pylist() == ["x" * 1000, "y"]
    assert rows.describe_row(1) == f"{file}:2"


def test_one_row_is_read(file: Path) -> None:
    assert len(read(file, '{"a": 1}')) == 1


@pytest.mark.parametrize("inner", ["[" * 20_000 + "]" * 20_000, '{"a":' * 1_200 + "1" + "}" * 1_200, "[" * 20_000])
def test_what_is_nested_too_deeply_names_its_line_and_ends_no_process(file: Path, inner: str) -> None:
    text = '{"a": 1}\n{"a": ' + inner + "}\n"
    code = f"""
from bmcli.data.sources import jsonl
from bmcli.errors import BmcliError
try:
    jsonl.read(jsonl.Options(path={str(file)!r}))
except BmcliError as error:
    print(error)
"""
    file.write_text(text)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr  # a crash of a parser is a signal, which no test in the process outlives
    assert f"{file}:2  lists and objects are nested more than 60 levels deep." in ended.stdout


def test_brackets_in_texts_are_not_nested(file: Path) -> None:
    assert read(file, lines({"a": "[" * 500}, {"a": 'x"' + "{" * 500})).columns["a"].to_pylist() == [
        "[" * 500,
        'x"' + "{" * 500,
    ]


def test_objects_that_continue_on_the_next_line_do_not_hide_their_nesting(file: Path) -> None:
    """Brackets in texts make each line look closed, while all of them together are one deep object."""
    assert fault(file, '{"a":{"a":"}}","b":\n' * 30_000).startswith(":1  is not JSON")


BROKEN = {
    "too deep": "[" * 20_000,
    "too deep, and closed": '{"a": ' + "[" * 61 + "]" * 61 + "}",
    "no JSON": '{"a": 1',
    "a quote that is never closed": '{"a": "' + '\\"' * 500_000 + "[" * 100,
    "no object": "[1]",
    "a key twice": '{"a": 1, "a": 2}',
    "half a character": '{"a": "\\ud800"}',
    "a line too long": '{"a": "' + "x" * 2_000 + '"}',
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block", [2**24, 64])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_in_the_middle_is_left_out_and_counted(
    file: Path, name: str, block: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", block)
    if name == "a line too long":
        monkeypatch.setattr("bmcli.limits.MAX_RECORD_BYTES", 1_000)
        monkeypatch.setattr("bmcli.data.files.CHUNK", min(block, 512))
    elif block == 64 and len(BROKEN[name]) > 10**5:
        monkeypatch.setattr("bmcli.data.files.CHUNK", 2**16)
    text = f'{{"a": 1}}\n\n{{"a": 2}}\n{BROKEN[name]}\n{{"a": 3}}\n'.encode()
    file.write_bytes(gzip.compress(text) if packed else text)
    rows = jsonl.read_well_formed(jsonl.Options(path=str(file)))
    assert (rows.columns["a"].tolist(), rows.malformed_records, len(rows)) == ([1, 2, 3], 1, 3)
    assert [rows.describe_row(row) for row in range(3)] == [f"{file}:{line}" for line in (1, 3, 5)]
    with pytest.raises(BmcliError, match=r"t\.jsonl:4  "):
        jsonl.read(jsonl.Options(path=str(file)))


def test_broken_lines_at_both_ends_are_left_out(file: Path) -> None:
    file.write_bytes(b'\xff\n{"a": 1}\n' + b"{" * 70)
    rows = jsonl.read_well_formed(jsonl.Options(path=str(file)))
    assert (rows.malformed_records, rows.describe_row(0)) == (2, f"{file}:2")


def test_a_file_of_broken_lines_alone_is_a_fault(file: Path) -> None:
    file.write_text("[" * 61 + "\nnull\n")
    with pytest.raises(BmcliError, match=r"t\.jsonl: no line is an object"):
        jsonl.read_well_formed(jsonl.Options(path=str(file)))


@pytest.mark.parametrize("levels", [59, 60, 61, 80, 99, 120])
@pytest.mark.parametrize("brackets", ['{"a":', "["])
def test_levels_are_read_up_to_the_limit(file: Path, levels: int, brackets: str) -> None:
    inner = brackets * (levels - 1) + "1" + ("}" if brackets != "[" else "]") * (levels - 1)
    text = f'{{"a": {inner}}}\n'
    if levels <= 60:
        (column,) = read(file, text).columns.values()
        assert column.reshape(-1).tolist() == [1]
    else:
        assert "nested more than 60 levels deep" in fault(file, text)


def test_halves_of_characters_are_a_fault_with_their_line(file: Path) -> None:
    assert fault(file, '{"a": "x"}\n{"a": "\\ud83d\\ude00"}\n{"a": "\\udc00"}\n').startswith(
        ":3  \\udc00 is one half of a surrogate pair"
    )


def test_identifiers_of_many_digits_keep_them(file: Path) -> None:
    for first in (2**53, 2**63, 2**64):
        rows = read(file, lines(*({"id": first + row, "x": row / 2} for row in range(4))))
        ids = to_texts(rows.columns["id"]).to_pylist()
        assert ids == [str(first + row) for row in range(4)]
        assert rows.columns["x"].tolist() == [0, 0.5, 1, 1.5]
    rows = read(file, lines({"id": 2**53 + 1}, {"id": None}, {"id": 2**53}))
    assert rows.columns["id"].to_pylist() == [str(2**53 + 1), None, str(2**53)]


@pytest.mark.parametrize("block", [2**24, 7])
@pytest.mark.parametrize(
    "text", ['[{"a": 1, "b": "x"}, {"a": 2,\n "b": "y]"}]', '[\n  {"a": 1,\n "b": "x"},\n{"a": 2, "b": "y]"}\n]\n']
)
def test_a_list_of_objects_is_read(file: Path, text: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(text)
    start = text[: text.index("{") + 1]
    monkeypatch.setattr("bmcli.data.files.CHUNK", max(block, len(start)))
    rows = jsonl.read(jsonl.Options(path=str(file)))
    assert rows.columns["a"].tolist() == [1, 2]
    assert rows.columns["b"].to_pylist() == ["x", "y]"]
    assert rows.describe_row(1) == f"{file} item 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, 5]', " item 2  expected an object, received a number."),
        ('[{"a": 1}, {"a": 2]', ": item 2 of the list is not JSON, or the list does not end."),
        ('[{"a": 1}, {"a": 2}', ": item 2 of the list is not JSON, or the list does not end."),
        ('[{"a": 1}, {"a": 2, "a": 3}]', " item 2  is not JSON: the key 'a' is repeated."),
        ("[]", ": is empty."),
    ],
)
def test_a_broken_list_is_a_fault_with_the_item(file: Path, text: str, message: str) -> None:
    assert fault(file, text) == message
