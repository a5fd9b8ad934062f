"""Profiles of columns: statistics and likely kinds, without a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmcli import dates
from bmcli.data.columns import guess_kind
from bmcli.data.sources import SourceRows
from bmcli.data.splitting.splits import parse_split_name
from bmcli.pictures import IMAGE_SUFFIXES, ImageHeader, read_header
from bmcli.raw_columns import (
    NO_WORDS,
    YES_WORDS,
    FileColumn,
    RawColumn,
    RowFault,
    is_file_column,
    is_numeric,
    is_text_column,
    to_numbers,
    to_texts,
)
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_HEADERS = 100  # pictures whose header is read
_SAMPLE = 2000  # distinct cells that are matched against patterns
_DATE_PATTERN = re.compile(
    r"\d{4}-\d{1,2}(-\d{1,2})?([T ]\d{1,2}:\d{2}.*)?|\d{4}/\d{1,2}/\d{1,2}.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?"
)
_ISO_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH_PATTERN = re.compile(r"\d{4}-\d{1,2}")
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
        sizes_differ: Whether encoded pictures have several sizes.
        dtype: `text`, `file` for encoded files, or the dtype of the array.
        likely_kind: Kind of input of the column if a recipe does not name one.
        is_number: Whether every value is a number.
        is_integer: Whether every value is an integer.
        minimum, maximum, mean, variance: Statistics of the numbers.
        is_row_index: Whether the numbers are consecutive integers, each of them once.
        mean_words: Mean number of words of a cell of text.
        is_date, is_boolean, is_file, is_picture: Whether every sampled value has this form; files by their names.
        has_mixed_dates: Whether the cells are dates in more than one format.
        splits: Splits that the cells name, if every cell names a split and there are training rows and others.
        example: A cell of text.
        top_share: Share of the most frequent value among the cells that are not missing.
    """

    name: str
    rows: int
    missing: int = 0
    distinct: int = 0
    shape: tuple[int, ...] = ()
    sizes_differ: bool = False
    dtype: str = "text"
    likely_kind: str = ""
    is_number: bool = False
    is_integer: bool = False
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    is_row_index: bool = False
    mean_words: float = 0.0
    is_date: bool = False
    has_mixed_dates: bool = False
    is_boolean: bool = False
    splits: tuple[str, ...] = ()
    is_file: bool = False
    is_picture: bool = False
    example: str = ""
    top_share: float = 0.0

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
    def is_iso_date(self) -> bool:
        """Whether the dates are days or times in ISO 8601."""
        return self.likely_kind == "date" and not self.has_mixed_dates and _ISO_PATTERN.match(self.example) is not None

    @property
    def is_month(self) -> bool:
        """Whether the dates are months, such as 2024-05."""
        return self.is_date and _MONTH_PATTERN.fullmatch(self.example) is not None

    @property
    def rows_per_value(self) -> float:
        """Mean number of rows of each distinct value."""
        return self.present / max(1, self.distinct)


def profile_columns(rows: SourceRows) -> tuple[ColumnProfile, ...]:
    """Profile every column, in the order of the source."""
    return tuple(_add_kind(profile_column(name, column), column) for name, column in rows.columns.items())


def _add_kind(profile: ColumnProfile, column: RawColumn) -> ColumnProfile:
    likely = guess_kind(column)
    mixed = likely == "date" and not dates.find_matching_formats(to_texts(column))
    return replace(profile, likely_kind=likely, has_mixed_dates=mixed)


def profile_column(name: str, column: RawColumn) -> ColumnProfile:
    """Profile one column; `likely_kind` and `has_mixed_dates` are not set."""
    if is_file_column(column):
        return _profile_files(name, column)
    if not is_text_column(column) and column.ndim > 1 and column.shape[1:] != (1,):
        return _profile_arrays(name, column)
    if is_numeric(column):
        return _profile_numbers(name, column)
    return _profile_texts(name, to_texts(column))


def _profile_files(name: str, column: FileColumn) -> ColumnProfile:
    """Profile encoded pictures by the headers of a sample."""
    from statistics import median_low

    step = max(1, len(column) // _MAX_HEADERS)
    headers = [_read_row_header(column, row) for row in range(0, len(column), step)]
    sizes = [(header.height, header.width) for header in headers if header is not None]
    if not sizes:
        return ColumnProfile(name, len(column), distinct=len(column), dtype="file")
    shape = (median_low([height for height, _ in sizes]), median_low([width for _, width in sizes]))
    return ColumnProfile(
        name, len(column), distinct=len(column), dtype="file", shape=shape, sizes_differ=len(set(sizes)) > 1
    )


def _read_row_header(column: FileColumn, row: int) -> ImageHeader | None:
    """Read the header of a picture; None if it is damaged, which preparation reports with its place."""
    try:
        return read_header(column.read(row))
    except (RowFault, ValueError):
        return None


def _profile_arrays(name: str, column: Any) -> ColumnProfile:
    import numpy as np

    missing = int(np.isnan(column).sum()) if column.dtype.kind == "f" else 0
    constant = bool(len(column)) and missing == 0 and bool((column == column.flat[0]).all())
    # To compare arrays row by row is slow, so 2 stands for any number of distinct ones.
    return ColumnProfile(
        name, len(column), missing, 1 if constant else 2, shape=tuple(column.shape[1:]), dtype=column.dtype.name,
        is_number=True,
    )  # fmt: skip


def _profile_numbers(name: str, column: RawColumn) -> ColumnProfile:
    import numpy as np

    values = to_numbers(column).reshape(-1)
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
        mean_words=sum(len(text.split()) for text in samples) / len(samples),
        is_date=all(_DATE_PATTERN.fullmatch(text) for text in samples),
        is_boolean=len(folded) == 2
        and any(word in YES_WORDS for word in folded)
        and any(word in NO_WORDS for word in folded),
        splits=tuple(split for split in SPLITS if split in splits) if is_split_column else (),
        is_file=all(_FILE_NAME_PATTERN.fullmatch(text) for text in samples),
        example=samples[0],
        is_picture=all(text.lower().endswith(IMAGE_SUFFIXES) for text in samples),
        top_share=pc.max(counts.field("counts")).as_py() / (len(column) - column.null_count),
    )
