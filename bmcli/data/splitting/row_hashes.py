"""Hashes of the content of rows, independent of their position and of the other rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bmcli.raw_columns import RawColumn, is_file_column, is_text_column, to_texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_ROWS_AT_ONCE = 8192


def hash_files(column: RawColumn) -> RawColumn:
    """Return the column unchanged, or for encoded files the SHA-256 of each, as numbers `(rows, 8)`.

    Raises:
        RowFault: A file cannot be read.
    """
    import numpy as np

    if not is_file_column(column):
        return column
    files = [hashlib.sha256(column.read(row)).digest() for row in range(len(column))]
    return np.frombuffer(b"".join(files), "<u4").reshape(len(column), -1)


def hash_rows(columns: Sequence[RawColumn], seed: int) -> np.ndarray:
    """Return the first 64 bits of SHA-256 over the seed and the cells of each row, uint64 `(rows,)`.

    Equal cells have equal hashes in any file: the dtype of an array does not count, only its numbers; blanks around a
    text and its Unicode normal form do not count, and an empty text equals a missing cell.

    Args:
        columns: Columns after `hash_files`.
    """
    import numpy as np

    text = [to_texts(column, "text") for column in columns if is_text_column(column)]
    arrays = [column.reshape(len(column), -1) for column in columns if not is_text_column(column)]
    hashes = []
    for start in range(0, len(columns[0]), _ROWS_AT_ONCE):
        pieces = [_serialize_arrays([array[start : start + _ROWS_AT_ONCE] for array in arrays])] if arrays else []
        pieces += [_serialize_texts([cells.slice(start, _ROWS_AT_ONCE) for cells in text])] if text else []
        salt = seed.to_bytes(8, "little")
        hashes += [hashlib.sha256(b"".join((salt, *cells))).digest()[:8] for cells in zip(*pieces, strict=True)]
    return np.frombuffer(b"".join(hashes), ">u8").astype("uint64")


def _serialize_texts(columns: Sequence[pa.ChunkedArray]) -> list[bytes]:
    """Concatenate the cells of each row, each after its length, so that different rows give different bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def with_length(cells: pa.ChunkedArray) -> pa.ChunkedArray:
        length = pc.cast(pc.binary_length(cells), pa.string())
        return pc.fill_null(pc.binary_join_element_wise(length, cells, ":"), "-")

    joined = pc.binary_join_element_wise(*(with_length(cells) for cells in columns), "")
    return pc.cast(joined, pa.binary()).to_pylist()


def _serialize_arrays(arrays: Sequence[np.ndarray]) -> list[bytes]:
    """Serialize the numbers of each row as float64, with one representation of 0 and of NaN."""
    import numpy as np

    # Adding 0.0 turns -0.0 into 0.0. NaN has many bit patterns.
    numbers = np.concatenate([array.astype("<f8") for array in arrays], axis=1) + 0.0
    numbers[np.isnan(numbers)] = np.nan
    return [row.tobytes() for row in numbers]
