"""Images and labels in the four IDX files of MNIST and similar data sets.

Format: http://yann.lecun.com/exdb/mnist. A magic number, the sizes as big-endian 32-bit integers, then the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.data import files
from bmcli.data.sources import SourceOptions, SourceRows, repeat_split_names

if TYPE_CHECKING:
    import numpy as np

_PREFIXES = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


class Options(SourceOptions):
    """IDX files (MNIST format): train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k; .gz allowed."""

    kind: Literal["idx"] = "idx"
    path: str = Field(min_length=1, description="Folder of the four files.")

    def files(self) -> tuple[Path, ...]:
        folder = Path(self.path)
        return tuple(
            _find_file(folder, f"{prefix}-{rest}") for prefix in _PREFIXES.values() for rest in (_IMAGES, _LABELS)
        )

    def default_targets(self) -> Mapping[str, Mapping[str, Any]]:
        return {"label": {"kind": "category"}}


def read(options: Options) -> SourceRows:
    """Read columns `image` (rows, height, width, 1) and `label` (rows,), both uint8, split into train and test."""
    import numpy as np

    paths = options.files()
    images, labels = [], []
    for image_file, label_file in zip(paths[::2], paths[1::2], strict=True):
        images.append(_read_array(image_file, rank=3)[..., np.newaxis])
        labels.append(_read_array(label_file, rank=1))
        if len(images[-1]) != len(labels[-1]):
            raise files.file_error(label_file, f"has {len(labels[-1])} labels for {len(images[-1])} images.")
    if images[0].shape[1:] != images[1].shape[1:]:
        raise files.file_error(
            paths[2],
            f"images have shape {images[1].shape[1:3]}, those of {paths[0].name} have {images[0].shape[1:3]}.",
        )
    lengths = [len(rows) for rows in images]
    return SourceRows(
        columns={"image": np.concatenate(images), "label": np.concatenate(labels)},
        split=repeat_split_names(dict(zip(_PREFIXES, lengths, strict=True))),
        describe_row=lambda row: _describe_row(paths[1::2], lengths[0], row),
    )


def _find_file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if files.exists(candidate):
            return candidate
    if not folder.exists():
        raise files.missing_file_error(folder, "folder")
    if not folder.is_dir():
        raise files.file_error(folder, "expected a folder, found a file.")
    raise files.missing_file_error(folder / f"{name}.gz")


def _read_array(path: Path, rank: int) -> np.ndarray:
    import numpy as np

    data = files.read_bytes(path)
    if not data:
        raise files.file_error(path, "is empty.")
    expected = bytes([0, 0, 8, rank])
    if data[:4] != expected:
        raise files.file_error(path, f"expected the idx magic number {expected.hex()}, received {data[:4].hex()}.")
    start = 4 + 4 * rank
    if len(data) < start:
        raise files.file_error(path, "ends within its header.")
    sizes = [int(size) for size in np.frombuffer(data, ">u4", rank, 4)]
    if len(data) - start != math.prod(sizes):
        message = f"expected {math.prod(sizes)} bytes for the sizes {sizes}, received {len(data) - start}."
        raise files.file_error(path, message)
    if not math.prod(sizes):
        raise files.file_error(path, "has no rows.")
    return np.frombuffer(data, "uint8", offset=start).reshape(sizes)


def _describe_row(paths: tuple[Path, ...], training_rows: int, row: int) -> str:
    path, row = (paths[0], row) if row < training_rows else (paths[1], row - training_rows)
    return f"{files.format_path(path)} row {row + 1}"
