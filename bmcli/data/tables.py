"""Tables that may be larger than memory: rows in a memory-mapped file, read one column at a time."""

from __future__ import annotations

import contextlib
import errno
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bmcli import disk, limits
from bmcli.data import files
from bmcli.data.files import File
from bmcli.data.sources import SourceRows, locate_row, repeat_split_names
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import brief, quoted
from bmcli.raw_columns import FileColumn, RawColumn, UnreadableColumn
from bmcli.runs import make_cache_folder

if TYPE_CHECKING:
    import pyarrow as pa

FEWER_COLUMNS = "Save numbers that belong together as one array, or a list in each row, or leave columns out."
_EXACT_IN_FLOAT64 = 2**53


@dataclass(frozen=True)
class MappedTable:
    """An Arrow table in a memory-mapped file."""

    table: pa.Table
    memory: mmap.mmap

    def release_memory(self) -> None:
        """Release the pages that were read; the system reads them again when they are needed."""
        # Mapped pages count as memory of the process, although the system could take them back at any time.
        self.memory.madvise(mmap.MADV_DONTNEED)


class TableColumns(Mapping[str, RawColumn]):
    """Columns of several tables whose rows follow each other; a column is built on every access.

    Args:
        tables: Tables whose columns have unique names; a column that a table lacks is missing in its rows.
        types: Type that each column is cast to, in the order of the columns.
        describe_row: Function from a row to its place for messages.
        unreadable: Errors that access to some of the columns raises.
    """

    def __init__(
        self,
        tables: Sequence[MappedTable],
        types: Mapping[str, pa.DataType],
        describe_row: Callable[[int], str],
        unreadable: Mapping[str, UnreadableColumn],
    ) -> None:
        self._tables, self._types, self._describe_row, self._unreadable = tables, types, describe_row, unreadable

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types  # The inherited method would build the column.

    def __getitem__(self, name: str) -> RawColumn:
        import pyarrow as pa

        if name in self._unreadable:
            raise self._unreadable[name]
        for mapped in self._tables:
            mapped.release_memory()  # of the columns that were read before
        kind = self._types[name]
        chunks: list[pa.Array] = []
        for table in (mapped.table for mapped in self._tables):
            # By position: `table.column(name)` lists the names of all columns, which is quadratic over a wide table.
            position = table.schema.get_field_index(name)
            chunks += [pa.nulls(len(table), kind)] if position < 0 else table.column(position).cast(kind).chunks
        return _to_raw_column(name, pa.chunked_array(chunks, kind), self._describe_row)


class PartlyReadableColumns(Mapping[str, RawColumn]):
    """Columns of which some cannot be read: access to these raises their error."""

    def __init__(self, columns: Mapping[str, RawColumn], unreadable: Mapping[str, UnreadableColumn]) -> None:
        self._columns, self._unreadable = columns, unreadable

    def __iter__(self) -> Iterator[str]:
        return iter((*self._columns, *self._unreadable))

    def __len__(self) -> int:
        return len(self._columns) + len(self._unreadable)

    def __contains__(self, name: object) -> bool:
        return name in self._columns or name in self._unreadable

    def __getitem__(self, name: str) -> RawColumn:
        if name in self._unreadable:
            raise self._unreadable[name]
        return self._columns[name]


def build_rows(
    tables: Sequence[MappedTable],
    types: Mapping[str, pa.DataType],
    lengths: Sequence[tuple[str | None, File, int]],
    describe_file_row: Callable[[File, int], str],
    detected_options: Mapping[str, Any] | None = None,
    unreadable: Mapping[str, UnreadableColumn] | None = None,
) -> SourceRows:
    """Join the tables of a source to its rows.

    Args:
        lengths: Split, file and number of rows of each file, in the order of the tables' rows.
        describe_file_row: Function from a file and a row in it, from 0, to its place for messages.
        unreadable: Errors of columns that cannot be read, by name.
    """
    places = [(path, length) for _, path, length in lengths]
    by_split: dict[str | None, int] = {}
    for split, _, length in lengths:
        by_split[split] = by_split.get(split, 0) + length

    def describe_row(row: int) -> str:
        return describe_file_row(*locate_row(places, row))

    return SourceRows(
        columns=TableColumns(tables, types, describe_row, unreadable or {}),
        split=repeat_split_names(by_split),
        describe_row=describe_row,
        detected_options=detected_options or {},
        count=sum(length for _, length in places),
    )


def spill_batches(batches: Iterable[pa.RecordBatch]) -> list[MappedTable]:
    """Write batches to memory-mapped temporary files; consecutive batches of one schema form one table.

    The files have no name, so the system removes them when the process ends, even if it is killed.
    """
    return [_spill_run(schema, run) for schema, run in groupby(batches, key=lambda batch: batch.schema)]


def check_free_disk(needed: int) -> None:
    """Raise disk.WriteFailure if the disk of the temporary files has fewer free bytes than needed."""
    folder = make_cache_folder()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise disk.WriteFailure(errno.ENOSPC, folder, needed, free)


def _spill_run(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> MappedTable:
    import pyarrow as pa

    folder = make_cache_folder()
    with disk.convert_write_errors(folder):
        # No `with`: closing the file flushes it, which fails again on a full disk and would hide the first error.
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    try:
        with disk.convert_write_errors(folder):
            writer = pa.ipc.new_stream(file, schema)
        # The source is read by iterating over the batches, outside of `convert_write_errors`: its errors are no write
        # errors of the cache.
        for batch in batches:
            with disk.convert_write_errors(folder):
                writer.write_batch(batch)
        with disk.convert_write_errors(folder):
            writer.close()
            file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    finally:
        with contextlib.suppress(OSError):
            file.close()
    return MappedTable(pa.ipc.open_stream(pa.py_buffer(mapped)).read_all(), mapped)


def flatten_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Turn the fields of nested records into columns such as `address.city`, and decode dictionaries."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    columns = [column.combine_chunks() for column in table.columns]
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in columns]
    return pa.RecordBatch.from_arrays(plain, table.schema.names)


def check_names(path: File, names: Sequence[str], line: int | None = None) -> None:
    """Raise BmcliError if a column has no name, or two columns have the same name.

    Args:
        line: Line of the header, if the file has one.
    """
    for position, name in enumerate(names):
        if not name:
            raise files.file_error(path, f"column {position + 1} has no name.", line=line)
    if twice := find_repeated(names):
        raise files.file_error(path, f"two columns are named {quoted(twice)}.", line=line)


def find_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that repeats an earlier one, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_count(path: File, count: int, what: str = "columns", line: int | None = None) -> None:
    """Raise BmcliError for more than `limits.MAX_COLUMNS` columns.

    Args:
        what: Word of the format for columns: keys, arrays.
        line: Line on which they were counted, if the file has lines.
    """
    if count > limits.MAX_COLUMNS:
        message = f"has {count:,} {what}, expected at most {limits.MAX_COLUMNS:,}."
        raise files.file_error(path, message, FEWER_COLUMNS, line)


def check_same_columns(
    first: File, names: Iterable[str], path: File, others: Iterable[str], line: int | None = None
) -> None:
    """Raise BmcliError unless two files have columns of the same names.

    Args:
        line: Line of the header, if the files have one.
    """
    names, others = list(names), set(others)
    differing = [name for name in names if name not in others] + sorted(others.difference(names))
    if differing:
        has, lacks = (first, path) if differing[0] in names else (path, first)
        message = f"has no column {quoted(differing[0])}, which {files.format_path(has)} has."
        raise files.file_error(lacks, message, line=line)


def find_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that can hold the values of both types, or None if there is none."""
    import pyarrow as pa

    try:
        schemas = [pa.schema([("", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _to_raw_column(name: str, column: pa.ChunkedArray, describe_row: Callable[[int], str]) -> RawColumn:
    """Convert an Arrow column to a raw column: text with nulls, an array with NaN, or encoded files."""
    import pyarrow as pa

    kind, types = column.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_null(kind):
        return column.cast(pa.string())
    if types.is_temporal(kind) and not types.is_duration(kind):
        return _to_iso_dates(column)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _to_file_column(column)
    if is_list_type(kind):
        return _stack_lists(name, column, describe_row)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise UnreadableColumn(
            f"column {quoted(name)}: cells of type {brief(str(kind))} cannot be read.",
            path=files.RECIPE_PATH,
            suggestion="Save it as numbers, text, dates or lists of numbers, or leave it out of the file.",
        )
    return _to_number_array(column)


def is_list_type(data_type: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type)


def _to_number_array(column: pa.ChunkedArray) -> RawColumn:
    """Convert numbers to an array; integers with missing cells become floating point, or text if they are large."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    is_decimal = pa.types.is_decimal(column.type)
    has_floats = is_decimal or column.null_count > 0
    if pa.types.is_integer(column.type) or (is_decimal and column.type.scale == 0):
        bounds = pc.min_max(column).as_py()
        largest = max(abs(int(bounds["min"] or 0)), abs(int(bounds["max"] or 0)))
        if largest > (_EXACT_IN_FLOAT64 if has_floats else 2**63 - 1):
            # Such numbers are identifiers; in floating point different ones would become equal.
            return column.cast(pa.string())
    if has_floats and not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    if len(column.chunks) == 1 and not column.null_count:
        return column.chunk(0).to_numpy()
    return np.asarray(column.to_numpy())


def _to_iso_dates(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Format dates and times as ISO 8601, those with a time zone in UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(column.type):
        return column.cast(pa.string())
    form = "%Y-%m-%dT%H:%M:%S" + ("Z" if column.type.tz else "")
    column = column.cast(pa.timestamp(column.type.unit))
    # Arrow writes as many decimals as the unit of a timestamp has, even where all of them are 0.
    seconds = pc.floor_temporal(column, unit="second")
    if column.type.unit != "s" and pc.all(pc.equal(seconds, column)).as_py() is not False:
        column = column.cast(pa.timestamp("s"))
    return pc.strftime(column, form)


def _to_file_column(column: pa.ChunkedArray) -> FileColumn:
    import numpy as np

    def read(row: int) -> bytes:
        cell: bytes | None = column[row].as_py()
        if cell is None:
            raise BmcliError("expected an encoded file, received nothing.")
        return cell

    return FileColumn(np.arange(len(column)), read)


def _format_text_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write lists of texts as JSON, such as `["a", "b"]`, which a target of labels reads; a missing list is null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    items = pc.fill_null(pc.list_flatten(column).cast(pa.string()).combine_chunks(), "")
    for character, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        items = pc.replace_substring(items, pattern=character, replacement=escape)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("int32")
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, pc.binary_join_element_wise('"', items, '"', "")), ", ")
    texts = pc.binary_join_element_wise("[", joined, "]", "")
    return pa.chunked_array([pc.if_else(pc.is_valid(column).combine_chunks(), texts, pa.scalar(None, pa.string()))])


def _stack_lists(name: str, column: pa.ChunkedArray, describe_row: Callable[[int], str]) -> RawColumn:
    """Stack lists of numbers of equal length to `(rows, length)`, nested lists to more axes; a missing list is NaN.

    Lists of texts become texts.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    item = column.type.value_type
    if pa.types.is_string(item) or pa.types.is_large_string(item) or pa.types.is_null(item):
        return _format_text_lists(column)
    lengths = pc.list_value_length(column)
    present = np.asarray(pc.is_valid(column))
    present_lengths = pc.drop_null(lengths)
    length = present_lengths[0].as_py() if len(present_lengths) else 0
    other = np.asarray(pc.fill_null(pc.not_equal(lengths, length), False))
    if other.any():
        row = int(np.argmax(other))
        place, received = describe_row(row), lengths[row].as_py()
        raise UnreadableColumn(
            Fault(
                f"{place}  column {quoted(name)}: expected a list of {length} values, as in the rows before, "
                f"received one of {received}.",
                path=files.RECIPE_PATH,
                suggestion="Pad the lists to one length; if their items are labels, save them as texts.",
                file=place,
            )
        )
    flat = _to_raw_column(
        name, pc.list_flatten(column), lambda item: describe_row(int(np.flatnonzero(present)[item // max(1, length)]))
    )
    if not hasattr(flat, "ndim"):
        kind = brief(str(column.type.value_type))
        raise UnreadableColumn(
            f"column {quoted(name)}: lists of {kind} cannot be read, only lists of numbers.",
            path=files.RECIPE_PATH,
            suggestion="Save the items as texts, as one text, or each as a column.",
        )
    cells = flat.reshape(-1, length, *flat.shape[1:])
    if present.all():
        return cells
    values = np.full((len(column), *cells.shape[1:]), np.nan)
    values[present] = cells
    return values
