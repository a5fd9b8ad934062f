from __future__ import annotations

import gzip
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli.data.preparation import prepare
from bmcli.data.sources import SourceRows, tfrecord
from bmcli.errors import BmcliError
from bmcli.raw_columns import FileColumn, UnreadableColumn
from bmcli.recipe.data import DataOptions
from tests.pictures import encoded, pixels


def example(features: Mapping[str, Any]) -> bytes:
    """A serialized tf.train.Example of floats, whole numbers and bytes."""
    import tensorflow as tf

    def feature(values: list[Any]) -> tf.train.Feature:
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    by_name = {name: feature(list(values)) for name, values in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=by_name)).SerializeToString()


def write(path: Path, *examples: Mapping[str, Any] | bytes, packed: bool = False) -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions("GZIP") if packed else None) as writer:
        for each in examples:
            writer.write(each if isinstance(each, bytes) else example(each))
    return path


def pets(count: int) -> list[dict[str, Any]]:
    return [
        {
            "image": [encoded(pixels(4, 5, seed=row), "jpg" if row % 2 else "png")],
            "label": [row % 2],
            "name": [f"pet é {row}".encode()],
            "size": [row / 2],
            "where": [1.0, float(row), 3.0],
        }
        for row in range(count)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "pets.tfrecord", *pets(6))


def read(path: Any, **options: Any) -> SourceRows:
    return tfrecord.read(tfrecord.Options(path=path if isinstance(path, (tuple, dict)) else str(path), **options))


def fault(path: Any, **options: Any) -> str:
    with pytest.raises(BmcliError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_features_are_discovered(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path / ("a.tfrecord" + ".gz" * packed), *pets(6), packed=packed)
    rows = read(path)
    assert list(rows.columns) == ["image", "label", "name", "size", "where"]
    image = rows.columns["image"]
    assert isinstance(image, FileColumn)
    assert [image.read(row) for row in (5, 0)] == [pets(6)[row]["image"][0] for row in (5, 0)]
    assert image.take(np.array([3])).read(0) == pets(6)[3]["image"][0]
    assert rows.columns["label"].dtype == np.int64
    assert rows.columns["label"].tolist() == [0, 1, 0, 1, 0, 1]
    assert rows.columns["name"].to_pylist()[2] == "pet é 2"
    assert rows.columns["size"].dtype == np.float32
    assert rows.columns["where"].shape == (6, 3)
    assert rows.split is None
    assert len(rows) == 6
    assert rows.describe_row(2) == f"{path} record 3"


def test_files_are_read_one_after_the_other_and_may_be_splits(tmp_path: Path) -> None:
    for number, part in enumerate((pets(6)[:4], pets(6)[4:])):
        write(tmp_path / f"part-{number}.tfrecord", *part)
    rows = read(tmp_path)
    assert rows.columns["size"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert rows.columns["image"].read(5) == pets(6)[5]["image"][0]
    assert rows.describe_row(4).endswith("part-1.tfrecord record 1")
    rows = read({"test": str(tmp_path / "part-0.tfrecord"), "train": str(tmp_path / "part-1.tfrecord")})
    assert rows.split is not None
    assert rows.split.tolist() == ["train"] * 2 + ["test"] * 4


def test_a_stated_schema_chooses_and_shapes(tmp_path: Path) -> None:
    pixels_of = [np.arange(6, dtype="uint8") + row for row in range(2)]
    path = write(tmp_path / "a.tfrecord", *({"raw": [p.tobytes()], "label": [1], "rest": [2.0]} for p in pixels_of))
    features = {
        "raw": tfrecord.FeatureOptions(type="uint8", shape=(2, 3)),
        "label": tfrecord.FeatureOptions(type="int"),
    }
    rows = read(path, features=features)
    assert list(rows.columns) == ["raw", "label"]
    np.testing.assert_array_equal(rows.columns["raw"], np.stack(pixels_of).reshape(2, 2, 3))
    assert "expected 7 bytes, received 6" in fault(
        path, features={"raw": tfrecord.FeatureOptions(type="uint8", shape=(7,))}
    )
    assert "has no feature 'lable'" in fault(path, features={"lable": tfrecord.FeatureOptions(type="int")})
    assert "expected a float_list, received a int64_list" in fault(
        path, features={"label": tfrecord.FeatureOptions(type="float")}
    )


def test_features_that_some_examples_lack_are_missing_cells(tmp_path: Path) -> None:
    whole = pets(3)
    path = write(tmp_path / "a.tfrecord", whole[0], {"label": [4]}, whole[2])
    columns = read(path).columns
    assert columns["image"].missing().tolist() == [False, True, False]
    assert columns["image"].read(2) == whole[2]["image"][0]
    assert columns["name"].to_pylist() == ["pet é 0", None, "pet é 2"]
    assert np.isnan(columns["where"]).all(axis=1).tolist() == [False, True, False]
    assert columns["label"].tolist() == [0, 4, 0]


def test_records_are_prepared(file: Path, cache: Path) -> None:
    described = {
        "source": {"kind": "tfrecord", "path": str(file)},
        "split": {"train": 0.7, "validation": 0.3, "stratify": "none"},
        "inputs": {"image": {"kind": "image", "size": (4, 4)}, "where": {"kind": "number"}},
        "targets": {"size": {"kind": "number"}},
    }
    data = DataOptions.model_validate(described)
    found = prepare(data, data.targets_by_name(), 0, cache)
    assert found.split("train").inputs["image"].shape == (4, 4, 4, 3)


def test_a_cut_file_is_a_fault(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])
    assert fault(file).endswith("pets.tfrecord: record 6 is damaged or cut off, or this is not a TFRecord file.")


def test_a_changed_byte_is_a_fault(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(bytes(content))
    assert "record 1 is damaged" in fault(file)


def test_other_files_and_other_records_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_text("a,b\n1,2\n" * 10)
    assert "record 1 is damaged or cut off, or this is not a TFRecord file" in fault(path)
    path.write_bytes(b"")
    assert fault(path).endswith("a.tfrecord: has no records.")
    path.write_bytes(gzip.compress(b"words" * 20))
    assert "record 1 is damaged" in fault(path)
    assert "record 2 is not a tf.train.Example" in fault(write(path, {"a": [1]}, b"\xff\xff\xff"))
    assert "no such file" in fault(tmp_path / "b.tfrecord")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (([1.0, 2.0], [1.0, 2.0, 3.0]), "a.tfrecord record 2: feature 'x': expected 2 numbers, received 3."),
        (([1.0], [b"a"]), "feature 'x': expected a float_list, received a bytes_list"),
        (([b"a", b"b"],), "feature 'x': expected one text, received 2"),
        (([b"\xff\xfe"],), "feature 'x': is neither a picture nor text"),
    ],
)
def test_examples_that_differ_are_a_fault_where_the_feature_is_used(tmp_path: Path, cells: Any, message: str) -> None:
    path = write(tmp_path / "a.tfrecord", *({"x": each, "y": [1.0]} for each in cells))
    rows = read(path)
    assert rows.columns["y"].tolist() == [1.0] * len(cells)
    with pytest.raises(UnreadableColumn, match=re.escape(message)):
        rows.columns["x"]


@pytest.mark.parametrize("length", [2**62, 2**40, 5])
@pytest.mark.parametrize("whole", [0, 1])
def test_a_record_longer_than_its_file_is_a_fault(tmp_path: Path, length: int, whole: int) -> None:
    """With a right checksum of the length TensorFlow would allocate it, and end the process."""
    path = write(tmp_path / "a.tfrecord", *[{"x": [1.0]}] * whole)
    head = length.to_bytes(8, "little")
    with path.open("ab") as file:
        file.write(head + _masked_crc(head) + b"\0" * 4)
    with pytest.raises(BmcliError, match=rf"a\.tfrecord: record {whole + 1} is damaged or cut off"):
        tfrecord.read(tfrecord.Options(path=str(path)))


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C as TFRecord masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize("packed", [False, True])
def test_records_of_all_lengths_are_found_whole(tmp_path: Path, packed: bool) -> None:
    """Short ones are passed many at a time, long ones one by one."""
    sizes = [1, 5_000, 10, 70_000, 4_096, *[30] * 5_000, 100_000, 2]
    path = write(tmp_path / "a.tfrecord", *({"x": [b"a" * size]} for size in sizes), packed=packed)
    assert [len(text) for text in read(path).columns["x"].to_pylist()] == sizes
    if not packed:
        path.write_bytes(path.read_bytes()[:-1])
        assert f"record {len(sizes)} is damaged or cut off" in fault(path)


def test_a_plain_record_file_is_not_read_whole_to_check_its_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tfrecord", *[{"x": [b"a" * 100_000]}] * 50)
    taken, pread = [], os.pread

    def counted(handle: int, size: int, place: int) -> bytes:
        taken.append(size)
        return pread(handle, size, place)

    monkeypatch.setattr("bmcli.data.sources.tfrecord.os.pread", counted)
    tfrecord._check_lengths(path, compressed=False)
    assert len(taken) == 50
    assert sum(taken) < path.stat().st_size / 50
