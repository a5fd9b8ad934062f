"""What the columns of a source look like, before anybody has said what they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bmcli import dates
from bmcli.data.columns import likely_kind
from bmcli.data.sources import Rows
from bmcli.data.splitting.splits import split_of_word
from bmcli.pictures import SUFFIXES, Header, header
from bmcli.raw_columns import NO, YES, Blobs, Raw, RowFault, are_blobs, are_numbers, is_text, numbers, texts
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
class Look:
    """What the cells of a column look like.

    Args:
        rows: Cells, missing ones included.
        missing: Cells without a value; in an array those that are NaN.
        distinct: Different values; 0 if every cell is missing, 1 for a constant. Rows of arrays are not compared.
        shape: Of a cell that is an array, `()` for a single value; of encoded pictures height and width in the middle.
        sizes_differ: Whether encoded pictures are of several sizes.
        dtype: `text`, `file` for encoded files, or that of the array.
        likely: The kind of input that the column is taken for if a recipe does not name one.
        is_number: Every value can be read as a number.
        whole: So that it is a whole number.
        least, greatest, mean, variance: Of the numbers.
        counts_rows: The numbers are consecutive, each there once.
        words: Mean words of a cell of text.
        is_date, is_boolean, is_file, is_picture: Every value that was looked at reads as one, or as the name of one.
        is_mixed: It is taken for dates, but these are not all written in one format.
        splits: The splits that the cells name, if every cell names one and there are training rows and others.
        example: A cell of text.
        commonest: Share of the most frequent value among those that are there.
    """

    name: str
    rows: int
    missing: int = 0
    distinct: int = 0
    shape: tuple[int, ...] = ()
    sizes_differ: bool = False
    dtype: str = "text"
    likely: str = ""
    is_number: bool = False
    whole: bool = False
    least: float = 0.0
    greatest: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    counts_rows: bool = False
    words: float = 0.0
    is_date: bool = False
    is_mixed: bool = False
    is_boolean: bool = False
    splits: tuple[str, ...] = ()
    is_file: bool = False
    is_picture: bool = False
    example: str = ""
    commonest: float = 0.0

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
        return self.likely == "date" and not self.is_mixed and _ISO.match(self.example) is not None

    @property
    def is_month(self) -> bool:
        """Whether its dates are months, as 2024-05."""
        return self.is_date and _MONTH.fullmatch(self.example) is not None

    @property
    def repeats(self) -> float:
        """Cells for each different value."""
        return self.present / max(1, self.distinct)


def survey(rows: Rows) -> tuple[Look, ...]:
    """A look at every column, in the order of the source."""
    return tuple(_with_kind(look(name, column), column) for name, column in rows.columns.items())


def _with_kind(look: Look, column: Raw) -> Look:
    likely = likely_kind(column)
    mixed = likely == "date" and not dates.fitting(texts(column))
    return replace(look, likely=likely, is_mixed=mixed)


def look(name: str, column: Raw) -> Look:
    """What one column looks like."""
    if are_blobs(column):
        return _of_files(name, column)
    if not is_text(column) and column.ndim > 1 and column.shape[1:] != (1,):
        return _of_arrays(name, column)
    if are_numbers(column):
        return _of_numbers(name, column)
    return _of_texts(name, texts(column))


def _of_files(name: str, column: Blobs) -> Look:
    """Encoded pictures: the middle of their heights and widths, by the headers of some."""
    from statistics import median_low

    step = max(1, len(column) // _HEADERS)
    headers = [_header(column, row) for row in range(0, len(column), step)]
    sizes = [(found.height, found.width) for found in headers if found is not None]
    if not sizes:
        return Look(name, len(column), distinct=len(column), dtype="file")
    shape = (median_low([height for height, _ in sizes]), median_low([width for _, width in sizes]))
    return Look(name, len(column), distinct=len(column), dtype="file", shape=shape, sizes_differ=len(set(sizes)) > 1)


def _header(column: Blobs, row: int) -> Header | None:
    """What a picture announces, None if it is damaged: training will tell where."""
    try:
        return header(column.read(row))
    except (RowFault, ValueError):
        return None


def _of_arrays(name: str, column: Any) -> Look:
    import numpy as np

    missing = int(np.isnan(column).sum()) if column.dtype.kind == "f" else 0
    constant = bool(len(column)) and missing == 0 and bool((column == column.flat[0]).all())
    return Look(
        name, len(column), missing, 1 if constant else 2, shape=tuple(column.shape[1:]), dtype=column.dtype.name,
        is_number=True,
    )  # fmt: skip


def _of_numbers(name: str, column: Raw) -> Look:
    import numpy as np

    values = numbers(column).reshape(-1)
    found = values[~np.isnan(values)]
    unique, counts = np.unique(found, return_counts=True)
    if not len(unique):
        return Look(name, len(values), len(values))
    whole = bool((np.rint(unique) == unique).all())
    return Look(
        name=name,
        rows=len(values),
        missing=len(values) - len(found),
        distinct=len(unique),
        dtype="text" if is_text(column) else column.dtype.name,
        is_number=True,
        whole=whole,
        least=float(unique[0]),
        greatest=float(unique[-1]),
        mean=float(found.mean(dtype="float64")),
        variance=float(found.var(dtype="float64")),
        counts_rows=whole and len(unique) == len(values) and unique[-1] - unique[0] == len(values) - 1,
        is_boolean=getattr(column, "dtype", None) == np.bool_,
        commonest=float(counts.max() / len(found)),
    )


def _of_texts(name: str, column: pa.ChunkedArray) -> Look:
    import pyarrow.compute as pc

    counts = pc.value_counts(column.drop_null())
    if not len(counts):
        return Look(name, len(column), len(column))
    some = [text.strip() for text in counts.field("values").slice(0, _SAMPLE).to_pylist()]
    folded = {text.lower() for text in some}
    splits = {split_of_word(text) for text in some}
    known = "train" in splits and len(splits) > 1 and "" not in splits and not column.null_count
    return Look(
        name=name,
        rows=len(column),
        missing=column.null_count,
        distinct=len(counts),
        words=sum(len(text.split()) for text in some) / len(some),
        is_date=all(_DATE.fullmatch(text) for text in some),
        is_boolean=len(folded) == 2 and any(word in YES for word in folded) and any(word in NO for word in folded),
        splits=tuple(split for split in SPLITS if split in splits) if known else (),
        is_file=all(_FILE.fullmatch(text) for text in some),
        example=some[0],
        is_picture=all(text.lower().endswith(SUFFIXES) for text in some),
        commonest=pc.max(counts.field("counts")).as_py() / (len(column) - column.null_count),
    )
