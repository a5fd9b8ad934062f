from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from bmcli.data.sources import idx
from bmcli.errors import BmcliError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def packed(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and two test images of 4 x 5 pixels."""
    for prefix, count in (("train", 3), ("t10k", 2)):
        images = np.arange(count * 20, dtype="uint8").reshape(count, 4, 5)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(packed(images))
        labels = gzip.compress(packed(np.arange(count, dtype="uint8")))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(labels)
    return tmp_path


def fault(folder: Path) -> str:
    with pytest.raises(BmcliError) as caught:
        idx.read(idx.Options(path=str(folder)))
    return str(caught.value)


def test_four_files_make_two_columns_and_two_splits(folder: Path) -> None:
    rows = idx.read(idx.Options(path=str(folder)))
    assert rows.columns["image"].shape == (5, 4, 5, 1)
    assert rows.columns["image"][4, -1, -1, 0] == 39
    assert rows.columns["label"].tolist() == [0, 1, 2, 0, 1]
    assert rows.split is not None
    assert rows.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert rows.describe_row(3) == f"{folder / 't10k-labels-idx1-ubyte.gz'} row 1"


@pytest.mark.skipif(not FASHION.exists(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    rows = idx.read(idx.Options(path=str(FASHION)))
    assert rows.columns["image"].shape == (70_000, 28, 28, 1)
    assert np.bincount(rows.columns["label"]).tolist() == [7000] * 10


def test_the_label_is_the_natural_target() -> None:
    assert idx.Options(path="x").default_targets() == {"label": {"kind": "category"}}


def test_a_missing_folder_is_a_fault(tmp_path: Path) -> None:
    assert fault(tmp_path / "nowhere").endswith("nowhere: no such folder.")


def test_a_file_in_place_of_the_folder_is_a_fault(folder: Path) -> None:
    assert "expected a folder, found a file" in fault(folder / "train-images-idx3-ubyte")


def test_a_missing_file_is_a_fault(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").unlink()
    assert fault(folder).endswith("t10k-images-idx3-ubyte.gz: no such file.")


def test_an_empty_file_is_a_fault(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"")
    assert fault(folder).endswith("t10k-images-idx3-ubyte: is empty.")


def test_a_wrong_magic_number_is_a_fault(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(packed(np.zeros(3, "uint8")))
    assert "expected the idx magic number 00000803, received 00000801" in fault(folder)


@pytest.mark.parametrize("length", [7, 16, 40])
def test_a_short_file_is_a_fault(folder: Path, length: int) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:length])
    assert "ends within its header" in fault(folder) or "expected 60 bytes for the sizes [3, 4, 5]" in fault(folder)


def test_a_truncated_gzip_stream_is_a_fault(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-6])
    assert "the gzip stream ends too early" in fault(folder)


def test_images_and_labels_differ_in_number(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(packed(np.zeros(9, "uint8")))
    assert "has 9 labels for 2 images" in fault(folder)


def test_images_differ_in_size(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(packed(np.zeros((2, 5, 5), "uint8")))
    assert "images have shape (5, 5), those of train-images-idx3-ubyte have (4, 5)" in fault(folder)
