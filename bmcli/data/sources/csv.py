"""Tables as text: a header, then a row a line; gzip or not. Every cell is read as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from bmcli.data import files
from bmcli.data.sources import FilePaths, Rows, SourceOptions, by_split, located, split_names
from bmcli.errors import BmcliError
from bmcli.recipe.fields import fault

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 2**24


class Options(SourceOptions):
    """Comma-separated values, or another delimiter."""

    kind: Literal["csv"] = "csv"
    path: FilePaths = Field(description="A file, or one for each split; .gz is unpacked.")
    delimiter: str = Field(default=",", description='The character between cells; a tab is written as "\\t".')
    encoding: str = Field(default="utf-8", description="Text encoding, as Python names it.")
    missing: tuple[str, ...] = Field(
        default=("", "NA", "N/A", "n/a", "NaN", "nan", "null", "?"),
        description="Cells that mean there is no value; an empty cell always does.",
    )

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_one_character(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii() or value in '"\r\n':
            raise fault(
                "delimiter",
                f"expected one ASCII character, received {value!r}.",
                'A tab is written as "\\t".',
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            "a".encode(value)
        except (LookupError, UnicodeError):
            raise fault(
                "encoding", f"no text encoding {value!r}.", "Common ones: utf-8, latin-1, cp1252, utf-16."
            ) from None
        return value

    def files(self) -> tuple[Path, ...]:
        return tuple(path for _, path in by_split(self.path))


def read(options: Options) -> Rows:
    """All rows of all files; every file must have the columns of the first."""
    import pyarrow as pa

    tables = {(split, path): _table(path, options) for split, path in by_split(options.path)}
    (_, first), table = next(iter(tables.items()))
    for (_, path), other in tables.items():
        _check_same_columns(first, table, path, other)
    whole = pa.concat_tables([other.select(table.column_names) for other in tables.values()])
    lengths = {path: len(other) for (_, path), other in tables.items()}
    return Rows(
        columns=dict(zip(whole.column_names, whole.columns, strict=True)),
        split=split_names({split: len(other) for (split, _), other in tables.items()}),
        where=lambda row: _where(list(lengths.items()), row, options),
    )


def _table(path: Path, options: Options) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow

    data = _utf8(path, options.encoding)
    header = _header(path, data, options.delimiter)
    if len(list(islice(_records(data, options.delimiter), 2))) < 2:
        raise BmcliError(f"{files.shown(path)}: has a header, but no rows.", path=files.RECIPE_PATH)
    try:
        table = arrow.read_csv(
            pa.BufferReader(data),
            read_options=arrow.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=arrow.ParseOptions(delimiter=options.delimiter, newlines_in_values=True),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                null_values=["", *options.missing],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        raise _explained(path, data, header, options.delimiter, error) from None
    _check_quotes(path, data, table, options)
    return table.rename_columns([name.strip() for name in header])


def _utf8(path: Path, encoding: str) -> bytes:
    """The file's bytes in UTF-8."""
    data = files.contents(path)
    try:
        text = data.decode(encoding)
        encoded = data if encoding.lower() in ("utf-8", "utf8") else text.encode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BmcliError(
            f"{files.shown(path)}:{line}  byte 0x{data[error.start]:02x} is not {encoding}.",
            path=files.RECIPE_PATH,
            suggestion="Save the file as UTF-8, or name its encoding, as `encoding: latin-1`.",
        ) from None
    except UnicodeError as error:
        raise BmcliError(f"{files.shown(path)}: is not {encoding}: {error}.", path=files.RECIPE_PATH) from None
    if not text.strip("\ufeff \t\r\n"):
        raise BmcliError(f"{files.shown(path)}: is empty.", path=files.RECIPE_PATH)
    return encoded


def _header(path: Path, data: bytes, delimiter: str) -> list[str]:
    """Column names as they stand in the file; none is empty or there twice."""
    line, header = next(_records(data, delimiter))
    names = [name.strip() for name in header]
    for position, name in enumerate(names):
        if not name:
            raise BmcliError(f"{files.shown(path)}:{line}  column {position + 1} has no name.", path=files.RECIPE_PATH)
        if name in names[:position]:
            raise BmcliError(f"{files.shown(path)}:{line}  two columns are named '{name}'.", path=files.RECIPE_PATH)
    return header


def _records(data: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, with the line each begins in; a quoted cell may span lines."""
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _explained(path: Path, data: bytes, header: list[str], delimiter: str, error: Exception) -> BmcliError:
    """Why a table could not be parsed, with the line of the first record that does not fit the header."""
    for line, cells in _records(data, delimiter):
        if len(cells) != len(header):
            return BmcliError(
                f"{files.shown(path)}:{line}  expected {len(header)} cells, received {len(cells)}.",
                path=files.RECIPE_PATH,
                suggestion="Put cells that contain the delimiter in double quotes, and close every quote.",
            )
    return BmcliError(f"{files.shown(path)}: {str(error).splitlines()[0]}", path=files.RECIPE_PATH)


def _check_quotes(path: Path, data: bytes, table: pa.Table, options: Options) -> None:
    """Refuses a quote that is never closed: the parser would take all rows after it for one cell."""
    last = table.columns[-1][len(table) - 1].as_py() or ""
    if data.count(b'"') % 2 and "\n" in last and not data.rstrip().endswith(b'"'):
        line = _line(data, len(table) - 1, options.delimiter)
        raise BmcliError(
            f"{files.shown(path)}:{line}  a quote is opened here and never closed.", path=files.RECIPE_PATH
        )


def _check_same_columns(first: Path, table: pa.Table, path: Path, other: pa.Table) -> None:
    differing = sorted(set(table.column_names) ^ set(other.column_names))
    if differing:
        has, lacks = (first, path) if differing[0] in table.column_names else (path, first)
        raise BmcliError(
            f"{files.shown(lacks)}:1  has no column '{differing[0]}', which {files.shown(has)} has.",
            path=files.RECIPE_PATH,
        )


def _line(data: bytes, row: int, delimiter: str) -> int:
    return next(islice(_records(data, delimiter), row + 1, None))[0]


def _where(lengths: list[tuple[Path, int]], row: int, options: Options) -> str:
    """File and line of a row. Lines are counted only for a fault, since quoted cells may span several."""
    path, row = located(lengths, row)
    try:
        return f"{files.shown(path)}:{_line(_utf8(path, options.encoding), row, options.delimiter)}"
    except (BmcliError, StopIteration):  # The file has changed since.
        return f"{files.shown(path)} row {row + 1}"
