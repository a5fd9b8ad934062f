"""Tables in Parquet files, read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import limits
from bmcli.data import files, pages, tables
from bmcli.data.files import File
from bmcli.data.sources import SourceRows, TableOptions, TablePaths
from bmcli.errors import BmcliError
from bmcli.quoting import brief, quoted
from bmcli.raw_columns import UnreadableColumn

if TYPE_CHECKING:
    import pyarrow as pa


class Options(TableOptions):
    """Parquet: numbers, text, dates, files as bytes, and lists of numbers of equal length, which become arrays.

    Fields of nested records become columns such as `address.city`.
    """

    ENDINGS = (".parquet", ".pq")

    kind: Literal["parquet"] = "parquet"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.parquet, a list of these, or one of these per split."
    )


def read(options: Options) -> SourceRows:
    """Read all rows of all files. Columns are matched by name, and their types must have a common type."""
    sources = options.tables()
    first = sources[0][1]
    types = _read_types(first)
    unreadable: dict[str, UnreadableColumn] = {}
    for _, path in sources[1:]:
        types = _unify_types(first, types, path, _read_types(path), unreadable)
    sizes = [_read_declared_sizes(path) for _, path in sources]
    tables.check_free_disk(sum(each.decoded_bytes for each in sizes))
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for (split, path), each in zip(sources, sizes, strict=True):
            count = 0
            for batch in _read_batches(path, each):
                count += len(batch)
                yield batch
            lengths.append((split, path, count))

    spilled = tables.spill_batches(batches())
    return tables.build_rows(
        spilled,
        types,
        lengths,
        lambda path, row: f"{files.format_path(path)} row {row + 1}",
        unreadable=unreadable,
    )


def _read_types(path: File) -> dict[str, pa.DataType]:
    """Read the types of a file's columns by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_file(path) as file:
        try:
            parquet = pq.ParquetFile(file)
            tables.check_count(path, parquet.metadata.num_columns)
            schema = parquet.schema_arrow
            count = parquet.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged_file_error(path, error) from None
    deepest = max((_count_levels(field.type) for field in schema), default=0)
    if deepest > limits.MAX_NESTING:
        raise files.file_error(
            path,
            f"a column is nested {deepest} levels deep, expected at most {limits.MAX_NESTING}.",
            "Leave it out of the file.",
        )
    if not count:
        raise files.file_error(path, "has no rows.")
    # Flattening an empty batch gives the names and types of all batches without reading rows.
    empty = tables.flatten_batch(pa.RecordBatch.from_pylist([], schema=schema))
    if not empty.schema.names:
        raise files.file_error(path, "has no columns.")
    tables.check_names(path, empty.schema.names)
    return {field.name: field.type for field in empty.schema}


def _unify_types(
    first: File,
    types: dict[str, pa.DataType],
    path: File,
    others: dict[str, pa.DataType],
    unreadable: dict[str, UnreadableColumn],
) -> dict[str, pa.DataType]:
    """Return the types that hold the columns of the files so far and of another file.

    Args:
        unreadable: Filled with the columns that have no such type.
    """
    tables.check_same_columns(first, types, path, others)
    common = {name: tables.find_common_type(kind, others[name]) for name, kind in types.items()}
    for name, kind in common.items():
        if kind is None:
            error = files.file_error(
                path,
                f"column {quoted(name)} is of type {brief(str(others[name]))}, "
                f"in {files.format_path(first)} of type {brief(str(types[name]))}.",
                "Save it with the same type in every file.",
            )
            unreadable.setdefault(name, UnreadableColumn.of(error))
    return {name: kind or types[name] for name, kind in common.items()}


def _count_levels(kind: pa.DataType) -> int:
    """Count the levels of lists and records of a type. Arrow itself refuses files with 100, so this recursion ends."""
    return max((1 + _count_levels(kind.field(position).type) for position in range(kind.num_fields)), default=0)


def _read_declared_sizes(path: File) -> pages.DeclaredSizes:
    """Read the declared sizes of a file and of its rows.

    Raises:
        BmcliError: The file is damaged, unpacks to far more than an ordinary file does, or its pages do not fit into
            memory.
    """
    import pyarrow as pa

    with files.open_file(path) as file:
        try:
            sizes = pages.read_declared_sizes(files.format_path(path), file, by_headers=isinstance(path, Path))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged_file_error(path, error) from None
    files.check_memory(path, sizes.pages_bytes, "Save it with smaller pages.")
    return sizes


def _read_batches(path: File, sizes: pages.DeclaredSizes) -> Iterator[pa.RecordBatch]:
    """Read the rows in batches that take little memory, however long their texts are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A dictionary page stores a long text once for many rows; decoded, each row has a copy of it.
    rows = max(1, min(pages.BATCH_ROWS, limits.BATCH_BYTES // max(1, sizes.row_bytes)))
    decoded_bytes = 0
    with files.open_file(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(rows):
                # The headers are only lower bounds, so the decoded bytes are counted, too.
                flat = tables.flatten_batch(batch)
                decoded_bytes += flat.nbytes
                limits.check_growth(files.format_path(path), sizes.file_bytes, decoded_bytes)
                yield flat
        except (pa.ArrowException, OSError) as error:
            raise _damaged_file_error(path, error) from None


def _damaged_file_error(path: File, error: Exception) -> BmcliError:
    reason = brief(str(error).partition("\n")[0].rstrip("."))
    return files.file_error(path, f"is not an intact Parquet file: {reason}.")
