"""Columns of tables that may be larger than memory: kept in a file that is mapped, and read one at a time."""

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
from bmcli.raw_columns import FileColumn, RawColumn
from bmcli.runs import make_cache_folder

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FEWER_COLUMNS = "Save numbers that belong together as one array, or a list in each row, or leave columns out."
_EXACT_IN_FLOAT64 = 2**53


@dataclass(frozen=True)
class MappedTable:
    """A table in a file that is mapped into memory."""

    table: pa.Table
    memory: mmap.mmap

    def release_memory(self) -> None:
        """Gives the memory of what was read back to the system; it is read again where it is still needed."""
        self.memory.madvise(mmap.MADV_DONTNEED)


class TableColumns(Mapping[str, RawColumn]):
    """The columns of several tables, one after the other; a column is made whenever it is asked for.

    Args:
        tables: With the same names, each once.
        types: What each column is read as, by name, in the order of the columns.
        where: A row's place for error texts.
    """

    def __init__(
        self, tables: Sequence[MappedTable], types: Mapping[str, pa.DataType], where: Callable[[int], str]
    ) -> None:
        self._tables, self._types, self._where = tables, types, where

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types  # without making the column

    def __getitem__(self, name: str) -> RawColumn:
        import pyarrow as pa

        for mapped in self._tables:
            mapped.release_memory()  # the columns before this one
        kind = self._types[name]
        chunks: list[pa.Array] = []
        for table in (mapped.table for mapped in self._tables):
            # By its place: the names of all columns would be listed anew for each of them.
            place = table.schema.get_field_index(name)
            chunks += [pa.nulls(len(table), kind)] if place < 0 else table.column(place).cast(kind).chunks
        return _to_raw_column(name, pa.chunked_array(chunks, kind), self._where)


def build_rows(
    tables: Sequence[MappedTable],
    types: Mapping[str, pa.DataType],
    lengths: Sequence[tuple[str | None, File, int]],
    where: Callable[[File, int], str],
    found: Mapping[str, Any] | None = None,
) -> SourceRows:
    """The rows of the files of a source.

    Args:
        lengths: Split, file and number of rows of each file, in the order of the tables' rows.
        where: The place of a row of a file, counted from 0.
    """
    places = [(path, length) for _, path, length in lengths]
    by_split: dict[str | None, int] = {}
    for split, _, length in lengths:
        by_split[split] = by_split.get(split, 0) + length

    def place(row: int) -> str:
        return where(*locate_row(places, row))

    return SourceRows(
        columns=TableColumns(tables, types, place),
        split=repeat_split_names(by_split),
        where=place,
        found=found or {},
        count=sum(length for _, length in places),
    )


def spill_batches(batches: Iterable[pa.RecordBatch]) -> list[MappedTable]:
    """The same rows in files without a name, mapped into memory; a table for each run of batches with one schema.

    Such a file goes with the process, however that ends.
    """
    return [_spill_run(schema, some) for schema, some in groupby(batches, key=lambda batch: batch.schema)]


def check_room(needed: int) -> None:
    """Raises disk.WriteFailure if so many bytes of rows are not free where they are kept."""
    folder = make_cache_folder()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise disk.WriteFailure(errno.ENOSPC, folder, needed, free)


def _spill_run(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> MappedTable:
    import pyarrow as pa

    folder = make_cache_folder()
    with disk.convert_write_errors(folder):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closing it may fail again, as writing did
    try:
        with disk.convert_write_errors(folder):
            writer = pa.ipc.new_stream(file, schema)
        for batch in batches:  # which are read meanwhile: what that finds is no fault of the cache
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
    """The batch with the fields of nested records as columns, `address.city`, and dictionaries unpacked."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    columns = [column.combine_chunks() for column in table.columns]
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in columns]
    return pa.RecordBatch.from_arrays(plain, table.schema.names)


def check_names(path: File, names: Sequence[str]) -> None:
    """Raises BmcliError if a column has no name, or two have the same."""
    for position, name in enumerate(names):
        if not name:
            raise BmcliError(f"{files.format_path(path)}: column {position + 1} has no name.", path=files.RECIPE_PATH)
    if twice := repeated(names):
        raise BmcliError(f"{files.format_path(path)}: two columns are named {quoted(twice)}.", path=files.RECIPE_PATH)


def repeated(names: Iterable[str]) -> str | None:
    """The first of some names that was there before, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_count(path: File, count: int, what: str = "columns", line: str = "") -> None:
    """Raises BmcliError for more columns than any table has that is meant to be read.

    Args:
        what: Is counted, in the words of the source.
        line: Where, as `:1`.
    """
    if count > limits.COLUMNS:
        raise BmcliError(
            f"{files.format_path(path)}{line}{' ' if line else ':'} has {count:,} {what}; "
            f"{limits.COLUMNS:,} are the most.",
            path=files.RECIPE_PATH,
            suggestion=FEWER_COLUMNS,
        )


def check_same_columns(first: File, names: Iterable[str], path: File, others: Iterable[str], line: str = "") -> None:
    """Raises BmcliError if a file lacks a column that another has.

    Args:
        line: Of the header, as `:1`.
    """
    names, others = list(names), set(others)
    differing = [name for name in names if name not in others] + sorted(others.difference(names))
    if differing:
        has, lacks = (first, path) if differing[0] in names else (path, first)
        raise BmcliError(
            f"{files.format_path(lacks)}{line}{' ' if line else ':'} has no column {quoted(differing[0])}, "
            f"which {files.format_path(has)} has.",
            path=files.RECIPE_PATH,
        )


def find_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, or None if there is none."""
    import pyarrow as pa

    try:
        schemas = [pa.schema([("", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _to_raw_column(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> RawColumn:
    """An Arrow column as the rest of bmcli reads it: text with nulls, an array with NaN, or files."""
    import pyarrow as pa

    kind, types = column.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_null(kind):
        return column.cast(pa.string())
    if types.is_temporal(kind) and not types.is_duration(kind):
        return _to_iso_dates(column)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _to_file_column(column)
    if is_list_type(kind):
        return _stack_lists(name, column, where)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise BmcliError(
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
    """Whole numbers as they are if none is missing, else floating point."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_integer(column.type) and column.null_count:
        bounds = pc.min_max(column).as_py()
        if max(abs(bounds["min"] or 0), abs(bounds["max"] or 0)) > _EXACT_IN_FLOAT64:
            return column.cast(pa.string())  # Identifiers, which floating point would confuse.
        column = column.cast(pa.float64())
    if len(column.chunks) == 1 and not column.null_count:
        return column.chunk(0).to_numpy()
    return np.asarray(column.to_numpy())


def _to_iso_dates(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates and times as ISO 8601 writes them, those with a time zone in UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(column.type):
        return column.cast(pa.string())
    form = "%Y-%m-%dT%H:%M:%S" + ("Z" if column.type.tz else "")
    column = column.cast(pa.timestamp(column.type.unit))
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


def _stack_lists(name: str, column: pa.ChunkedArray, where: Callable[[int], str]) -> np.ndarray:
    """Lists of numbers of one length as `(rows, length)`, nested ones with more axes; a missing one is all NaN."""
    import numpy as np
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column)
    present = np.asarray(pc.is_valid(column))
    found = pc.drop_null(lengths)
    length = found[0].as_py() if len(found) else 0
    other = np.asarray(pc.fill_null(pc.not_equal(lengths, length), False))
    if other.any():
        row = int(np.argmax(other))
        place, received = where(row), lengths[row].as_py()
        raise BmcliError(
            Fault(
                f"{place}  column {quoted(name)}: expected a list of {length}, as in the rows before, "
                f"received one of {received}.",
                path=files.RECIPE_PATH,
                suggestion="Pad the lists to one length.",
                file=place,
            )
        )
    flat = _to_raw_column(
        name, pc.list_flatten(column), lambda item: where(int(np.flatnonzero(present)[item // max(1, length)]))
    )
    if not hasattr(flat, "ndim"):
        kind = brief(str(column.type.value_type))
        raise BmcliError(
            f"column {quoted(name)}: lists of {kind} cannot be read, only lists of numbers.",
            path=files.RECIPE_PATH,
            suggestion="Save the items as one text, or each as a column.",
        )
    cells = flat.reshape(-1, length, *flat.shape[1:])
    if present.all():
        return cells
    values = np.full((len(column), *cells.shape[1:]), np.nan)
    values[present] = cells
    return values
