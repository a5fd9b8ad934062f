"""What a Parquet file announces of its pages, found before any of them is unpacked.

Values that repeat take next to nothing in such a file, and all of the memory when they are decoded.
Format: https://parquet.apache.org/docs/file-format.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from bmcli import limits
from bmcli.data import thrift

# Fields of a header.
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_ENCODINGS = {5: 2, 8: 4}
"""The field of the encoding in the one that describes a page of data, for both versions of such."""
_DICTIONARY, _VALUES = 7, 1

_DICTIONARY_PAGE = 2
_BY_DICTIONARY, _BY_DIFFERENCE = (2, 8), 7
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
BATCH_ROWS = 2**16
"""Rows that are read at a time at most."""
_PROBED_ROWS = 2**10
_WINDOW, _LARGEST_HEADER = 2**9, 2**24  # bytes


@dataclass(frozen=True)
class Chunk:
    """The pages of one column of one group of rows.

    Args:
        values: In its pages, or as many as the directory of the file announces if that is more.
        width: Bytes of a value in memory; of a text those of its place alone.
        pages_bytes: Of all pages together, unpacked, but still encoded.
        page_bytes: Of the largest page.
        texts: Values that are written once for many rows.
        dictionary_bytes: Of the page of them.
        begins_with_dictionary: Whether the first rows take their values from there.
        longest: Bytes of the longest text that is written once for many rows at most; 0 for numbers.
        is_list: Whether a row may have many values.
    """

    values: int
    width: int
    pages_bytes: int
    page_bytes: int
    texts: int
    dictionary_bytes: int
    begins_with_dictionary: bool
    longest: int
    is_list: bool


@dataclass(frozen=True)
class Announced:
    """What the rows of a file take.

    Args:
        file_bytes: Of the file.
        decoded_bytes: Of all rows in memory at least; texts that repeat take more.
        pages_bytes: Of the pages that are held at a time.
        row_bytes: Of a row at most, where lists are taken for equally long.
    """

    file_bytes: int
    decoded_bytes: int
    pages_bytes: int
    row_bytes: int


def announced(place: str, file: IO[bytes], by_headers: bool = True) -> Announced:
    """Reads the headers of all pages, or the directory of the file alone, which may tell of less than the pages hold.

    Args:
        place: The file, for error texts.
        by_headers: Otherwise the directory is believed: over a network each header would be a request of its own.

    Raises:
        BmcliError: It unpacks to far more than any honest file does.
        ValueError: A header is damaged, with words for an error text.
    """
    import pyarrow.parquet as pq

    file_bytes = file.seek(0, io.SEEK_END)
    opened = pq.ParquetFile(file)
    metadata = opened.metadata
    groups = [_group(file, opened, number, by_headers) for number in range(opened.num_row_groups)]
    packed_bytes = sum(
        metadata.row_group(number).column(column).total_compressed_size
        for number, group in enumerate(groups)
        for column in range(len(group))
    )
    if packed_bytes > file_bytes:  # Columns that lie over each other would be a way to grow.
        raise ValueError(f"it announces columns of {packed_bytes} bytes, and has {file_bytes}")
    decoded_bytes = sum(max(chunk.pages_bytes, chunk.values * chunk.width) for group in groups for chunk in group)
    limits.check_growth(place, file_bytes, decoded_bytes)
    groups = [_with_longest(file, opened, number, group) for number, group in enumerate(groups)]
    lists_bytes = sum(chunk.values * chunk.longest for group in groups for chunk in group if chunk.is_list)
    limits.check_growth(place, file_bytes, lists_bytes)  # A single row may hold all of them.
    rows = [max(1, metadata.row_group(number).num_rows) for number in range(len(groups))]
    return Announced(
        file_bytes,
        decoded_bytes,
        max((sum(chunk.page_bytes for chunk in group) for group in groups), default=0),
        max((_row_bytes(group, count) for group, count in zip(groups, rows, strict=True)), default=0),
    )


def _row_bytes(group: Sequence[Chunk], rows: int) -> int:
    return sum(-(-chunk.values // rows) * (chunk.width + chunk.longest) for chunk in group)


def _group(file: IO[bytes], opened: Any, number: int, by_headers: bool) -> list[Chunk]:
    """The columns of a group of rows."""
    group = opened.metadata.row_group(number)
    columns = [(group.column(place), opened.schema.column(place)) for place in range(group.num_columns)]
    return [_chunk(file, *column) if by_headers else _listed_chunk(*column) for column in columns]


def _listed_chunk(column: Any, described: Any) -> Chunk:
    """What the directory of a file tells of a column."""
    unpacked_bytes = column.total_uncompressed_size
    repeats = column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings
    return Chunk(
        values=column.num_values,
        width=_width(described),
        pages_bytes=unpacked_bytes,
        page_bytes=0,  # It does not tell.
        texts=1,
        dictionary_bytes=unpacked_bytes if column.has_dictionary_page else 0,
        begins_with_dictionary=column.has_dictionary_page,
        longest=unpacked_bytes if repeats and described.physical_type == "BYTE_ARRAY" else 0,
        is_list=described.max_repetition_level > 0,
    )


def _width(described: Any) -> int:
    return _WIDTHS.get(described.physical_type, max(1, described.length))


def _chunk(file: IO[bytes], column: Any, described: Any) -> Chunk:
    headers = list(_headers(file, column))
    sizes = [header[_UNPACKED] for header in headers]
    data = [
        (header[field][_VALUES], header[field].get(encoding), header[_UNPACKED])
        for header in headers
        for field, encoding in _ENCODINGS.items()
        if field in header
    ]
    dictionary_bytes = sum(header[_UNPACKED] for header in headers if header[_KIND] == _DICTIONARY_PAGE)
    by_difference = max((size for _, encoding, size in data if encoding == _BY_DIFFERENCE), default=0)
    return Chunk(
        values=max(sum(values for values, _, _ in data), column.num_values),
        width=_width(described),
        is_list=described.max_repetition_level > 0,
        pages_bytes=sum(sizes),
        page_bytes=max(sizes, default=0),
        texts=sum(header[_DICTIONARY][_VALUES] for header in headers if _DICTIONARY in header),
        dictionary_bytes=dictionary_bytes,
        begins_with_dictionary=bool(data) and data[0][1] in _BY_DICTIONARY,
        longest=dictionary_bytes + by_difference if described.physical_type == "BYTE_ARRAY" else 0,
    )


def _headers(file: IO[bytes], column: Any) -> Iterator[dict[int, Any]]:
    """The header of each page of a column, by the numbers of its fields."""
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end, seen = place + column.total_compressed_size, 0
    while place < end and seen < column.num_values:
        header, header_end = _header(file, place)
        described = [header[field] for field in (*_ENCODINGS, _DICTIONARY) if field in header]
        counts = [each.get(_VALUES) if isinstance(each, dict) else None for each in described]
        sizes = [header.get(field) for field in (_KIND, _UNPACKED, _PACKED)]
        if not all(isinstance(number, int) and number >= 0 for number in (*sizes, *counts)):
            raise ValueError(f"the page at byte {place} has a damaged header")
        yield header
        seen += sum(header[field][_VALUES] for field in _ENCODINGS if field in header)
        place += header_end + header[_PACKED]


def _header(file: IO[bytes], place: int) -> tuple[dict[int, Any], int]:
    """The header at a place, and its bytes."""
    window = _WINDOW
    while True:
        file.seek(place)
        data = file.read(window)
        try:
            return thrift.structure(data, 0)
        except IndexError:
            if len(data) < window or window >= _LARGEST_HEADER:
                raise ValueError(f"the page at byte {place} has a header that is cut off") from None
            window *= 8


def _with_longest(file: IO[bytes], opened: Any, number: int, group: Sequence[Chunk]) -> list[Chunk]:
    """The columns of a group with the true length of their longest texts, where that decides how many rows are read.

    All texts of a dictionary come with the first row that takes its own from there.
    """
    if sum(chunk.longest for chunk in group) * BATCH_ROWS <= limits.BATCH_BYTES:
        return list(group)
    described = [opened.schema.column(place) for place in range(len(group))]
    return [
        replace(chunk, longest=_longest(file, opened, number, column.path, chunk))
        if chunk.longest and chunk.begins_with_dictionary and column.converted_type != "DECIMAL"
        else chunk
        for chunk, column in zip(group, described, strict=True)
    ]


def _longest(file: IO[bytes], opened: Any, number: int, path: str, chunk: Chunk) -> int:
    """Bytes of the longest text of a column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    reader = pq.ParquetFile(file, read_dictionary=[path], metadata=opened.metadata, buffer_size=2**20)
    found = next(reader.iter_batches(_PROBED_ROWS, row_groups=[number], columns=[path])).column(0)
    while found.type.num_fields:
        found = found.flatten()[0] if pa.types.is_struct(found.type) else found.flatten()
    texts = found.dictionary if pa.types.is_dictionary(found.type) else ()
    if len(texts) < chunk.texts:  # All of those rows are missing.
        return chunk.longest
    return chunk.longest - chunk.dictionary_bytes + (pc.max(pc.binary_length(texts)).as_py() or 0)
