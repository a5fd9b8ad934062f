"""Tables of very many columns: what is done for a column is done once, and what no table has is refused at once."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmcli import limits
from bmcli.data import store, tables
from bmcli.data.invalid import RowSubset
from bmcli.data.preparation import encode_rows, prepare
from bmcli.data.resolution import resolve_options
from bmcli.data.sources import SourceRows, csv, image_folder, jsonl, npz, parquet
from bmcli.dates import reading
from bmcli.errors import BmcliError
from bmcli.inputs import make_tensor_names
from bmcli.recipe.data import DataOptions
from bmcli.specs import MANY_COLUMNS, Column, PreparedData

COLUMNS = MANY_COLUMNS + 40


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers, categories and yes or no in turn, and a target."""
    dice, file = np.random.default_rng(0), tmp_path_factory.mktemp("wide") / "wide.csv"
    words = [["a", "b", "c", ""], ["yes", "no"]]
    kinds = [lambda: f"{dice.normal():.3f}", *(lambda each=each: str(dice.choice(each)) for each in words)]
    lines = [",".join([*(f"c_{place}" for place in range(COLUMNS)), "y"])]
    for row in range(40):
        lines.append(",".join([*(kinds[place % 3]() for place in range(COLUMNS)), "uv"[row % 2]]))
    file.write_text("\n".join(lines) + "\n")
    return file


def options_of(table: Path) -> DataOptions:
    return DataOptions.model_validate({"source": {"kind": "csv", "path": str(table)}, "targets": {"y": "category"}})


def prepared_of(table: Path, cache: Path) -> PreparedData:
    options = options_of(table)
    return prepare(options, options.targets or {}, 0, cache)


class Compared(str):
    """A name that counts how often any is compared with another."""

    count = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)


def test_names_are_not_each_compared_with_all_before() -> None:
    names = [Compared(f"c{place}") for place in range(2000)]
    Compared.count = 0
    tables.check_names(Path("x.csv"), names)
    jsonl._check_unique_keys([(name, 0) for name in names])
    make_tensor_names([Column(name, "number", (1,), "float32") for name in names])
    assert Compared.count < 10 * len(names)


def test_a_name_that_is_there_twice_is_still_found() -> None:
    assert tables.find_repeated(["a", "b", "", "b", "a"]) == "b"
    assert tables.find_repeated(["a", "", ""]) == ""
    assert tables.find_repeated(["a", "b"]) is None
    with pytest.raises(ValueError, match="the key 'a' is repeated"):
        jsonl._check_unique_keys([("a", 1), ("a", 2)])


def test_to_ask_whether_a_column_is_there_makes_none(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = csv.read(csv.Options(path=str(table))).columns
    monkeypatch.setattr(tables, "_to_raw_column", None)  # a column could not be made
    for each in (columns, RowSubset(columns, np.arange(3))):
        assert "c_0" in each
        assert "missing" not in each


def test_columns_of_one_shape_share_a_file_and_nothing_is_flushed_for_each(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(1), flush(file))[1])
    prepared = prepared_of(table, tmp_path)
    assert len([path for path in prepared.folder.rglob("*") if path.is_file()]) < 20
    assert len(flushed) < 10


def test_entries_that_a_seal_vouches_for_are_flushed_before(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_of(table, tmp_path)
    for path in prepared.folder.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(store, "LARGE_BYTES", 0)
    monkeypatch.setattr(store, "_SETTLED_NS", -(10**12))
    store._verified_entries.clear()
    flushed: list[str] = []
    flush, note = store._flush_files, store._write_seal
    monkeypatch.setattr(store, "_flush_files", lambda *given: (flushed.append("flush"), flush(*given))[1])
    monkeypatch.setattr(store, "_write_seal", lambda *given: (flushed.append("seal"), note(*given))[1])
    assert store.find_damage(prepared.folder) == ""
    assert flushed == ["flush", "seal"]


def test_a_stack_cut_short_by_a_power_failure_is_prepared_again(table: Path, tmp_path: Path) -> None:
    prepared = prepared_of(table, tmp_path)
    (stack,) = (prepared.folder / "train").glob("inputs-int32.npy")
    whole = stack.read_bytes()
    stack.write_bytes(whole[: len(whole) // 2])
    assert "changed since it was written" in store.find_damage(prepared.folder)
    prepared_of(table, tmp_path)
    assert stack.read_bytes() == whole


def test_arrays_of_many_columns_are_those_of_each(table: Path, tmp_path: Path) -> None:
    prepared = prepared_of(table, tmp_path)
    rows = csv.read(csv.Options(path=str(table)))
    every = encode_rows(rows, prepared.spec, with_targets=False)
    split = prepared.split("train")
    assert len(split.inputs) == COLUMNS
    of_row = {tuple(every.inputs[f"c_{place}"][row].item() for place in range(6)): row for row in range(40)}
    for row in range(len(split)):
        source = of_row[tuple(split.inputs[f"c_{place}"][row].item() for place in range(6))]
        for name, array in split.inputs.items():
            assert array.dtype == every.inputs[name].dtype
            np.testing.assert_array_equal(array[row], every.inputs[name][source], err_msg=name)


def test_many_inputs_that_no_recipe_names_are_not_written_out(table: Path, tmp_path: Path) -> None:
    options, prepared = options_of(table), prepared_of(table, tmp_path)
    again = resolve_options(options, options.targets or {}, prepared.spec)
    assert again.inputs is None
    assert prepare(again, again.targets or {}, 0, tmp_path).spec.inputs == prepared.spec.inputs


def _wide_csv(path: Path, count: int) -> Callable[[], SourceRows]:
    path.write_text(",".join(f"c{place}" for place in range(count)) + "\n" + ",".join("1" * count) + "\n")
    return lambda: csv.read(csv.Options(path=str(path)))


def _wide_jsonl(path: Path, count: int) -> Callable[[], SourceRows]:
    path.write_text(json.dumps({f"c{place}": 1 for place in range(count)}) + "\n")
    return lambda: jsonl.read(jsonl.Options(path=str(path)))


def _jsonl_of_other_keys(path: Path, count: int) -> Callable[[], SourceRows]:
    lines = ({f"c{place}_{line}": 1 for place in range(max(1, count // 10))} for line in range(12))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lambda: jsonl.read(jsonl.Options(path=str(path)))


def _wide_parquet(path: Path, count: int) -> Callable[[], SourceRows]:
    pq.write_table(pa.table({f"c{place}": [1] for place in range(count)}), path)
    return lambda: parquet.read(parquet.Options(path=str(path)))


def _wide_npz(path: Path, count: int) -> Callable[[], SourceRows]:
    np.savez(path, **{f"c{place}": np.zeros(2) for place in range(count)})
    return lambda: npz.read(npz.Options(path=str(path)))


def _nothing_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if code is reached whose time grows with the number of columns."""
    for module, name in (
        (csv, "_read_batches"),
        (jsonl, "_parse_block"),
        (parquet, "_read_batches"),
        (npz, "_check_member"),
    ):
        monkeypatch.setattr(module, name, None)


@pytest.mark.parametrize(
    ("write", "ending", "what"),
    [
        (_wide_csv, "csv", ":1  has 31 columns"),
        (_wide_jsonl, "jsonl", ":1  has 31 keys"),
        (_jsonl_of_other_keys, "jsonl", ":1  has 36 keys"),
        (_wide_parquet, "parquet", ": has 31 columns"),
        (_wide_npz, "npz", ": has 31 arrays"),
    ],
)
def test_more_columns_than_any_table_has_are_refused_before_they_are_read(
    write: Callable[[Path, int], Callable[[], SourceRows]], ending: str, what: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(limits, "MAX_COLUMNS", 30)
    assert len(write(tmp_path / f"few.{ending}", 20)().columns) >= 20
    read = write(tmp_path / f"many.{ending}", 31)
    _nothing_costly(monkeypatch)
    with pytest.raises(BmcliError) as caught:
        read()
    (fault,) = caught.value.faults
    assert f"many.{ending}{what}, expected at most 30." in fault.message
    assert "leave columns out" in fault.suggestion


def test_a_million_columns_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _wide_csv(tmp_path / "many.csv", 1_000_000)
    _nothing_costly(monkeypatch)
    with pytest.raises(BmcliError, match="has 1,000,000 columns, expected at most 100,000"):
        read()


def test_a_million_keys_are_refused_before_they_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _wide_jsonl(tmp_path / "many.jsonl", 1_000_000)
    _nothing_costly(monkeypatch)
    with pytest.raises(BmcliError, match="has 1,000,000 keys, expected at most 100,000"):
        read()


def test_lines_with_many_colons_and_few_keys_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COLUMNS", 30)
    (tmp_path / "few.jsonl").write_text('{"a": "' + 100 * '\\":' + '", "b": 1}\n' + '{"a": "x", "b": 2}\n' * 200)
    assert list(jsonl.read(jsonl.Options(path=str(tmp_path / "few.jsonl"))).columns) == ["a", "b"]


def test_the_directory_of_an_archive_of_very_many_members_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wide_npz(tmp_path / "many.npz", 60)
    monkeypatch.setattr(limits, "MAX_COLUMNS", 30)
    monkeypatch.setattr(npz, "_MAX_DIRECTORY_BYTES", 3 * 46 * 10)
    monkeypatch.setattr(zipfile.ZipFile, "infolist", None)
    with pytest.raises(
        BmcliError, match=r"many\.npz: expected a directory of at most 30 arrays, received one of [\d,]+ bytes"
    ):
        npz.read(npz.Options(path=str(tmp_path / "many.npz")))


def test_more_pictures_than_names_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PICTURES", 5)
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.png").write_bytes(b"")
    with pytest.raises(BmcliError, match="has more than 5 files and folders"):
        image_folder.read(image_folder.Options(path=str(tmp_path)))
    for number in range(3, 6):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"")
    with pytest.raises(BmcliError, match="/a: has more than 5 files and folders"):
        image_folder.read(image_folder.Options(path=str(tmp_path)))


def test_more_features_than_any_table_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bmcli.data.sources import tfrecord
    from bmcli.layers import tf

    monkeypatch.setattr(limits, "MAX_COLUMNS", 30)
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    example = tf.train.Example(features=tf.train.Features(feature={f"c{place}": feature for place in range(31)}))
    with tf.io.TFRecordWriter(str(tmp_path / "many.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(BmcliError, match="expected at most 30 features"):
        tfrecord.read(tfrecord.Options(path=str(tmp_path / "many.tfrecord")))


def test_a_column_of_words_is_compared_with_no_format_of_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, match = set[str](), reading._Column.match

    def record(column: reading._Column, day_format: str) -> np.ndarray:
        tried.add(day_format)
        return match(column, day_format)

    monkeypatch.setattr(reading._Column, "match", record)
    assert reading.read_formats(pa.chunked_array([pa.array(["red", None, "green"])])) is None
    assert not tried
    reading.read_formats(pa.chunked_array([pa.array([None, " 2024-05-06 ", "red"])]))
    assert tried == {"%Y-%m-%d"}
