"""Raw cells of a column, read as numbers or as text, whichever source they come from.

A missing cell is a null or an empty text in a column of text, and NaN in an array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from bmcli.errors import BmcliError
from bmcli.quoting import quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# pyarrow is untyped, so that this takes in Blobs, too; named here, they would have to be ruled out everywhere.
RawColumn: TypeAlias = "np.ndarray | pa.ChunkedArray"
"""A raw column: text with nulls (from tables), a numeric array of any rank with the rows first, or encoded files."""

UNKNOWN = -1
MISSING = -2
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
YES_WORDS = ("yes", "true", "y", "t", "on", "1")
NO_WORDS = ("no", "false", "n", "f", "off", "0")
_EXACT_IN_FLOAT32 = ("bool", "int8", "uint8", "int16", "uint16", "float16", "float32")


class RowFault(Exception):
    """A cell that cannot be read: its row, counted from 0 in the rows given, and why.

    Args:
        cell: The text of the cell if it is one that may stand for a missing value.
    """

    def __init__(self, row: int, message: str, suggestion: str = "", cell: str | None = None) -> None:
        super().__init__(message)
        self.row, self.message, self.suggestion, self.cell = row, message, suggestion, cell


class FileColumn:
    """A column of encoded files, as pictures: the bytes of a row are read when they are asked for, and never kept.

    Args:
        positions: Of each row in the source, whole numbers `(rows,)`, below 0 where there is none.
        reader: From such a position to the file's bytes; raises BmcliError or OSError where it cannot be read.
    """

    def __init__(self, positions: np.ndarray, reader: Callable[[int], bytes]) -> None:
        self._positions, self._reader = positions, reader

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, indices: np.ndarray) -> FileColumn:
        return FileColumn(self._positions[indices], self._reader)

    def with_missing(self, bad: np.ndarray) -> FileColumn:
        """The column with some cells missing, true in `bad`."""
        import numpy as np

        return FileColumn(np.where(bad, -1, self._positions), self._reader)

    def missing(self) -> np.ndarray:
        """Whether each cell is missing, `(rows,)`."""
        return self._positions < 0

    def read(self, row: int) -> bytes:
        """The bytes of a row.

        Raises:
            RowFault: They cannot be read.
        """
        try:
            return self._reader(int(self._positions[row]))
        except BmcliError as error:
            raise RowFault(row, error.faults[0].message, error.faults[0].suggestion) from None
        except OSError as error:
            raise RowFault(row, f"cannot be read: {(error.strerror or str(error)).lower()}.") from None


def is_text_column(rows: RawColumn) -> bool:
    return not hasattr(rows, "ndim") and not is_file_column(rows)


def is_file_column(rows: RawColumn) -> TypeGuard[FileColumn]:
    return isinstance(rows, FileColumn)


def require_values(rows: RawColumn) -> np.ndarray | pa.ChunkedArray:
    """The rows, if they are values and not encoded files."""
    if is_file_column(rows):
        raise RowFault(0, "expected a value, received an encoded file.", "Read the column as `kind: image`.")
    return rows


def take_rows(rows: RawColumn, indices: np.ndarray) -> RawColumn:
    """The rows at `indices`, in that order; neighbours are not copied."""
    import pyarrow as pa

    if is_file_column(rows):
        return rows.take(indices)
    if len(indices) and indices[-1] - indices[0] + 1 == len(indices) and (indices[1:] - indices[:-1] == 1).all():
        return rows[indices[0] : indices[-1] + 1]
    return rows.take(pa.array(indices)) if is_text_column(rows) else rows[indices]


def factorize(rows: Any) -> tuple[RawColumn, np.ndarray]:
    """Every text once, in the order of the rows, a missing one last, and the position of each row's text among them.

    What is slow to work out of a text need then be done once for all rows that share it. Arrays come as they are.
    """
    import numpy as np
    import pyarrow as pa

    if not is_text_column(rows) or not len(rows):
        return rows, np.arange(len(rows))
    chunks = rows.dictionary_encode().unify_dictionaries().chunks
    found = chunks[0].dictionary
    codes = np.concatenate([np.asarray(chunk.indices.fill_null(len(found))) for chunk in chunks])
    return pa.chunked_array([found, pa.nulls(1, found.type)]), codes


@contextmanager
def translate_fault_rows(codes: np.ndarray) -> Iterator[None]:
    """Turns the fault of one of `factorize` texts into that of the first row that has it."""
    import numpy as np

    try:
        yield
    except RowFault as fault:
        row = int(np.argmax(codes == fault.row))
        raise RowFault(row, fault.message, fault.suggestion, fault.cell) from None


def to_numbers(rows: RawColumn) -> np.ndarray:
    """Cells as floating point of the same shape, NaN where missing.

    Raises:
        RowFault: A cell is not a number, or is infinite.
    """
    import numpy as np

    rows = require_values(rows)
    if is_text_column(rows):
        values = _parse_numbers(rows)
    elif rows.dtype.name in _EXACT_IN_FLOAT32:
        values = np.asarray(rows, "float32")
    else:
        values = np.asarray(rows, "float64")
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.argwhere(infinite)[0][0])
        raise RowFault(row, f"expected a finite number, received {format_cell(rows, row)}.", cell=_text(rows, row))
    return values


def compute_numeric_share(cells: pa.ChunkedArray) -> float:
    """How many of some texts, none of them null, can be read as numbers."""
    import pyarrow.compute as pc

    read = pc.match_substring_regex(pc.utf8_trim_whitespace(cells), _NUMBER)
    return float(pc.mean(read).as_py() or 0)


def is_numeric(rows: RawColumn) -> bool:
    """Whether every cell that is not missing can be read as a number."""
    try:
        to_numbers(rows)
    except RowFault:
        return False
    return True


def to_texts(rows: RawColumn) -> pa.ChunkedArray:
    """Cells as categories: text with nulls where missing; whole numbers are spelled out.

    Raises:
        RowFault: A number is not whole, or a row holds several values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = require_values(rows)
    if not is_text_column(rows):
        return pa.chunked_array([_format_integers(rows)])
    return pc.if_else(pc.equal(rows, ""), pa.scalar(None, pa.string()), rows)


def to_booleans(
    rows: RawColumn, yes: Sequence[str] = YES_WORDS, no: Sequence[str] = NO_WORDS
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of text as 1 for yes and 0 for no, float32 `(rows,)`, NaN where neither; and which cells are missing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.utf8_lower(pc.ascii_trim_whitespace(pc.fill_null(rows, "")))
    found = pc.index_in(words, value_set=pa.array([*no, *yes], pa.string()))
    place = np.asarray(pc.fill_null(found, UNKNOWN))
    values = np.where(place == UNKNOWN, np.float32("nan"), (place >= len(no)).astype("float32"))
    return values, np.asarray(pc.equal(words, ""))


def build_vocabulary(rows: RawColumn) -> tuple[str, ...]:
    """Every category once: whole numbers by size, other text by its letters."""
    import pyarrow.compute as pc

    found = [text for text in pc.unique(to_texts(rows)).to_pylist() if text is not None]
    if all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in found):
        return tuple(sorted(found, key=lambda text: (int(text), text)))
    return tuple(sorted(found))


def lookup_indices(rows: RawColumn, classes: tuple[str, ...]) -> np.ndarray:
    """Position of every cell in `classes`, int32 `(rows,)`, or UNKNOWN, or MISSING."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = to_texts(rows)
    found = pc.fill_null(pc.index_in(cells, value_set=pa.array(classes, pa.string())), UNKNOWN)
    return np.where(np.asarray(pc.is_null(cells)), np.int32(MISSING), np.asarray(found)).astype("int32")


def format_cell(rows: RawColumn, row: int) -> str:
    """A cell for an error text."""
    if is_file_column(rows):
        return "an encoded file"
    if is_text_column(rows):
        cell = rows[row].as_py()
        return "nothing" if cell is None else quoted(cell) if isinstance(cell, str) else repr(cell)
    return str(rows[row]) if rows.ndim == 1 else "one in an array"


def _text(rows: RawColumn, row: int) -> str | None:
    return rows[row].as_py() if is_text_column(rows) else None


def _parse_numbers(rows: pa.ChunkedArray) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.utf8_trim_whitespace(to_texts(rows))
    try:
        parsed = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        parsed = None
    # The parser also takes spelled-out NaN, which has to be declared as missing to be missing.
    if parsed is None or pc.any(pc.is_nan(parsed)).as_py():
        good = pc.fill_null(pc.match_substring_regex(cells, _NUMBER), True)
        row = int(np.argmin(np.asarray(good)))
        raise RowFault(row, f"expected a number, received {format_cell(rows, row)}.", cell=_text(rows, row))
    return np.array(pc.fill_null(parsed, float("nan")), dtype="float64")


def _format_integers(rows: Any) -> pa.Array:
    """An array's whole numbers as text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values = rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
    if values.ndim != 1:
        raise RowFault(0, f"expected one value a row, received an array of shape {tuple(values.shape[1:])}.")
    with np.errstate(invalid="ignore"):  # of numbers that no int64 can hold, which differ afterwards
        whole = values.astype("int64") if values.dtype.kind != "f" else np.nan_to_num(np.rint(values)).astype("int64")
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    broken = (whole != values) & ~missing
    if broken.any():
        row = int(np.argmax(broken))
        raise RowFault(row, f"expected a whole number, received {values[row]}.", "Read it as `kind: number`.")
    return pc.cast(pa.array(whole, mask=missing), pa.string())
