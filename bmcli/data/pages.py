"""Decoded sizes of a Parquet file, read from its page headers before any page is unpacked.

Repeated values take next to no space in such a file, but can exhaust the memory when they are decoded.
Format: https://parquet.apache.org/docs/file-format.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from bmcli import limits
from bmcli.data import thrift

# Field numbers of a page header.
_PAGE_TYPE, _UNPACKED_BYTES, _PACKED_BYTES = 1, 2, 3
_ENCODINGS = {5: 2, 8: 4}
"""Field number of the encoding within the header of a data page, for both versions of data pages."""
_DICTIONARY, _VALUES = 7, 1

_DICTIONARY_PAGE = 2  # a page type
_DICTIONARY_ENCODINGS, _DELTA_BYTE_ARRAY = (2, 8), 7
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
BATCH_ROWS = 2**16
"""Maximum number of rows that are read at once."""
_PROBED_ROWS = 2**10
_WINDOW_BYTES, _MAX_HEADER_BYTES = 2**9, 2**24  # bytes


@dataclass(frozen=True)
class ColumnChunk:
    """Sizes of one column in one row group.

    Args:
        values: Number of values by the page headers, or by the metadata of the file if that is larger.
        width: Bytes of a value in memory; for text only those of its offset.
        pages_bytes: Size of all pages together, decompressed, but still encoded.
        page_bytes: Size of the largest page.
        dictionary_values: Number of values in the dictionary page.
        dictionary_bytes: Size of the dictionary page.
        begins_with_dictionary: Whether the first data page is encoded by the dictionary.
        max_text_bytes: Upper bound of the bytes of a text that is stored once for many rows; 0 for numbers.
        is_list: Whether a row may have several values.
    """

    values: int
    width: int
    pages_bytes: int
    page_bytes: int
    dictionary_values: int
    dictionary_bytes: int
    begins_with_dictionary: bool
    max_text_bytes: int
    is_list: bool


@dataclass(frozen=True)
class DeclaredSizes:
    """Sizes of a file and of its rows in memory.

    Args:
        file_bytes: Size of the file.
        decoded_bytes: Lower bound of all rows in memory; repeated texts take more.
        pages_bytes: Pages that are held in memory at once.
        row_bytes: Upper bound of a row in memory, assuming lists of equal length.
    """

    file_bytes: int
    decoded_bytes: int
    pages_bytes: int
    row_bytes: int


def read_declared_sizes(place: str, file: IO[bytes], by_headers: bool = True) -> DeclaredSizes:
    """Read the sizes of a file from its page headers, or from its metadata.

    Args:
        place: The file, for messages.
        by_headers: Read the header of every page. False trusts the metadata, which a forged file can understate:
            over a network each header would be a separate request.

    Raises:
        BmcliError: The file unpacks to far more than an ordinary file does.
        ValueError: A header is damaged; with a message for the user.
    """
    import pyarrow.parquet as pq

    file_bytes = file.seek(0, io.SEEK_END)
    parquet = pq.ParquetFile(file)
    metadata = parquet.metadata
    groups = [_read_row_group(file, parquet, number, by_headers) for number in range(parquet.num_row_groups)]
    packed_bytes = sum(
        metadata.row_group(number).column(column).total_compressed_size
        for number, group in enumerate(groups)
        for column in range(len(group))
    )
    if packed_bytes > file_bytes:  # Columns that share the same bytes of the file would evade the limit on growth.
        raise ValueError(f"it declares columns of {packed_bytes} bytes, but has {file_bytes}")
    decoded_bytes = sum(max(chunk.pages_bytes, chunk.values * chunk.width) for group in groups for chunk in group)
    limits.check_growth(place, file_bytes, decoded_bytes)
    groups = [_measure_longest_texts(file, parquet, number, group) for number, group in enumerate(groups)]
    lists_bytes = sum(chunk.values * chunk.max_text_bytes for group in groups for chunk in group if chunk.is_list)
    limits.check_growth(place, file_bytes, lists_bytes)  # A single row may hold all values of its row group.
    rows = [max(1, metadata.row_group(number).num_rows) for number in range(len(groups))]
    return DeclaredSizes(
        file_bytes,
        decoded_bytes,
        max((sum(chunk.page_bytes for chunk in group) for group in groups), default=0),
        max((_count_row_bytes(group, count) for group, count in zip(groups, rows, strict=True)), default=0),
    )


def _count_row_bytes(group: Sequence[ColumnChunk], rows: int) -> int:
    return sum(-(-chunk.values // rows) * (chunk.width + chunk.max_text_bytes) for chunk in group)


def _read_row_group(file: IO[bytes], parquet: Any, number: int, by_headers: bool) -> list[ColumnChunk]:
    """Read the sizes of the columns of a row group."""
    group = parquet.metadata.row_group(number)
    columns = [(group.column(position), parquet.schema.column(position)) for position in range(group.num_columns)]
    return [_read_chunk(file, *column) if by_headers else _read_chunk_metadata(*column) for column in columns]


def _read_chunk_metadata(column: Any, schema: Any) -> ColumnChunk:
    """Read the sizes of a column from the metadata of the file."""
    unpacked_bytes = column.total_uncompressed_size
    repeats = column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings
    return ColumnChunk(
        values=column.num_values,
        width=_get_value_width(schema),
        pages_bytes=unpacked_bytes,
        page_bytes=0,  # not in the metadata
        dictionary_values=1,
        dictionary_bytes=unpacked_bytes if column.has_dictionary_page else 0,
        begins_with_dictionary=column.has_dictionary_page,
        max_text_bytes=unpacked_bytes if repeats and schema.physical_type == "BYTE_ARRAY" else 0,
        is_list=schema.max_repetition_level > 0,
    )


def _get_value_width(schema: Any) -> int:
    return _WIDTHS.get(schema.physical_type, max(1, schema.length))


def _read_chunk(file: IO[bytes], column: Any, schema: Any) -> ColumnChunk:
    headers = list(_read_headers(file, column))
    sizes = [header[_UNPACKED_BYTES] for header in headers]
    data_pages = [
        (header[field][_VALUES], header[field].get(encoding), header[_UNPACKED_BYTES])
        for header in headers
        for field, encoding in _ENCODINGS.items()
        if field in header
    ]
    dictionary_bytes = sum(header[_UNPACKED_BYTES] for header in headers if header[_PAGE_TYPE] == _DICTIONARY_PAGE)
    by_difference = max((size for _, encoding, size in data_pages if encoding == _DELTA_BYTE_ARRAY), default=0)
    return ColumnChunk(
        values=max(sum(values for values, _, _ in data_pages), column.num_values),
        width=_get_value_width(schema),
        is_list=schema.max_repetition_level > 0,
        pages_bytes=sum(sizes),
        page_bytes=max(sizes, default=0),
        dictionary_values=sum(header[_DICTIONARY][_VALUES] for header in headers if _DICTIONARY in header),
        dictionary_bytes=dictionary_bytes,
        begins_with_dictionary=bool(data_pages) and data_pages[0][1] in _DICTIONARY_ENCODINGS,
        max_text_bytes=dictionary_bytes + by_difference if schema.physical_type == "BYTE_ARRAY" else 0,
    )


def _read_headers(file: IO[bytes], column: Any) -> Iterator[dict[int, Any]]:
    """Read the header of each page of a column, as fields by number."""
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end, seen = place + column.total_compressed_size, 0
    while place < end and seen < column.num_values:
        header, header_end = _read_header(file, place)
        page_headers = [header[field] for field in (*_ENCODINGS, _DICTIONARY) if field in header]
        counts = [each.get(_VALUES) if isinstance(each, dict) else None for each in page_headers]
        sizes = [header.get(field) for field in (_PAGE_TYPE, _UNPACKED_BYTES, _PACKED_BYTES)]
        if not all(isinstance(number, int) and number >= 0 for number in (*sizes, *counts)):
            raise ValueError(f"the page at byte {place} has a damaged header")
        yield header
        seen += sum(header[field][_VALUES] for field in _ENCODINGS if field in header)
        place += header_end + header[_PACKED_BYTES]


def _read_header(file: IO[bytes], place: int) -> tuple[dict[int, Any], int]:
    """Read the header at a place, and return it with its length.

    The length is not known beforehand, so a longer part of the file is read until the header is complete.
    """
    window = _WINDOW_BYTES
    while True:
        file.seek(place)
        data = file.read(window)
        try:
            return thrift.parse_struct(data, 0)
        except IndexError:
            if len(data) < window or window >= _MAX_HEADER_BYTES:
                raise ValueError(f"the page at byte {place} has a header that is cut off") from None
            window *= 8


def _measure_longest_texts(
    file: IO[bytes], parquet: Any, number: int, group: Sequence[ColumnChunk]
) -> list[ColumnChunk]:
    """Measure the longest texts of the dictionaries, where their upper bound would reduce the rows of a batch.

    Arrow decodes a whole dictionary with the first row that refers to it, so a few rows suffice.
    """
    if sum(chunk.max_text_bytes for chunk in group) * BATCH_ROWS <= limits.BATCH_BYTES:
        return list(group)
    columns = [parquet.schema.column(position) for position in range(len(group))]
    return [
        replace(chunk, max_text_bytes=_measure_longest_text(file, parquet, number, column.path, chunk))
        if chunk.max_text_bytes and chunk.begins_with_dictionary and column.converted_type != "DECIMAL"
        else chunk
        for chunk, column in zip(group, columns, strict=True)
    ]


def _measure_longest_text(file: IO[bytes], parquet: Any, number: int, path: str, chunk: ColumnChunk) -> int:
    """Return the bytes of the longest text of a column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    reader = pq.ParquetFile(file, read_dictionary=[path], metadata=parquet.metadata, buffer_size=2**20)
    values = next(reader.iter_batches(_PROBED_ROWS, row_groups=[number], columns=[path])).column(0)
    while values.type.num_fields:
        values = values.flatten()[0] if pa.types.is_struct(values.type) else values.flatten()
    texts = values.dictionary if pa.types.is_dictionary(values.type) else ()
    if len(texts) < chunk.dictionary_values:  # The rows that were read are all missing, so no dictionary was decoded.
        return chunk.max_text_bytes
    return chunk.max_text_bytes - chunk.dictionary_bytes + (pc.max(pc.binary_length(texts)).as_py() or 0)
