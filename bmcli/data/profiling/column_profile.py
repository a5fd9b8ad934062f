"""What the columns of a source look like, before anybody has said what they are."""

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

_HEADERS = 100  # pictures whose size is looked at
_SAMPLE = 2000  # different cells that are looked at one by one
_DATE = re.compile(
    r"\d{4}-\d{1,2}(-\d{1,2})?([T ]\d{1,2}:\d{2}.*)?|\d{4}/\d{1,2}/\d{1,2}.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?"
)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH = re.compile(r"\d{4}-\d{1,2}")
_FILE = re.compile(r"[^\s,;]+\.[A-Za-z][A-Za-z0-9]{1,4}")


@dataclass(frozen=True)
class ColumnProfile:
    """What the cells of a column look like.

    Args:
        rows: Cells, missing ones included.
        missing: Cells without a value; in an array those that are NaN.
        distinct: Different values; 0 if every cell is missing, 1 for a constant. Rows of arrays are not compared.
        shape: Of a cell that is an array, `()` for a single value; of encoded pictures height and width in the middle.
        sizes_differ: Whether encoded pictures are of several sizes.
        dtype: `text`, `file` for encoded files, or that of the array.
        likely_kind: The kind of input that the column is taken for if a recipe does not name one.
        is_number: Every value can be read as a number.
        is_integer: So that it is a whole number.
        minimum, maximum, mean, variance: Of the numbers.
        is_row_index: The numbers are consecutive, each there once.
        mean_words: Mean words of a cell of text.
        is_date, is_boolean, is_file, is_picture: Every value that was looked at reads as one, or as the name of one.
        has_mixed_dates: It is taken for dates, but these are not all written in one format.
        splits: The splits that the cells name, if every cell names one and there are training rows and others.
        example: A cell of text.
        top_share: Share of the most frequent value among those that are there.
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
        return self.rows - self.missing

    @property
    def is_array(self) -> bool:
        return bool(self.shape) and not self.is_encoded

    @property
    def is_encoded(self) -> bool:
        """Whether its cells are encoded files."""
        return self.dtype == "file"

    @property
    def is_iso_date(self) -> bool:
        """Whether its dates are as ISO 8601 writes whole days or moments."""
        return self.likely_kind == "date" and not self.has_mixed_dates and _ISO.match(self.example) is not None

    @property
    def is_month(self) -> bool:
        """Whether its dates are months, as 2024-05."""
        return self.is_date and _MONTH.fullmatch(self.example) is not None

    @property
    def rows_per_value(self) -> float:
        """Cells for each different value."""
        return self.present / max(1, self.distinct)


def profile_columns(rows: SourceRows) -> tuple[ColumnProfile, ...]:
    """A look at every column, in the order of the source."""
    return tuple(_add_kind(profile_column(name, column), column) for name, column in rows.columns.items())


def _add_kind(profile: ColumnProfile, column: RawColumn) -> ColumnProfile:
    likely = guess_kind(column)
    mixed = likely == "date" and not dates.find_matching_formats(to_texts(column))
    return replace(profile, likely_kind=likely, has_mixed_dates=mixed)


def profile_column(name: str, column: RawColumn) -> ColumnProfile:
    """What one column looks like."""
    if is_file_column(column):
        return _profile_files(name, column)
    if not is_text_column(column) and column.ndim > 1 and column.shape[1:] != (1,):
        return _profile_arrays(name, column)
    if is_numeric(column):
        return _profile_numbers(name, column)
    return _profile_texts(name, to_texts(column))


def _profile_files(name: str, column: FileColumn) -> ColumnProfile:
    """Encoded pictures: the middle of their heights and widths, by the headers of some."""
    from statistics import median_low

    step = max(1, len(column) // _HEADERS)
    headers = [_read_row_header(column, row) for row in range(0, len(column), step)]
    sizes = [(found.height, found.width) for found in headers if found is not None]
    if not sizes:
        return ColumnProfile(name, len(column), distinct=len(column), dtype="file")
    shape = (median_low([height for height, _ in sizes]), median_low([width for _, width in sizes]))
    return ColumnProfile(
        name, len(column), distinct=len(column), dtype="file", shape=shape, sizes_differ=len(set(sizes)) > 1
    )


def _read_row_header(column: FileColumn, row: int) -> ImageHeader | None:
    """What a picture announces, None if it is damaged: training will tell where."""
    try:
        return read_header(column.read(row))
    except (RowFault, ValueError):
        return None


def _profile_arrays(name: str, column: Any) -> ColumnProfile:
    import numpy as np

    missing = int(np.isnan(column).sum()) if column.dtype.kind == "f" else 0
    constant = bool(len(column)) and missing == 0 and bool((column == column.flat[0]).all())
    return ColumnProfile(
        name, len(column), missing, 1 if constant else 2, shape=tuple(column.shape[1:]), dtype=column.dtype.name,
        is_number=True,
    )  # fmt: skip


def _profile_numbers(name: str, column: RawColumn) -> ColumnProfile:
    import numpy as np

    values = to_numbers(column).reshape(-1)
    found = values[~np.isnan(values)]
    unique, counts = np.unique(found, return_counts=True)
    if not len(unique):
        return ColumnProfile(name, len(values), len(values))
    whole = bool((np.rint(unique) == unique).all())
    return ColumnProfile(
        name=name,
        rows=len(values),
        missing=len(values) - len(found),
        distinct=len(unique),
        dtype="text" if is_text_column(column) else column.dtype.name,
        is_number=True,
        is_integer=whole,
        minimum=float(unique[0]),
        maximum=float(unique[-1]),
        mean=float(found.mean(dtype="float64")),
        variance=float(found.var(dtype="float64")),
        is_row_index=whole and len(unique) == len(values) and unique[-1] - unique[0] == len(values) - 1,
        is_boolean=getattr(column, "dtype", None) == np.bool_,
        top_share=float(counts.max() / len(found)),
    )


def _profile_texts(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    import pyarrow.compute as pc

    counts = pc.value_counts(column.drop_null())
    if not len(counts):
        return ColumnProfile(name, len(column), len(column))
    some = [text.strip() for text in counts.field("values").slice(0, _SAMPLE).to_pylist()]
    folded = {text.lower() for text in some}
    splits = {parse_split_name(text) for text in some}
    known = "train" in splits and len(splits) > 1 and "" not in splits and not column.null_count
    return ColumnProfile(
        name=name,
        rows=len(column),
        missing=column.null_count,
        distinct=len(counts),
        mean_words=sum(len(text.split()) for text in some) / len(some),
        is_date=all(_DATE.fullmatch(text) for text in some),
        is_boolean=len(folded) == 2
        and any(word in YES_WORDS for word in folded)
        and any(word in NO_WORDS for word in folded),
        splits=tuple(split for split in SPLITS if split in splits) if known else (),
        is_file=all(_FILE.fullmatch(text) for text in some),
        example=some[0],
        is_picture=all(text.lower().endswith(IMAGE_SUFFIXES) for text in some),
        top_share=pc.max(counts.field("counts")).as_py() / (len(column) - column.null_count),
    )
