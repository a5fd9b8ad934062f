"""Tables as text: a header, then a row a line; gzip or not. Every cell is read as text."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bmcli.data import files, tables
from bmcli.data.files import File
from bmcli.data.sources import TAB_SEPARATED_ENDINGS, SourceRows, TableOptions, TablePaths
from bmcli.errors import BmcliError
from bmcli.quoting import brief, quoted
from bmcli.recipe.fields import fault

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 2**24
_SAMPLE = 2**16  # characters that the delimiter is guessed from
_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Options(TableOptions):
    """Comma-separated values, or values with another delimiter."""

    ENDINGS = (".csv", *TAB_SEPARATED_ENDINGS)

    kind: Literal["csv"] = "csv"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.csv, a list of these, or one of these per split; "
        ".gz files are decompressed."
    )
    delimiter: str = Field(
        default="auto",
        description='Delimiter; "\\t" is a tab. `auto` picks the comma, semicolon, tab or bar that splits the '
        "first rows consistently.",
    )
    quote: Literal['"', "'", "none"] = Field(
        default='"', description="Quote character around cells that contain delimiters; doubled inside of such cells."
    )
    header: bool = Field(default=True, description="Whether the first row contains the column names.")
    columns: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None, description="Column names of files without a header; by default column_1, column_2 and so on."
    )
    encoding: str = Field(
        default="auto",
        description="Text encoding, by its Python name. `auto` is UTF-8, or UTF-16 for files with its byte order mark.",
    )
    missing: tuple[str, ...] = Field(
        default=("", "NA", "N/A", "n/a", "NaN", "nan", "null", "?"),
        description="Cells that mark a missing value, in addition to empty cells.",
    )

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_one_character(cls, value: str) -> str:
        if value != "auto" and (len(value) != 1 or not value.isascii() or value in "\"'\r\n"):
            raise fault(
                "delimiter",
                f"expected one ASCII character, received {value!r}.",
                'A tab is written as "\\t".',
            )
        return value

    @field_validator("columns")
    @classmethod
    def _columns_differ(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("header"):
            raise fault("columns", "`columns` does nothing with a header.", "Write `header: false` beside it.")
        if twice := tables.repeated(value or ()):
            raise fault("columns", f"{quoted(twice)} is there twice.")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            "a".encode("utf-8" if value == "auto" else value)
        except (LookupError, UnicodeError):
            raise fault(
                "encoding", f"no text encoding {value!r}.", "Common ones: utf-8, latin-1, cp1252, utf-16."
            ) from None
        return value


def read(options: Options) -> SourceRows:
    """All rows of all files; every file must have the columns of the first."""
    return _read(options, None)


def read_unbroken(options: Options) -> SourceRows:
    """The same, but records of too few or too many cells are left out and counted."""
    broken: list[int] = []
    rows = _read(options, broken)
    return replace(rows, broken=len(broken))


def _read(options: Options, broken: list[int] | None) -> SourceRows:
    """The rows.

    Args:
        broken: Takes the number of cells of each record that is left out for it; None if that is a fault.
    """
    import pyarrow as pa

    sources = options.tables()
    options, found = _resolve_auto_options(sources[0][1], options)
    names = _read_names(sources[0][1], options)
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for split, path in sources:
            tables.check_same_columns(sources[0][1], names, path, _read_names(path, options), ":1")
            count = 0
            for batch in _batches(path, options, broken):
                count += len(batch)
                yield batch.select(names)
            lengths.append((split, path, count))

    spilled = tables.spill_batches(batches())
    types = dict.fromkeys(names, pa.string())
    if not spilled:
        raise BmcliError(
            f"{files.format_path(sources[0][1])}: no record has {len(names)} cells as the header.",
            path=files.RECIPE_PATH,
        )
    width = None if broken is None else len(names)
    return tables.build_rows(spilled, types, lengths, lambda path, row: _describe_row(path, row, options, width), found)


def _resolve_auto_options(path: File, options: Options) -> tuple[Options, dict[str, str]]:
    """The options with what the first file shows in the place of `auto`, and that alone."""
    found = {}
    if options.encoding == "auto":
        found["encoding"] = _detect_encoding(path)
    if options.delimiter == "auto":
        found["delimiter"] = _detect_delimiter(path, options.model_copy(update=found))
    return options.model_copy(update=found), found


def _detect_encoding(path: File) -> str:
    """The encoding whose mark a file begins with, or UTF-8."""
    start = next(files.read_chunks(path), b"")[:4]
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")


def _detect_delimiter(path: File, options: Options) -> str:
    """The delimiter that gives the first rows the same number of cells, and the most of them."""
    text = _text(path, options.encoding)
    try:
        sample = text.read(_SAMPLE)
    except UnicodeError as error:
        raise _explain_error(path, [], options.model_copy(update={"delimiter": ","}), error) from None

    def evenness(delimiter: str) -> tuple[bool, int]:
        found = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, **_quoting(options))
        widths = [len(cells) for cells in islice(found, 100) if cells]
        if len(sample) == _SAMPLE and len(widths) > 1:
            del widths[-1]  # It may be cut.
        return bool(widths) and widths[0] > 1 and len(set(widths)) == 1, max(widths[:1], default=0)

    csv.field_size_limit(2**31 - 1)
    return max(_DELIMITERS, key=evenness)


def _quoting(options: Options) -> dict[str, Any]:
    return {"quoting": csv.QUOTE_NONE} if options.quote == "none" else {"quotechar": options.quote}


def _read_names(path: File, options: Options) -> list[str]:
    """Column names; none is empty or there twice."""
    first = _first_records(path, options)
    tables.check_count(path, len(first[0][1]), line=f":{first[0][0]}")
    if not options.header:
        width = len(first[0][1])
        if options.columns is not None and len(options.columns) != width:
            raise BmcliError(
                f"{files.format_path(path)}:{first[0][0]}  has {width} cells, but "
                f"{len(options.columns)} columns are named.",
                path="data.source.columns",
            )
        return list(options.columns or (f"column_{position + 1}" for position in range(width)))
    line, names = first[0][0], [name.strip() for name in first[0][1]]
    for position, name in enumerate(names):
        if not name:
            raise BmcliError(
                f"{files.format_path(path)}:{line}  column {position + 1} has no name.", path=files.RECIPE_PATH
            )
    if twice := tables.repeated(names):
        raise BmcliError(
            f"{files.format_path(path)}:{line}  two columns are named {quoted(twice)}.", path=files.RECIPE_PATH
        )
    return names


def _first_records(path: File, options: Options) -> list[tuple[int, list[str]]]:
    """The first two records of a file that has a row."""
    try:
        first = list(islice(_records(path, options), 2))
    except (UnicodeError, csv.Error) as error:
        raise _explain_error(path, [], options, error) from None
    if not first:
        raise BmcliError(f"{files.format_path(path)}: is empty.", path=files.RECIPE_PATH)
    if any("\0" in cell for cell in first[0][1]):
        raise BmcliError(
            f"{files.format_path(path)}:{first[0][0]}  holds zero bytes, as no {options.encoding} text does.",
            path=files.RECIPE_PATH,
            suggestion="Name its encoding, as `encoding: utf-16-le`.",
        )
    if options.header and len(first) < 2:
        raise BmcliError(f"{files.format_path(path)}: has a header, but no rows.", path=files.RECIPE_PATH)
    return first


def _batches(path: File, options: Options, broken: list[int] | None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, a block at a time."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    names, header = _read_names(path, options), _first_records(path, options)[0][1]
    quotes = _QuoteCounter(options.quote)
    last = ""

    def ragged(record: Any) -> str:
        broken.append(record.actual_columns)  # type: ignore[union-attr]
        return "skip"

    try:
        reader = arrow.open_csv(
            pa.PythonFile(files.ChunkStream(quotes.count_quotes(_read_as_utf8(path, options.encoding))), mode="r"),
            read_options=arrow.ReadOptions(block_size=_BLOCK_BYTES, column_names=None if options.header else names),
            parse_options=arrow.ParseOptions(
                delimiter=options.delimiter,
                quote_char=False if options.quote == "none" else options.quote,
                newlines_in_values=options.quote != "none",
                invalid_row_handler=None if broken is None else ragged,
            ),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(header if options.header else names, pa.string()),
                null_values=["", *options.missing],
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            if len(batch):
                last = batch.columns[-1][-1].as_py() or ""
                yield pa.RecordBatch.from_arrays(batch.columns, names)
    except (pa.ArrowException, UnicodeError) as error:
        raise _explain_error(path, header, options, error) from None
    if quotes.is_open and "\n" in last:
        raise _unclosed_quote_error(path, options)


class _QuoteCounter:
    """Watches whether the quotes in the bytes of a file pair up: the parser takes all after an open one for a cell."""

    def __init__(self, quote: str) -> None:
        self._quote = quote.encode()
        self._count, self._end = 0, b""

    def count_quotes(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for piece in chunks:
            self._count += piece.count(self._quote)
            self._end = piece[-64:].rstrip() or self._end
            yield piece

    @property
    def is_open(self) -> bool:
        return self._count % 2 == 1 and not self._end.endswith(self._quote)


def _read_as_utf8(path: File, encoding: str) -> Iterator[bytes]:
    """The file's bytes in UTF-8; what is UTF-8 already is not checked."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        yield from files.read_chunks(path)
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in files.read_chunks(path):
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()


def _text(path: File, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedReader(files.ChunkStream(_read_as_utf8(path, encoding))), "utf-8-sig", newline=""
    )


def _records(path: File, options: Options) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, with the line each begins in; a quoted cell may span lines."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(_text(path, options.encoding), delimiter=options.delimiter, **_quoting(options))
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _explain_error(path: File, header: list[str], options: Options, error: Exception) -> BmcliError:
    """Why a table could not be parsed, with the line of the first byte or record that is wrong."""
    _check_encoding(path, options.encoding)
    try:
        for line, cells in _records(path, options) if header else ():
            size = len(options.delimiter.join(cells).encode(errors="replace"))
            if size > _BLOCK_BYTES:
                return BmcliError(
                    f"{files.format_path(path)}:{line}  a row of {size:,} bytes, expected at most {_BLOCK_BYTES:,}.",
                    path=files.RECIPE_PATH,
                    suggestion="Keep such texts in files of their own, or save the table as Parquet.",
                )
            if len(cells) != len(header):
                return BmcliError(
                    f"{files.format_path(path)}:{line}  expected {len(header)} cells, received {len(cells)}.",
                    path=files.RECIPE_PATH,
                    suggestion="Put cells that contain the delimiter in double quotes, and close every quote.",
                )
    except csv.Error as unclear:
        error = unclear
    return BmcliError(f"{files.format_path(path)}: {brief(str(error).splitlines()[0])}", path=files.RECIPE_PATH)


def _check_encoding(path: File, encoding: str) -> None:
    """Raises a BmcliError with the line of the first byte that is not of the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    try:
        for chunk in chain(files.read_chunks(path), [b""]):
            decoder.decode(chunk, final=not chunk).encode()
            lines += chunk.count(b"\n")
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start)
        raise BmcliError(
            f"{files.format_path(path)}:{line}  byte 0x{error.object[error.start]:02x} is not {encoding}.",
            path=files.RECIPE_PATH,
            suggestion="Save the file as UTF-8, or name its encoding, as `encoding: latin-1`.",
        ) from None
    except UnicodeError as error:
        raise BmcliError(f"{files.format_path(path)}: is not {encoding}: {error}.", path=files.RECIPE_PATH) from None


def _unclosed_quote_error(path: File, options: Options) -> BmcliError:
    *_, (line, _) = _records(path, options)
    return BmcliError(
        f"{files.format_path(path)}:{line}  a quote is opened here and never closed.", path=files.RECIPE_PATH
    )


def _describe_row(path: File, row: int, options: Options, width: int | None) -> str:
    """File and line of a row. Lines are counted only for a fault, since quoted cells may span several.

    Args:
        width: Cells of a record that is a row; None if all are.
    """
    try:
        rows = ((line, cells) for line, cells in _records(path, options) if width in (None, len(cells)))
        return f"{files.format_path(path)}:{next(islice(rows, row + options.header, None))[0]}"
    except (BmcliError, UnicodeError, StopIteration):  # The file has changed since.
        return f"{files.format_path(path)} row {row + 1}"
