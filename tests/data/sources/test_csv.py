from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bmcli.data.sources import SourceRows, csv
from bmcli.errors import BmcliError


def read(path: Path, text: str | bytes, **options: Any) -> SourceRows:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return csv.read(csv.Options(path=str(path), **options))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def fault(file: Path, text: str | bytes, **options: Any) -> str:
    with pytest.raises(BmcliError) as caught:
        read(file, text, **options)
    return str(caught.value).removeprefix(str(file))


def test_cells_stay_text_to_the_letter(file: Path) -> None:
    rows = read(file, "zip,name\n01234, Ada\n1e3,0x1F\n")
    assert rows.columns["zip"].to_pylist() == ["01234", "1e3"]
    assert rows.columns["name"].to_pylist() == [" Ada", "0x1F"]
    assert rows.split is None
    assert len(rows) == 2


def test_default_missing_texts_are_nulls(file: Path) -> None:
    rows = read(file, 'a,b\nNA,x\n?,\n"",y\nnull,n/a\n')
    assert rows.columns["a"].to_pylist() == [None] * 4
    assert rows.columns["b"].to_pylist() == ["x", None, "y", None]


def test_missing_replaces_the_default_but_an_empty_cell_stays_missing(file: Path) -> None:
    rows = read(file, "country\nNA\n-\nDE\n", missing=("-",))
    assert rows.columns["country"].to_pylist() == ["NA", None, "DE"]


def test_quoted_cells_hold_delimiters_and_newlines(file: Path) -> None:
    rows = read(file, 'a,b\n"1,2","x\ny"\n3,"say ""hi"""\n')
    assert rows.columns["a"].to_pylist() == ["1,2", "3"]
    assert rows.columns["b"].to_pylist() == ["x\ny", 'say "hi"']


def test_gzip_is_unpacked_whatever_the_name(file: Path) -> None:
    assert len(read(file, gzip.compress(b"a\n1\n2\n"))) == 2


def test_delimiter_and_encoding(file: Path) -> None:
    rows = read(file, "name;age\nJosé;3\n".encode("latin-1"), delimiter=";", encoding="latin-1")
    assert rows.columns["name"].to_pylist() == ["José"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(file: Path, encoding: str) -> None:
    text = "a,b\n1,2\n".encode(encoding)
    rows = read(file, text, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert list(rows.columns) == ["a", "b"]


def test_spaces_around_names_are_dropped(file: Path) -> None:
    assert list(read(file, "a, b\n1,2\n").columns) == ["a", "b"]


def test_a_file_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "test.csv").write_text("b,a\n6,5\n")
    paths = {"test": str(tmp_path / "test.csv"), "train": str(tmp_path / "train.csv")}
    rows = csv.read(csv.Options(path=paths))
    assert rows.split is not None
    assert rows.split.tolist() == ["train", "train", "test"]
    assert rows.columns["a"].to_pylist() == ["1", "3", "5"]
    assert rows.describe_row(2) == f"{tmp_path / 'test.csv'}:2"


def test_files_with_other_columns_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    (tmp_path / "test.csv").write_text("a,c\n1,2\n")
    with pytest.raises(BmcliError, match=r"test.csv:1  has no column 'b', which .*train.csv has"):
        csv.read(csv.Options(path={name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}))


def test_the_line_of_a_row_counts_blank_lines_and_newlines_in_quotes(file: Path) -> None:
    rows = read(file, 'a,b\n1,"x\ny\nz"\n\n2,u\n3,v\n')
    assert [rows.describe_row(row) for row in range(3)] == [f"{file}:{line}" for line in (2, 6, 7)]


def test_a_row_has_a_place_after_its_file_is_gone(file: Path) -> None:
    rows = read(file, "a\n1\n2\n")
    file.unlink()
    assert rows.describe_row(1) == f"{file} row 2"


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(BmcliError, match=r"trian.csv: no such file") as caught:
        csv.read(csv.Options(path=str(tmp_path / "trian.csv")))
    assert caught.value.faults[0].suggestion == "Did you mean 'train.csv'?"
    assert caught.value.faults[0].path == "data.source.path"


def test_a_folder_without_tables_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(BmcliError, match=r"holds no file that ends in .csv or .tsv or .tab"):
        csv.read(csv.Options(path=str(tmp_path)))


def test_a_pipe_is_a_fault_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BmcliError, match="expected a file, found a device or pipe"):
        csv.read(csv.Options(path=str(tmp_path / "pipe")))


def test_no_permission_is_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    file.write_text("a\n1\n")
    monkeypatch.setattr(Path, "open", refuse)  # The superuser may read everything, so the mode would not do.
    with pytest.raises(BmcliError, match=r"t.csv: cannot be read: permission denied\."):
        csv.read(csv.Options(path=str(file)))


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_a_fault(file: Path, text: str) -> None:
    assert fault(file, text) == ": is empty."


@pytest.mark.parametrize("text", ["a,b\n", "a,b", '"a\nb",c\n\n'])
def test_a_header_alone_is_a_fault(file: Path, text: str) -> None:
    assert fault(file, text) == ": has a header, but no rows."


@pytest.mark.parametrize(("row", "cells"), [("1", 1), ("1,2,3", 3)])
def test_a_ragged_row_is_a_fault_with_its_line(file: Path, row: str, cells: int) -> None:
    text = f'a,b\n"x\ny",2\n{row}\n5,6\n'
    assert fault(file, text) == f":4  expected 2 cells, received {cells}."


def test_bytes_that_are_not_text_are_a_fault_with_their_line(file: Path) -> None:
    assert fault(file, b"a,b\n1,2\n3,\xff\n") == ":3  byte 0xff is not utf-8."


def test_text_without_a_meaning_is_a_fault(file: Path) -> None:
    assert "is not unicode_escape" in fault(file, b"a\n\\ud800\n", encoding="unicode_escape")


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:14] + b"\x99\x99" + data[16:]])
def test_a_damaged_gzip_stream_is_a_fault(file: Path, damage: Any) -> None:
    packed = gzip.compress("".join(f"{n}\n" for n in range(999)).encode())
    assert "gzip stream" in fault(file, damage(packed))


def test_a_gzip_bomb_is_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.limits.MIN_UNPACKED_BYTES", 10_000)
    assert "over 200 times as many" in fault(file, gzip.compress(b"a\n" + b"1" * 10**7))


def test_two_columns_of_one_name_are_a_fault(file: Path) -> None:
    assert fault(file, "a,b,a\n1,2,3\n") == ":1  two columns are named 'a'."


@pytest.mark.parametrize("text", ['a,b\n1,x\n2,"y\n3,z\n4,u\n', 'a,b\n1,x\n"2,y\n3,z\n4,u\n'])
def test_a_quote_that_is_never_closed_is_a_fault_with_its_line(file: Path, text: str) -> None:
    assert fault(file, text, quote='"').startswith(":3  ")


def test_a_long_cell_is_read(file: Path) -> None:
    long = "x" * 2_000_000
    assert read(file, f'a,b\n1,"{long}"\n').columns["b"].to_pylist() == [long]


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "§"])
def test_a_delimiter_is_one_ascii_character(delimiter: str) -> None:
    with pytest.raises(ValidationError, match="expected one ASCII character"):
        csv.Options(path="x.csv", delimiter=delimiter)


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "zlib"])
def test_an_encoding_is_one_of_text(encoding: str) -> None:
    with pytest.raises(ValidationError, match="no text encoding"):
        csv.Options(path="x.csv", encoding=encoding)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (3, "expected a path"),
        ({}, "expected paths, received an empty mapping"),
        ([], "expected paths, received an empty list"),
        (["a.csv", 3], "expected a path"),
        ({"train": ["a.csv", ""]}, "a path or a list of paths for train"),
        ("http://host/a.csv", "no file system for http://"),
        ({"trian": "x"}, "no split"),
        ({"train": 1}, "a path or a list of paths for train"),
    ],
)
def test_a_path_is_text_or_a_mapping_from_splits(path: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        csv.Options(path=path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected_and_reported(file: Path, delimiter: str) -> None:
    rows = read(file, "name,price,note\n".replace(",", delimiter) + f"x{delimiter}1{delimiter}a: b\n" * 3)
    assert list(rows.columns) == ["name", "price", "note"]
    assert rows.detected_options == {
        "delimiter": delimiter, "encoding": "utf-8", "quote": '"', "skip_lines": 0, "header": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a;b\n1,5;2,5\n3,5;4,5\n", ["a", "b"]),
        ('a,b\n"1;2;3",x\n"4;5;6",y\n', ["a", "b"]),
        ("text\none; two, three\n".replace(",", ""), ["text"]),
        ("a\n1\n2\n", ["a"]),
    ],
)
def test_a_guess_is_not_led_astray_by_other_marks(file: Path, text: str, columns: list[str]) -> None:
    assert list(read(file, text).columns) == columns


def test_options_that_are_set_are_not_detected(file: Path) -> None:
    chosen = {"delimiter": ",", "encoding": "utf-8", "quote": '"', "skip_lines": 0, "header": True}
    assert read(file, "a;b\n1;2\n", **chosen).detected_options == {}


def test_a_table_without_a_header_has_numbered_or_named_columns(file: Path) -> None:
    rows = read(file, "1,x\n2,y\n", header=False)
    assert {name: column.to_pylist() for name, column in rows.columns.items()} == {
        "column_1": ["1", "2"],
        "column_2": ["x", "y"],
    }
    assert rows.describe_row(1) == f"{file}:2"
    assert list(read(file, "1,x\n", header=False, columns=("a", "b")).columns) == ["a", "b"]


def test_names_must_be_as_many_as_the_columns(file: Path) -> None:
    message = ":1  has 2 cells, but `columns` lists 1 names."
    assert fault(file, "1,x\n", header=False, columns=("a",)) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": True, "columns": ("a",)}, "has no effect with a header"),
        ({"header": False, "columns": ("a", "a")}, "received 'a' twice"),
    ],
)
def test_names_beside_a_header_or_there_twice_are_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        csv.Options(path="x.csv", **options)


def test_quotes_are_chosen(file: Path) -> None:
    assert read(file, "a,b\n'1,2',\"x\n", quote="'").columns["b"].to_pylist() == ['"x']
    assert read(file, 'a,b\n"1,"x\n', quote="none").columns["a"].to_pylist() == ['"1']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_an_encoding_is_detected_by_its_mark(file: Path, encoding: str) -> None:
    rows = read(file, "größe;b\n1;é\n".encode(encoding))
    assert rows.columns["b"].to_pylist() == ["é"]
    assert rows.detected_options["encoding"] == encoding.removesuffix("-sig")
    assert rows.describe_row(0) == f"{file}:2"


def test_text_in_another_encoding_is_a_fault_that_names_one(file: Path) -> None:
    with pytest.raises(BmcliError, match=r":2  byte 0xe9 is not utf-8") as caught:
        read(file, "a;b\né;1\n".encode("latin-1"), encoding="utf-8")
    assert "encoding: latin-1" in caught.value.faults[0].suggestion


def test_a_comment_among_the_rows_is_a_fault_that_says_so(file: Path) -> None:
    with pytest.raises(BmcliError, match=r":3  expected 2 cells, received 3") as caught:
        read(file, b"a,b\n1,2\n# one, two, three\n3,4\n")
    assert caught.value.faults[0].suggestion == "Remove the line if it is a comment."


def test_zero_bytes_are_a_fault(file: Path) -> None:
    assert fault(file, "a,b\n1,2\n".encode("utf-32-le")) == ":1  contains zero bytes, so it is not utf-8 text."


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    for name, cell in {"b.csv": "2", "a.csv": "1", "c.tsv": "3", ".hidden.csv": "4", "_tmp.csv": "5"}.items():
        (tmp_path / name).write_text(f"x\n{cell}\n")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"x\n6\n"))
    rows = csv.read(csv.Options(path=str(tmp_path)))
    assert rows.columns["x"].to_pylist() == ["1", "2", "3", "6"]
    assert rows.describe_row(2) == f"{tmp_path / 'c.tsv'}:2"


def test_a_pattern_and_a_list_name_files(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"part-{number}.csv").write_text(f"x\n{number}\n")
    assert csv.read(csv.Options(path=f"{tmp_path}/part-?.csv")).columns["x"].to_pylist() == ["1", "2"]
    several = [f"{tmp_path}/part-2.csv", f"{tmp_path}/part-1*.csv"]
    assert csv.read(csv.Options(path=several)).columns["x"].to_pylist() == ["2", "1", "10"]
    with pytest.raises(BmcliError, match=r"whole-\*.csv: matches no file"):
        csv.read(csv.Options(path=f"{tmp_path}/whole-*.csv"))
    with pytest.raises(BmcliError, match=r"part-2.csv: is listed twice"):
        csv.read(csv.Options(path=[f"{tmp_path}/part-2.csv", f"{tmp_path}/part-*.csv"]))


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("x\n7\n")
    assert csv.read(csv.Options(path=f"{tmp_path}/a[1].csv")).columns["x"].to_pylist() == ["7"]


def test_each_split_may_have_several_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    options = csv.Options(path={"test": f"{tmp_path}/c.csv", "train": [f"{tmp_path}/{name}.csv" for name in "ba"]})
    rows = csv.read(options)
    assert rows.split is not None
    assert rows.split.tolist() == ["train", "train", "test"]
    assert rows.columns["x"].to_pylist() == ["b", "a", "c"]
    assert options.splits() == ("train", "train", "test")


def test_an_address_is_read_through_its_file_system(tmp_path: Path) -> None:
    for name in ("part 1", "part 2"):
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    address = tmp_path.as_uri()
    for path in (address, f"{address}/part*.csv", [f"{address}/part%201.csv", f"{address}/part%202.csv"]):
        options = csv.Options(path=path)
        rows = csv.read(options)
        assert rows.columns["x"].to_pylist() == ["part 1", "part 2"]
        assert rows.describe_row(1) == f"{address}/part%202.csv:2"
        assert options.fingerprint() == csv.Options(path=str(tmp_path)).fingerprint()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.csv", "nowhere.csv: no such file"),
        ("no*.csv", "matches no file"),
        ("a%zz.csv", "no address of a file"),
    ],
)
def test_an_address_of_nothing_is_a_fault(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(BmcliError, match=message):
        csv.read(csv.Options(path=f"{tmp_path.as_uri()}/{path}"))


def test_a_gzip_file_at_an_address_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x\n1\n"))
    assert csv.read(csv.Options(path=f"{tmp_path.as_uri()}/a.csv.gz")).columns["x"].to_pylist() == ["1"]


def test_rows_of_many_blocks_are_those_of_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,b\n" + "".join(f'{n},"x\n{n}"\n' for n in range(2000))
    whole = read(file, text).columns["b"].to_pylist()
    monkeypatch.setattr("bmcli.data.files.CHUNK", 777)
    monkeypatch.setattr(csv, "_BLOCK_BYTES", 1000)
    rows = read(file, text)
    assert rows.columns["b"].to_pylist() == whole
    assert len(rows.columns["b"].chunks) > 1
    assert rows.describe_row(1999) == f"{file}:{2 + 2 * 1999}"


def test_a_byte_that_is_no_text_is_found_in_a_later_block(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", 64)
    assert fault(file, b"a,b\n" + b"1,2\n" * 50_000 + b"\xff,3\n") == ":50002  byte 0xff is not utf-8."


def test_nothing_is_left_in_the_cache(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMCLI_CACHE", str(tmp_path / "own"))
    rows = read(file, "a\n1\n")
    assert list((tmp_path / "own").iterdir()) == []
    assert rows.columns["a"].to_pylist() == ["1"]


RAGGED = 'a,b\n1,2\n3\n4,5,6\n"x\ny",8\n\n9,10\n11,12,\n'


def test_ragged_rows_can_be_left_out_and_counted(file: Path) -> None:
    file.write_text(RAGGED)
    rows = csv.read_well_formed(csv.Options(path=str(file)))
    assert (rows.malformed_records, len(rows)) == (3, 3)
    assert rows.columns["a"].to_pylist() == ["1", "x\ny", "9"]
    assert [rows.describe_row(row) for row in range(3)] == [f"{file}:{line}" for line in (2, 5, 8)]


def test_ragged_rows_of_every_file_count(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv.gz"):
        write = gzip.open if name.endswith(".gz") else open
        with write(tmp_path / name, "wt") as packed:
            packed.write(RAGGED)
    rows = csv.read_well_formed(csv.Options(path=str(tmp_path)))
    assert (rows.malformed_records, len(rows)) == (6, 6)


def test_a_table_without_a_whole_row_is_a_fault(file: Path) -> None:
    file.write_text("a,b\n1\n2,3,4\n")
    with pytest.raises(BmcliError, match="no record has 2 cells like the header"):
        csv.read_well_formed(csv.Options(path=str(file)))


def test_nothing_is_broken_where_every_row_is_whole(file: Path) -> None:
    file.write_text("a,b\n1,2\n")
    assert csv.read_well_formed(csv.Options(path=str(file))).malformed_records == 0


def test_a_row_too_long_for_the_parser_is_named_by_its_line(file: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        read(file, "a,b\n1,2\n" + "z" * 36_000_000 + ",1\n3,4\n")
    (fault,) = caught.value.faults
    assert fault.message == f"{file}:3  a row of 36,000,002 bytes, expected at most 16,777,216."
    assert "Parquet" in fault.suggestion


def test_what_the_parser_says_is_cut_and_on_one_line(file: Path) -> None:
    assert len(fault(file, "a,b\n" + "z" * 100_000 + "\n")) < 200


def cells(rows: SourceRows) -> dict[str, list[str | None]]:
    return {name: column.to_pylist() for name, column in rows.columns.items()}


def test_a_decimal_comma_is_not_cut_by_commas_in_the_header(file: Path) -> None:
    rows = read(file, "t, C;h, %;y\n" + "0,5;0,5;kalt\n" * 60)
    assert list(rows.columns) == ["t, C", "h, %", "y"]
    assert rows.columns["t, C"][0].as_py() == "0,5"


def test_quotes_that_begin_cells_and_do_not_end_them_are_characters(file: Path) -> None:
    text = "label\tmsg\n" + "".join(
        f"{'ham' if n % 2 else 'spam'}\t{chr(34) * (n in (40, 140))}word{n} and some more text here\n"
        for n in range(300)
    )
    rows = read(file, text)
    assert len(rows) == 300
    assert rows.columns["msg"][40].as_py() == '"word40 and some more text here'
    assert rows.detected_options["quote"] == "none"
    assert rows.notes == (
        f"{file}:42: a quote that begins a cell does not end it, so that quotes were read as ordinary characters "
        "(`quote: none`), and every line is a row.",
    )
    assert rows.describe_row(299) == f"{file}:301"
    assert len(read(file, text, quote='"')) == 200


def test_one_quote_that_is_never_closed_is_a_character(file: Path) -> None:
    rows = read(file, 'a,b\n1,x\n2,"y\n3,z\n4,u\n')
    assert cells(rows)["b"] == ["x", '"y', "z", "u"]
    assert f"{file}:3: a quote that begins a cell" in rows.notes[0]


def test_cells_of_several_lines_stay_quoted(file: Path) -> None:
    text = "id,text\n" + "".join(f'{n},"Dear Sir\nI write, with regard\nThanks"\n' for n in range(20))
    rows = read(file, text)
    assert len(rows) == 20
    assert rows.notes == ()


def test_a_cell_of_lines_that_may_be_rows_is_told(file: Path) -> None:
    rows = read(file, 'id,text\n1,"Dear Sir\nThanks, Bob"\n2,short\n')
    assert len(rows) == 2
    assert "this makes 2 rows of 3 lines. If every line is a row, set `quote: none`." in rows.notes[0]


def test_quotes_that_are_set_stay_quotes_with_a_word(file: Path) -> None:
    text = "a,b\n" + "".join(f"{n},{chr(34) * (n in (10, 30))}word {n}\n" for n in range(60))
    rows = read(file, text, quote='"')
    assert len(rows) == 40
    assert f"{file}:12: a quoted cell spans several lines" in rows.notes[0]


def test_a_quote_in_a_table_of_one_column_is_a_character(file: Path) -> None:
    text = "msg\n" + "".join(f"{chr(34) * (n in (10, 30))}word {n}\n" for n in range(60))
    assert len(read(file, text)) == 60
    several = "msg\n" + "".join(f'"word {n}\nand "more" of it"\n' for n in range(20))
    assert len(read(file, several)) == 20


def test_quotes_around_most_cells_are_not_taken_for_characters(file: Path) -> None:
    message = fault(file, '"a","b"\n"1","x"\n"2","y\n"3","z"\n')
    assert message == ":3  expected 2 cells, received 3."


def test_a_file_without_a_header_keeps_its_first_row(file: Path) -> None:
    rows = read(file, "5.1,3.5,setosa\n4.9,3.0,setosa\n6.1,2.9,virginica\n")
    assert cells(rows)["column_1"] == ["5.1", "4.9", "6.1"]
    assert rows.detected_options["header"] is False
    assert f"{file}: read without a header" in rows.notes[0]
    assert read(file, "5.1,3.5\n4.9,3.0\n", header=True).notes == ()


def test_names_of_columns_stand_for_a_missing_header(file: Path) -> None:
    assert cells(read(file, "a,b\n1,2\n", columns=("x", "y"))) == {"x": ["a", "1"], "y": ["b", "2"]}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (",a,b\n0,1,2\n1,4,5\n", ["Unnamed: 0", "a", "b"]),
        ("a;b\nx 1;1;2\nx 2;3;4\n", ["Unnamed: 0", "a", "b"]),
        ('"mpg" "cyl"\n"Mazda RX4" 21 6\n"Datsun" 22.8 4\n', ["Unnamed: 0", "mpg", "cyl"]),
        ("a,b,\n1,2,\n3,4,\n", ["a", "b", "Unnamed: 2"]),
        ("a;b\n1;2;\n3;4;\n", ["a", "b", "Unnamed: 2"]),
        ("a,b,\n1,2\n3,4\n", ["a", "b"]),
        (",Unnamed: 0,a\n0,0,1\n1,1,2\n", ["Unnamed: 0.1", "Unnamed: 0", "a"]),
        ("# x y z\n1.0 2.0 3.0\n4 5 6\n", ["x", "y", "z"]),
        ("# x,y\n1.0,2.0\n4,5\n", ["x", "y"]),
    ],
)
def test_columns_without_a_name_are_named_as_pandas_does(file: Path, text: str, columns: list[str]) -> None:
    rows = read(file, text)
    assert list(rows.columns) == columns
    assert len(rows) == 2
    assert rows.describe_row(1) == f"{file}:3"


def test_an_index_that_only_one_file_has_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(",a\n0,1\n1,4\n")
    (tmp_path / "test.csv").write_text("a\n7\n")
    rows = csv.read(csv.Options(path={name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}))
    assert cells(rows) == {"Unnamed: 0": ["0", "1", None], "a": ["1", "4", "7"]}


@pytest.mark.parametrize(
    "text", ["sep=;\na;b\n1;x\n2;y\n", "Report\n\na;b;c\n1;x;3\n2;y;4\n", "# by me\na|b\n1|x\n2|y\n"]
)
def test_lines_above_the_table_are_no_rows(file: Path, text: str) -> None:
    rows = read(file, text)
    assert cells(rows)["a"] == ["1", "2"]
    assert rows.describe_row(1) == f"{file}:{text.count(chr(10))}"


def test_blanks_in_any_number_separate_cells(tmp_path: Path) -> None:
    file = tmp_path / "auto.data"
    rows = read(file, "".join(f'{n}.5   8   {307 + n}.0 \t70  "chevrolet  {n}"  \n' for n in range(30)))
    assert len(rows.columns) == 5
    assert cells(rows)["column_5"][:2] == ["chevrolet  0", "chevrolet  1"]
    assert rows.detected_options["delimiter"] == "whitespace"
    assert rows.describe_row(29) == f"{file}:30"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_read(file: Path, end: str) -> None:
    rows = read(file, "\ufeffa,b\n1,x\n\n2,y\n".replace("\n", end))
    assert cells(rows) == {"a": ["1", "2"], "b": ["x", "y"]}
    assert rows.describe_row(1) == f"{file}:4"


def test_western_european_text_is_read_with_a_word(file: Path) -> None:
    rows = read(file, "name;y\nJosé;1\nZürich \N{EN DASH} “x”;2\n".encode("cp1252"))
    assert cells(rows)["name"] == ["José", "Zürich \N{EN DASH} “x”"]
    assert rows.detected_options["encoding"] == "cp1252"
    assert "was read as cp1252 (Western European)" in rows.notes[0]


WRITTEN = {
    "chinese": ["北京", "上海", "价格便宜", "质量不错"],
    "traditional": ["臺北", "高雄", "價格便宜", "品質不錯"],
    "japanese": ["東京です", "とても面白い", "サービス", "映画でした"],
    "korean": ["서울", "부산", "날씨가 좋아서", "추천합니다"],
    "russian": ["Москва", "Казань", "хорошая погода", "плохо"],
}


@pytest.mark.parametrize(
    ("script", "encoding", "found"),
    [
        ("chinese", "gbk", "gb18030 (Chinese)"),
        ("chinese", "gb18030", "gb18030 (Chinese)"),
        ("traditional", "big5", "cp950 (traditional Chinese)"),
        ("japanese", "shift_jis", "cp932 (Japanese)"),
        ("japanese", "euc_jp", "euc_jp (Japanese)"),
        ("korean", "euc_kr", "cp949 (Korean)"),
        ("russian", "cp1251", "cp1251 (Cyrillic)"),
        ("russian", "koi8_r", "koi8_r (Cyrillic)"),
    ],
)
def test_text_of_another_script_is_read_with_a_word(file: Path, script: str, encoding: str, found: str) -> None:
    words = WRITTEN[script] * 3
    rows = read(
        file, "".join(["name,y\n", *(f"{word},{place}\n" for place, word in enumerate(words))]).encode(encoding)
    )
    assert cells(rows)["name"] == words
    assert rows.detected_options["encoding"] == found.partition(" ")[0]
    assert f"is not UTF-8, and was read as {found}. If letters look wrong, set `encoding`" in rows.notes[0]


def test_japanese_names_without_kana_are_not_guessed(file: Path) -> None:
    text = "name,y\n" + "東京,1\n大阪,2\n京都,3\n名古屋,4\n" * 5
    assert "is not utf-8" in fault(file, text.encode("cp932"))
    assert cells(read(file, text.encode("cp932"), encoding="shift_jis"))["name"][:2] == ["東京", "大阪"]


def test_text_in_utf_8_that_is_read_otherwise_is_told(file: Path) -> None:
    assert "looks like UTF-8" in read(file, "name\nZürich\n", encoding="cp1252").notes[0]
    assert read(file, "name\nZürich\n".encode("cp1252"), encoding="cp1252").notes == ()


def test_western_european_text_is_found_far_into_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.CHUNK", 64)
    rows = read(file, b"a,b\n" + b"1,2\n" * 100_000 + "Zürich,3\n1,2\n".encode("cp1252") + b"1,2\n" * 100_000)
    assert rows.columns["a"][100_000].as_py() == "Zürich"


@pytest.mark.parametrize(
    "data",
    [
        b"name,y\n\xef\xf0\xe8\xe2\xe5\xf2,1\n\xec\xe8\xf0,2\n",
        "name,y\n你好,1\n世界,2\n".encode("gbk"),
        "name,y\nZürich,1\n".encode() + "Genève,2\n".encode("cp1252"),
    ],
)
def test_other_encodings_and_mixed_ones_are_a_fault(file: Path, data: bytes) -> None:
    with pytest.raises(BmcliError, match="is not utf-8"):
        read(file, data)


def test_files_of_other_encodings_and_delimiters_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("name,y\nZürich,1\n".encode())
    (tmp_path / "b.csv").write_bytes("name;y\nGenève;2\n".encode("cp1252"))
    rows = csv.read(csv.Options(path=str(tmp_path)))
    assert cells(rows) == {"name": ["Zürich", "Genève"], "y": ["1", "2"]}
    assert rows.detected_options == {"quote": '"', "skip_lines": 0, "header": True}
    assert rows.describe_row(1) == f"{tmp_path / 'b.csv'}:2"
