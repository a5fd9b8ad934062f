from __future__ import annotations

import copy
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data.sources import SourceRows, npz
from bmcli.errors import BmcliError
from bmcli.raw_columns import UnreadableColumn


def read(path: Path, **arrays: Any) -> SourceRows:
    np.savez(path, **arrays)
    return npz.read(npz.Options(path=str(path)))


def fault(path: Path, **arrays: Any) -> str:
    if arrays:
        np.savez(path, **arrays)
    with pytest.raises(BmcliError) as caught:
        npz.read(npz.Options(path=str(path)))
    return str(caught.value).removeprefix(f"{path}: ")


def fault_of(name: str, path: Path, **arrays: Any) -> str:
    """Return the fault of a column, beside others that can be read."""
    rows = read(path, **arrays)
    assert name in rows.columns
    assert len(rows) == len(rows.columns[next(each for each in rows.columns if each != name)])
    with pytest.raises(UnreadableColumn) as caught:
        rows.columns[name]
    return str(caught.value).removeprefix(f"{path}: ")


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    stream = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.npz"


def test_arrays_are_columns(file: Path) -> None:
    rows = read(file, x=np.ones((3, 4, 2), "float32"), y=np.array(["a", "", "b"]))
    assert rows.columns["x"].shape == (3, 4, 2)
    assert rows.columns["y"].to_pylist() == ["a", "", "b"]
    assert rows.split is None
    assert rows.describe_row(2) == f"{file} row 3"


def test_suffixes_define_the_splits(file: Path) -> None:
    rows = read(file, x_test=[[3.0]], y_test=[3], x_train=[[1.0], [2.0]], y_train=[1, 2], x_val=[[9.0]], y_val=[9])
    assert rows.columns["y"].tolist() == [1, 2, 9, 3]
    assert rows.split is not None
    assert rows.split.tolist() == ["train", "train", "validation", "test"]
    assert rows.describe_row(3) == f"{file} test row 1"


def test_a_file_for_each_split(tmp_path: Path) -> None:
    for split, values in (("train", [1, 2]), ("validation", [3])):
        np.savez(tmp_path / f"{split}.npz", y=values)
    rows = npz.read(npz.Options(path={split: str(tmp_path / f"{split}.npz") for split in ("validation", "train")}))
    assert rows.columns["y"].tolist() == [1, 2, 3]
    assert rows.split is not None
    assert rows.split.tolist() == ["train", "train", "validation"]


class Hostile:
    """Leaves a marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_objects_are_a_fault_and_never_run(file: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    message = fault_of("x", file, x=np.array([Hostile(marker)], dtype=object), y=[1])
    assert message == "array 'x' contains Python objects, which are never loaded."
    assert not marker.exists()


def test_an_array_of_another_length_is_a_fault_where_it_is_used(file: Path) -> None:
    assert fault_of("names", file, names=["a"], x=[1, 2], y=[1, 2]) == "column 'names' has 1 rows, column 'x' has 2."


def test_a_column_lacking_in_a_split_is_a_fault_where_it_is_used(file: Path) -> None:
    assert fault_of("y", file, x_train=[1], y_train=[1], x_test=[1]) == "column 'y' is missing in a split."


def test_an_array_of_no_split_is_a_fault_where_it_is_used(file: Path) -> None:
    message = fault_of("names", file, x_train=[1], x_test=[1], names=[1])
    assert message.startswith("array 'names' belongs to no split")


def test_two_arrays_for_one_column_are_a_fault(file: Path) -> None:
    assert fault(file, x_val=[1], x_validation=[1]) == "two arrays are the column 'x' of validation."


def test_splits_of_different_shapes_are_a_fault(file: Path) -> None:
    message = fault_of("x", file, x_train=np.zeros((2, 3)), x_test=np.zeros((2, 4)), y_train=[1, 2], y_test=[1, 2])
    assert "rows of shape (4,), float64, in another split of shape (3,)" in message


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(3.0), "array 'x' is a single value, expected rows."),
        (np.array([1j]), "array 'x' has dtype complex128, expected numbers or text."),
        (
            np.array(["2020-01-01"], "datetime64[D]"),
            "array 'x' has dtype datetime64[D], expected numbers or text.",
        ),
        (np.array([["a", "b"]]), "array 'x' has text of shape (1, 2), expected one text a row."),
        (np.array([b"\xff"]), "array 'x' contains bytes that are not text."),
        (np.array(["\ud800"]), "array 'x' contains bytes that are not text."),
        (np.zeros((0, 2)), "array 'x' has no rows."),
    ],
)
def test_arrays_that_are_no_columns(file: Path, array: np.ndarray, message: str) -> None:
    assert fault(file, x=array) == message


def test_something_else_than_an_archive_is_a_fault(file: Path) -> None:
    file.write_bytes(b"a,b\n1,2\n")
    assert fault(file).startswith("is not an intact NPZ archive")


def test_an_empty_file_is_a_fault(file: Path) -> None:
    file.write_bytes(b"")
    assert fault(file).startswith("is not an intact NPZ archive")


def test_an_archive_without_arrays_is_a_fault(file: Path) -> None:
    zipfile.ZipFile(file, "w").close()
    assert fault(file) == "holds no arrays."


def test_a_member_that_is_no_array_is_a_fault(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert fault(file) == "'readme.txt' is not an array."


def test_a_header_that_claims_too_much_is_a_fault(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header((10**12,), "float64") + b"12345678")
    assert fault(file) == "array 'x' declares 8000000000000 bytes, but has 8."


def test_a_bomb_is_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.limits.MIN_UNPACKED_BYTES", 10_000)
    np.savez_compressed(file, x=np.zeros(10**6))
    assert "over 200 times as many" in fault(file)


def message_of(path: Path) -> str:
    """Return the fault of reading an archive, empty if it can be read."""
    try:
        npz.read(npz.Options(path=str(path)))
    except BmcliError as error:
        return str(error)
    return ""


def test_damage_at_any_byte_is_a_fault_that_names_the_file_or_harmless(file: Path) -> None:
    np.savez_compressed(file, x=np.arange(40.0), y=np.arange(40))
    intact = file.read_bytes()
    messages = []
    for position in range(0, len(intact), 3):
        file.write_bytes(intact[:position] + bytes([intact[position] ^ 0x55]) + intact[position + 1 :])
        messages.append(message_of(file))
    assert len([message for message in messages if message]) > 50
    assert all(message.startswith(str(file)) for message in messages if message)


@pytest.mark.parametrize("length", [3, 40, 200, -30, -1])
def test_a_truncated_archive_is_a_fault(file: Path, length: int) -> None:
    np.savez_compressed(file, x=np.arange(40.0), y=np.arange(40))
    file.write_bytes(file.read_bytes()[:length])
    assert fault(file)


def test_members_that_lie_over_each_other_are_counted_together(file: Path) -> None:
    """Each of them unpacks to less than is allowed, all of them to far more than the file explains."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((2**24,), "uint8") + bytes(2**24))
        (one,) = archive.filelist
        for number in range(40):
            again = copy.copy(one)
            again.filename = f"a{number}.npy"
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    assert "unpacks" in fault(file) or "times" in fault(file)


@pytest.mark.parametrize("shape", [(-1,), (10**12, 0)])
def test_rows_that_hold_nothing_are_refused(file: Path, shape: tuple[int, ...]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header(shape, "uint8"))
    assert "expected rows with values" in fault(file) or "declares" in fault(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_packed_in_another_way_than_by_numpy_are_refused(file: Path, method: int) -> None:
    """They are unpacked whole, however little they announce."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(10))
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", stream.getvalue())
    assert "array 'x' is compressed by a method that NumPy does not use" in fault(file)


def test_arrays_that_do_not_fit_into_memory_are_a_fault(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmcli.data.files.read_available_bytes", lambda: 1000)
    message = "reading it takes 8128 bytes of memory, but 1000 are free. Save it as Parquet, which is read in parts."
    assert fault(file, x=np.zeros(1000)) == message.partition(" Save")[0]
