"""Tables in Parquet files, read a batch of rows at a time."""

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
    """All rows of all files. Columns are matched by name, and must be of types that one type can hold."""
    sources = options.tables()
    first = sources[0][1]
    types = _types(first)
    for _, path in sources[1:]:
        types = _unify_types(first, types, path, _types(path))
    announced = [_announced(path) for _, path in sources]
    tables.check_room(sum(each.decoded_bytes for each in announced))
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for (split, path), each in zip(sources, announced, strict=True):
            count = 0
            for batch in _batches(path, each):
                count += len(batch)
                yield batch
            lengths.append((split, path, count))

    spilled = tables.spill_batches(batches())
    return tables.build_rows(spilled, types, lengths, lambda path, row: f"{files.format_path(path)} row {row + 1}")


def _types(path: File) -> dict[str, pa.DataType]:
    """The types of a file's columns by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_file(path) as file:
        try:
            opened = pq.ParquetFile(file)
            tables.check_count(path, opened.metadata.num_columns)
            schema = opened.schema_arrow
            count = opened.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged_file_error(path, error) from None
    deepest = max((_levels(field.type) for field in schema), default=0)
    if deepest > limits.MAX_NESTING:
        raise BmcliError(
            f"{files.format_path(path)}: a column is nested {deepest} levels deep, of {limits.MAX_NESTING} allowed.",
            path=files.RECIPE_PATH,
            suggestion="Leave it out of the file.",
        )
    if not count:
        raise BmcliError(f"{files.format_path(path)}: has no rows.", path=files.RECIPE_PATH)
    empty = tables.flatten_batch(pa.RecordBatch.from_pylist([], schema=schema))
    if not empty.schema.names:
        raise BmcliError(f"{files.format_path(path)}: has no columns.", path=files.RECIPE_PATH)
    tables.check_names(path, empty.schema.names)
    return {field.name: field.type for field in empty.schema}


def _unify_types(
    first: File, types: dict[str, pa.DataType], path: File, others: dict[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """The types that hold the columns of the files so far and of one more."""
    tables.check_same_columns(first, types, path, others)
    common = {name: tables.find_common_type(kind, others[name]) for name, kind in types.items()}
    for name, kind in common.items():
        if kind is None:
            raise BmcliError(
                f"{files.format_path(path)}: column {quoted(name)} is of type {brief(str(others[name]))}, "
                f"in {files.format_path(first)} of type {brief(str(types[name]))}.",
                path=files.RECIPE_PATH,
                suggestion="Save it as the same type in every file.",
            )
    return common


def _levels(kind: pa.DataType) -> int:
    """Lists and records that a value lies in, of which Arrow opens no file with 100."""
    return max((1 + _levels(kind.field(place).type) for place in range(kind.num_fields)), default=0)


def _announced(path: File) -> pages.Announced:
    """What the rows of a file take.

    Raises:
        BmcliError: The file is damaged, unpacks to far more than any honest one, or to more than memory can hold.
    """
    import pyarrow as pa

    with files.open_file(path) as file:
        try:
            found = pages.announced(files.format_path(path), file, by_headers=isinstance(path, Path))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged_file_error(path, error) from None
    files.check_memory(path, found.pages_bytes, "Save it with smaller pages.")
    return found


def _batches(path: File, announced: pages.Announced) -> Iterator[pa.RecordBatch]:
    """The rows, as many at a time as take little memory whatever their texts are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = max(1, min(pages.BATCH_ROWS, limits.BATCH_BYTES // max(1, announced.row_bytes)))
    decoded_bytes = 0
    with files.open_file(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(rows):
                flat = tables.flatten_batch(batch)
                decoded_bytes += flat.nbytes
                limits.check_growth(files.format_path(path), announced.file_bytes, decoded_bytes)
                yield flat
        except (pa.ArrowException, OSError) as error:
            raise _damaged_file_error(path, error) from None


def _damaged_file_error(path: File, error: Exception) -> BmcliError:
    reason = brief(str(error).partition("\n")[0].rstrip("."))
    return BmcliError(f"{files.format_path(path)}: is not an intact Parquet file: {reason}.", path=files.RECIPE_PATH)
