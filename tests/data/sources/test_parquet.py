from __future__ import annotations

import contextlib
import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmcli.data import pages
from bmcli.data.sources import SourceRows, parquet
from bmcli.disk import WriteFailure
from bmcli.errors import BmcliError
from bmcli.raw_columns import FileColumn


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Any) -> SourceRows:
    return parquet.read(parquet.Options(path=path if isinstance(path, (list, dict)) else str(path)))


def fault(path: Any) -> str:
    with pytest.raises(BmcliError) as caught:
        dict(read(path).columns)
    return str(caught.value)


def test_numbers_are_arrays_and_text_is_text(file: Path) -> None:
    write(file, a=[1, 2], b=[0.5, None], c=["x", None])
    rows = read(file)
    assert list(rows.columns) == ["a", "b", "c"]
    assert len(rows) == 2
    assert rows.columns["a"].dtype == "int64"
    np.testing.assert_array_equal(rows.columns["b"], [0.5, np.nan])
    assert rows.columns["c"].to_pylist() == ["x", None]
    assert rows.split is None
    assert rows.describe_row(1) == f"{file} row 2"


def test_whole_numbers_with_gaps_are_floating_point_unless_that_would_confuse_them(file: Path) -> None:
    write(file, a=[1, None], b=[2**60, None], c=pa.array([2**60, 2**60 + 1]))
    rows = read(file)
    np.testing.assert_array_equal(rows.columns["a"], [1, np.nan])
    assert rows.columns["b"].to_pylist() == [str(2**60), None]
    assert rows.columns["c"].tolist() == [2**60, 2**60 + 1]


def test_dates_booleans_decimals_and_dictionaries(file: Path) -> None:
    noon = datetime.datetime(2024, 2, 29, 12, 0, 5)
    write(
        file,
        day=[noon.date(), None],
        moment=[noon, None],
        fraction=[noon.replace(microsecond=250_000), None],
        zone=pa.array([noon, None], pa.timestamp("ms", "Europe/Vienna")),
        truth=[True, None],
        price=[Decimal("1.25"), None],
        colour=pa.array(["red", None]).dictionary_encode(),
        nothing=pa.nulls(2),
    )
    rows = read(file)
    text = {name: rows.columns[name].to_pylist() for name in rows.columns if name != "price"}
    assert text == {
        "day": ["2024-02-29", None],
        "moment": ["2024-02-29T12:00:05", None],
        "fraction": ["2024-02-29T12:00:05.250000", None],
        "zone": ["2024-02-29T12:00:05Z", None],
        "truth": ["true", None],
        "colour": ["red", None],
        "nothing": [None, None],
    }
    np.testing.assert_array_equal(rows.columns["price"], [1.25, np.nan])


def test_lists_of_one_length_are_arrays(file: Path) -> None:
    write(
        file,
        vector=[[1, 2], [3, 4]],
        gaps=[[1.0, None], None],
        fixed=pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2)),
        picture=[[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
    )
    rows = read(file)
    np.testing.assert_array_equal(rows.columns["vector"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(rows.columns["gaps"], [[1, np.nan], [np.nan, np.nan]])
    assert rows.columns["fixed"].dtype == "float32"
    assert rows.columns["picture"].shape == (2, 2, 2)


def test_lists_of_several_lengths_are_a_fault_with_the_row(file: Path) -> None:
    write(file, x=[[1, 2], [3, 4], [5]])
    message = f"{file} row 3  column 'x': expected a list of 2 values, as in the rows before, received one of 1."
    assert fault(file) == message


def test_lists_of_texts_are_written_as_json(file: Path) -> None:
    tags = [["a", 'b "c"'], None, [], ["d\\e\n", None]]
    write(file, tags=tags, none=pa.array([[], None, [], []], pa.list_(pa.null())))
    cells = read(file).columns["tags"].to_pylist()
    assert [None if cell is None else json.loads(cell) for cell in cells] == [*tags[:3], ["d\\e\n", ""]]
    assert read(file).columns["none"].to_pylist() == ["[]", None, "[]", "[]"]


def test_lists_of_booleans_and_maps_are_a_fault_if_they_are_used(file: Path) -> None:
    write(file, x=[1], tags=[[True, False]])
    assert read(file).columns["x"].tolist() == [1]
    assert fault(file) == "column 'tags': lists of bool cannot be read, only lists of numbers."
    write(file, x=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())))
    assert fault(file).startswith("column 'x': cells of type map<")


def test_fields_of_records_are_columns(file: Path) -> None:
    write(file, home=[{"city": "Rome", "at": {"x": 1.5}}, {"city": "Oslo", "at": None}])
    rows = read(file)
    assert list(rows.columns) == ["home.city", "home.at.x"]
    np.testing.assert_array_equal(rows.columns["home.at.x"], [1.5, np.nan])


def test_bytes_are_encoded_files(file: Path) -> None:
    write(file, x=[b"one", b"two"])
    column = read(file).columns["x"]
    assert isinstance(column, FileColumn)
    assert [column.read(row) for row in range(2)] == [b"one", b"two"]


def test_files_are_matched_by_name_and_types_unified(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", y=["u"], x=pa.array([1.5]))
    write(tmp_path / "a.parquet", x=pa.array([1], pa.int32()), y=pa.array(["v"]).dictionary_encode())
    write(tmp_path / "c.parquet", x=pa.nulls(1), y=["w"])
    rows = read(tmp_path)
    assert list(rows.columns) == ["x", "y"]
    np.testing.assert_array_equal(rows.columns["x"], [1, 1.5, np.nan])
    assert rows.columns["y"].to_pylist() == ["v", "u", "w"]
    assert rows.describe_row(1) == f"{tmp_path / 'b.parquet'} row 1"


def test_ragged_schemas_over_files_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", x=[1], y=[1])
    write(tmp_path / "b.parquet", x=[2])
    lacks, has = tmp_path / "b.parquet", tmp_path / "a.parquet"
    assert fault(tmp_path) == f"{lacks}: has no column 'y', which {has} has."


def test_types_that_nothing_holds_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", x=[1])
    write(tmp_path / "b.parquet", x=["1"])
    other, first = tmp_path / "b.parquet", tmp_path / "a.parquet"
    assert fault(tmp_path) == f"{other}: column 'x' is of type string, in {first} of type int64."


def test_a_truncated_file_is_a_fault(file: Path) -> None:
    write(file, x=list(range(1000)))
    data = file.read_bytes()
    for length in (3, 100, len(data) - 1):
        file.write_bytes(data[:length])
        assert fault(file).startswith(f"{file}: is not an intact Parquet file: ")


def test_damage_at_any_place_is_a_fault_or_harmless(file: Path) -> None:
    write(file, x=list(range(50)), y=[f"text {n}" for n in range(50)])
    data = file.read_bytes()
    message = ""
    for place in range(0, len(data), 7):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            dict(read(file).columns)
        except BmcliError as error:
            message = str(error)
    assert message.startswith(f"{file}: ")


@pytest.mark.parametrize(("data", "message"), [(b"", "is not an intact"), (b"a,b\n1,2\n", "is not an intact")])
def test_another_file_is_a_fault(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    assert message in fault(file)


def test_a_file_without_rows_is_a_fault(file: Path) -> None:
    write(file, x=pa.array([], pa.int64()))
    assert fault(file) == f"{file}: has no rows."


def test_one_row_is_read(file: Path) -> None:
    assert read(write(file, x=[1])).columns["x"].tolist() == [1]


def test_two_columns_of_one_name_are_a_fault(file: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), file)
    assert fault(file) == f"{file}: two columns are named 'x'."


def test_many_row_groups_are_one_column(file: Path) -> None:
    values = np.arange(300_000)
    pq.write_table(pa.table({"x": values, "y": values.astype(str)}), file, row_group_size=40_000)
    rows = read(file)
    np.testing.assert_array_equal(rows.columns["x"], values)
    assert rows.columns["y"][299_999].as_py() == "299999"


def test_a_column_of_one_value_beside_real_ones_is_read(file: Path) -> None:
    count = 10_000_000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, "int8")), pa.array(["always the same"]))
    drawn = np.random.default_rng(0).random(count, "float32")
    rows = read(write(file, one=pa.array(np.full(count, 7)), drawn=drawn, text=texts))
    assert len(rows) == count
    assert rows.columns["one"][-1] == 7
    assert rows.columns["text"][-1].as_py() == "always the same"


def test_long_texts_that_repeat_are_read_few_rows_at_a_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.limits.BATCH_BYTES", 100_000)
    texts = ["a" * 10_000, "b", None, "c" * 9_000]
    write(file, x=texts * 50, nested=[{"y": text} for text in texts] * 50)
    lengths = [len(batch) for batch in parquet._read_batches(file, parquet._read_declared_sizes(file))]
    assert (sum(lengths), max(lengths)) == (200, 4)  # of 20,012 bytes a row at most
    assert read(file).columns["nested.y"].to_pylist() == texts * 50


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_headers_of_pages_declare_the_sizes_that_arrow_reads(
    file: Path, compression: str, version: str, dictionary: bool
) -> None:
    draw = np.random.default_rng(0)
    table = pa.table(
        {
            "x": draw.normal(size=20_000),
            "n": pa.array(draw.integers(0, 5, 20_000), mask=draw.random(20_000) < 0.5),
            "s": [f"text {n % 7}" for n in range(20_000)],
            "l": [[n, n + 1] for n in range(20_000)],
        }
    )
    options = {"use_dictionary": dictionary, "data_page_version": version, "compression": compression}
    pq.write_table(table, file, row_group_size=7_000, data_page_size=1_000, write_statistics=True, **options)
    with file.open("rb") as opened:
        found = pages.read_declared_sizes("t", opened)
        listed = pages.read_declared_sizes("t", opened, by_headers=False)
    assert listed.file_bytes == found.file_bytes
    assert listed.row_bytes >= 8 + 8 + 4 + 16
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(number) for number in range(3)]
    unpacked = sum(group.column(place).total_uncompressed_size for group in groups for place in range(4))
    assert found.file_bytes == file.stat().st_size
    assert found.decoded_bytes <= table.nbytes + unpacked
    assert found.decoded_bytes >= 20_000 * (8 + 8 + 4 + 16)
    assert len(read(file)) == 20_000


def test_a_directory_that_announces_less_than_the_pages_hold_is_no_way_around(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the header of the page declares its size: the metadata of the file declares 8 times fewer bytes."""
    monkeypatch.setattr("bmcli.limits.MIN_UNPACKED_BYTES", 100_000)
    pq.write_table(pa.table({"x": np.zeros(100_000)}), file, use_dictionary=False, compression="zstd")
    honest = pq.read_metadata(file).row_group(0).column(0).total_uncompressed_size
    file.write_bytes(file.read_bytes().replace(_varint(2 * honest), _varint(2 * (honest // 8))))
    assert pq.read_metadata(file).row_group(0).column(0).total_uncompressed_size == honest // 8
    assert "t.parquet: " in fault(file)
    assert "bytes unpack to 800" in fault(file)


def _varint(number: int) -> bytes:
    written = b""
    while number >= 0x80:
        written, number = written + bytes([number & 0x7F | 0x80]), number >> 7
    return written + bytes([number])


def test_damaged_headers_of_pages_are_faults(file: Path) -> None:
    write(file, x=list(range(100)), s=[str(n) for n in range(100)])
    whole = file.read_bytes()
    start = pq.read_metadata(file).row_group(0).column(0).dictionary_page_offset
    draw = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[start + draw.integers(0, 12)] = draw.integers(256)
        file.write_bytes(damaged)
        with contextlib.suppress(BmcliError):  # Nothing else is raised; some damage does not matter.
            read(file)


@pytest.mark.parametrize("levels", [59, 61, 80, 99, 120])
def test_records_in_records_are_read_up_to_a_depth(file: Path, levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    pq.write_table(pa.table({"a": pa.array([value] * 2), "y": [1, 2]}), file, store_schema=False)
    if levels < 60:
        assert read(file).columns["a" + ".a" * levels].tolist() == [1, 1]
    else:
        assert re.search("nested 61|nested 80|too deeply nested", fault(file))


@pytest.mark.parametrize("levels", [40, 49, 59, 61, 80, 99, 120])
def test_lists_in_lists_are_read_up_to_a_depth(file: Path, levels: int) -> None:
    kind, value = pa.int64(), 1
    for _ in range(levels):
        kind, value = pa.list_(kind), [value]
    pq.write_table(pa.table({"a": pa.array([value], kind)}), file, store_schema=False)
    if levels < 50:
        assert read(file).columns["a"].shape == (1,) * (levels + 1)
    else:
        assert "too deeply nested" in fault(file)  # Arrow counts two levels for each


def test_pages_that_do_not_fit_into_memory_are_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.read_available_bytes", lambda: 1000)
    pq.write_table(pa.table({"x": np.arange(1000.0)}), file, use_dictionary=False)
    assert "t.parquet: reading it takes 8007 bytes of memory, but 1000 are free" in fault(file)


def test_rows_that_do_not_fit_on_the_disk_are_a_fault_before_the_work(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, x=np.arange(1000.0))
    monkeypatch.setattr("bmcli.data.tables.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        WriteFailure, match=r"no space left on device; [0-9,]+ bytes were to be written, 1,000 are free"
    ):
        read(file)


def test_one_repeated_text_at_an_address_is_a_fault_by_the_directory_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmcli.limits.MIN_UNPACKED_BYTES", 100_000)
    monkeypatch.setattr("bmcli.limits.BATCH_BYTES", 10_000)
    write(file, x=["a" * 1_000] * 5_000, y=[0] * 5_000)
    monkeypatch.setattr("bmcli.data.pages._read_headers", None)  # None is read.
    with pytest.raises(BmcliError, match="over 200 times as many"):
        parquet.read(parquet.Options(path=f"file://{file}"))
