"""Profiles of columns: statistics and likely kinds, without a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import TYPE_CHECKING, Any

from bmcli import inputs, parts
from bmcli.data.columns import ROW_LABELS, detect_kind, is_row_label
from bmcli.data.sources import SourceRows
from bmcli.data.splitting.splits import parse_split_name
from bmcli.dates import DATE_LIKE
from bmcli.dates.reading import FOREIGN_SHARE
from bmcli.inputs import Guess
from bmcli.notation import WrittenNumbers
from bmcli.pictures import IMAGE_SUFFIXES
from bmcli.raw_columns import (
    ColumnCells,
    FileColumn,
    RawColumn,
    UnreadableColumn,
    are_boolean_words,
    is_file_column,
    is_text_column,
    sample_image_headers,
    to_numbers,
    to_texts,
)
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_SAMPLE = 2000  # distinct cells that are matched against patterns
_KEPT_SAMPLES = 200  # of `ColumnProfile.samples`
SAMPLE_LENGTH = 100
"""Maximum number of characters of `ColumnProfile.samples`."""
_FILE_NAME_PATTERN = re.compile(r"[^\s,;]+\.[A-Za-z][A-Za-z0-9]{1,4}")


@dataclass(frozen=True)
class ColumnProfile:
    """Statistics of one column.

    Args:
        rows: Number of cells, including missing ones.
        missing: Number of cells without a value; in an array the number of NaNs.
        distinct: Number of distinct values; 0 if every cell is missing, 1 for a constant. Rows of arrays are not
            compared.
        shape: Shape of a cell that is an array, `()` for a single value; for encoded pictures median height and width.
        dtype: `text`, `file` for encoded files, or the dtype of the array.
        guesses: Kinds of input that the column may be, the most certain first.
        detected: Kind of input of the column if a recipe does not name one.
        is_number: Whether every value is a number.
        is_integer: Whether every value is an integer.
        minimum, maximum, mean, variance: Statistics of the numbers.
        is_row_index: Whether the numbers are consecutive integers, each of them once.
        is_date, is_boolean, is_file, is_picture: Whether every sampled value has this form; files by their names.
        splits: Splits that the cells name, if every cell names a split and there are training rows and others.
        example: A cell of text.
        samples: Some distinct cells of text, of long ones the beginning.
        top_share: Share of the most frequent value among the cells that are not missing.
        written: How the numbers of a column of text are written, with the cells that are none; None for others.
        obstacle: Reason why the column is neither an input nor a target, such as a type that cannot be read.
    """

    name: str
    rows: int
    missing: int = 0
    distinct: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = "text"
    guesses: tuple[Guess, ...] = ()
    detected: str = ""
    is_number: bool = False
    is_integer: bool = False
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    is_row_index: bool = False
    is_date: bool = False
    is_boolean: bool = False
    splits: tuple[str, ...] = ()
    is_file: bool = False
    is_picture: bool = False
    example: str = ""
    samples: tuple[str, ...] = ()
    top_share: float = 0.0
    written: WrittenNumbers | None = None
    obstacle: str = ""

    @property
    def present(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    @property
    def is_array(self) -> bool:
        """Whether the cells are arrays."""
        return bool(self.shape) and not self.is_encoded

    @property
    def is_encoded(self) -> bool:
        """Whether the cells are encoded files."""
        return self.dtype == "file"

    @property
    def rows_per_value(self) -> float:
        """Mean number of rows of each distinct value."""
        return self.present / max(1, self.distinct)


def profile_columns(rows: SourceRows) -> tuple[ColumnProfile, ...]:
    """Profile every column, in the order of the source."""
    return tuple(_profile_source_column(name, rows) for name in rows.columns)


def _profile_source_column(name: str, rows: SourceRows) -> ColumnProfile:
    try:
        cells = ColumnCells(name, rows.columns[name])
    except UnreadableColumn as error:
        return ColumnProfile(name, len(rows), obstacle=error.faults[0].message.rstrip("."))
    profile = _add_guesses(cells)
    return replace(profile, obstacle=ROW_LABELS) if is_row_label(cells) else profile


def _add_guesses(cells: ColumnCells) -> ColumnProfile:
    guesses = inputs.guess_kinds(cells, parts.names("inputs"))
    return replace(_profile_cells(cells), guesses=guesses, detected=detect_kind(cells).kind)


def profile_column(name: str, column: RawColumn) -> ColumnProfile:
    """Profile one column; `guesses` and `detected` are not set."""
    return _profile_cells(ColumnCells(name, column))


def _profile_cells(cells: ColumnCells) -> ColumnProfile:
    name, column, written = cells.name, cells.rows, cells.written_numbers
    if is_file_column(column):
        return _profile_files(name, column)
    if not is_text_column(column) and column.ndim > 1 and column.shape[1:] != (1,):
        return _profile_arrays(name, column)
    if not cells.has_long_codes:
        if written is not None and not written.obstacle:
            values = to_numbers(column, written.notation, tuple(written.foreign))
            profile = _profile_numbers(name, column, values)
            return replace(profile, written=written) if profile.is_number else profile
        if not cells.is_text and cells.is_numeric:
            return _profile_numbers(name, column, to_numbers(column))
    return _profile_texts(name, to_texts(column, "text"))


def _profile_files(name: str, column: FileColumn) -> ColumnProfile:
    """Profile encoded pictures by the headers of a sample."""
    sizes = [(header.height, header.width) for header in sample_image_headers(column)]
    if not sizes:
        return ColumnProfile(name, len(column), distinct=len(column), dtype="file")
    shape = (median_low([height for height, _ in sizes]), median_low([width for _, width in sizes]))
    return ColumnProfile(name, len(column), distinct=len(column), dtype="file", shape=shape)


def _profile_arrays(name: str, column: Any) -> ColumnProfile:
    import numpy as np

    missing = int(np.isnan(column).sum()) if column.dtype.kind == "f" else 0
    constant = bool(len(column)) and missing == 0 and bool((column == column.flat[0]).all())
    # To compare arrays row by row is slow, so 2 stands for any number of distinct ones.
    return ColumnProfile(
        name, len(column), missing, 1 if constant else 2, shape=tuple(column.shape[1:]), dtype=column.dtype.name,
        is_number=True,
    )  # fmt: skip


def _profile_numbers(name: str, column: RawColumn, values: np.ndarray) -> ColumnProfile:
    import numpy as np

    values = values.reshape(-1)
    numbers = values[~np.isnan(values)]
    unique, counts = np.unique(numbers, return_counts=True)
    if not len(unique):
        return ColumnProfile(name, len(values), len(values))
    is_integer = bool((np.rint(unique) == unique).all())
    return ColumnProfile(
        name=name,
        rows=len(values),
        missing=len(values) - len(numbers),
        distinct=len(unique),
        dtype="text" if is_text_column(column) else column.dtype.name,
        is_number=True,
        is_integer=is_integer,
        minimum=float(unique[0]),
        maximum=float(unique[-1]),
        mean=float(numbers.mean(dtype="float64")),
        variance=float(numbers.var(dtype="float64")),
        is_row_index=is_integer and len(unique) == len(values) and unique[-1] - unique[0] == len(values) - 1,
        is_boolean=getattr(column, "dtype", None) == np.bool_,
        top_share=float(counts.max() / len(numbers)),
    )


def _are_dates(samples: Sequence[str]) -> bool:
    """Whether nearly all texts look like dates."""
    return sum(DATE_LIKE.fullmatch(text) is None for text in samples) < FOREIGN_SHARE * len(samples)


def _profile_texts(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    import pyarrow.compute as pc

    counts = pc.value_counts(column.drop_null())
    if not len(counts):
        return ColumnProfile(name, len(column), len(column))
    samples = [text.strip() for text in counts.field("values").slice(0, _SAMPLE).to_pylist()]
    folded = {text.lower() for text in samples}
    splits = {parse_split_name(text) for text in samples}  # contains "" if a cell names no split
    is_split_column = "train" in splits and len(splits) > 1 and "" not in splits and not column.null_count
    return ColumnProfile(
        name=name,
        rows=len(column),
        missing=column.null_count,
        distinct=len(counts),
        is_date=_are_dates(samples),
        is_boolean=are_boolean_words(folded),
        splits=tuple(split for split in SPLITS if split in splits) if is_split_column else (),
        is_file=all(_FILE_NAME_PATTERN.fullmatch(text) for text in samples),
        example=samples[0],
        samples=tuple(text[:SAMPLE_LENGTH] for text in samples[:_KEPT_SAMPLES]),
        is_picture=all(text.lower().endswith(IMAGE_SUFFIXES) for text in samples),
        top_share=pc.max(counts.field("counts")).as_py() / (len(column) - column.null_count),
    )
