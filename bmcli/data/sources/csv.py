"""Tables as delimited text, with or without a header and gzip. Every cell is read as text."""

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
_SAMPLE = 2**16  # characters from which the delimiter is guessed
_DELIMITERS = ",;\t|"
# UTF-32 comes first: its mark begins with that of UTF-16.
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
    def _check_columns(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("header"):
            raise fault("columns", "`columns` has no effect with a header.", "Write `header: false` beside it.")
        if twice := tables.find_repeated(value or ()):
            raise fault("columns", f"expected different names, received {quoted(twice)} twice.")
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
    """Read all rows of all files; every file must have the columns of the first."""
    return _read(options, None)


def read_well_formed(options: Options) -> SourceRows:
    """Read all rows as `read` does, but leave out records with too few or too many cells, and count them."""
    malformed: list[int] = []
    rows = _read(options, malformed)
    return replace(rows, malformed_records=len(malformed))


def _read(options: Options, malformed: list[int] | None) -> SourceRows:
    """Read all rows.

    Args:
        malformed: Filled with the number of cells of each record that is left out; None to raise a fault instead.
    """
    import pyarrow as pa

    sources = options.tables()
    options, detected = _resolve_auto_options(sources[0][1], options)
    names = _read_names(sources[0][1], options)
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for split, path in sources:
            tables.check_same_columns(sources[0][1], names, path, _read_names(path, options), line=1)
            count = 0
            for batch in _read_batches(path, options, malformed):
                count += len(batch)
                yield batch.select(names)
            lengths.append((split, path, count))

    spilled = tables.spill_batches(batches())
    types = dict.fromkeys(names, pa.string())
    if not spilled:
        raise files.file_error(sources[0][1], f"no record has {len(names)} cells like the header.")
    width = None if malformed is None else len(names)
    return tables.build_rows(
        spilled, types, lengths, lambda path, row: _describe_row(path, row, options, width), detected
    )


def _resolve_auto_options(path: File, options: Options) -> tuple[Options, dict[str, str]]:
    """Replace `auto` by the values detected in the first file; also return these alone."""
    detected = {}
    if options.encoding == "auto":
        detected["encoding"] = _detect_encoding(path)
    if options.delimiter == "auto":
        detected["delimiter"] = _detect_delimiter(path, options.model_copy(update=detected))
    return options.model_copy(update=detected), detected


def _detect_encoding(path: File) -> str:
    """Return the encoding of a file's byte order mark, or UTF-8."""
    start = next(files.read_chunks(path), b"")[:4]
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")


def _detect_delimiter(path: File, options: Options) -> str:
    """Return the delimiter that gives the first rows equal numbers of cells, and among these the most cells."""
    text = _open_text(path, options.encoding)
    try:
        sample = text.read(_SAMPLE)
    except UnicodeError as error:
        raise _explain_error(path, [], options.model_copy(update={"delimiter": ","}), error) from None

    def score(delimiter: str) -> tuple[bool, int]:
        records = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, **_get_quote_options(options))
        widths = [len(cells) for cells in islice(records, 100) if cells]
        if len(sample) == _SAMPLE and len(widths) > 1:
            del widths[-1]  # The sample may end within this record.
        return bool(widths) and widths[0] > 1 and len(set(widths)) == 1, max(widths[:1], default=0)

    csv.field_size_limit(2**31 - 1)  # The default limit of 128 KiB refuses long texts; Arrow has none.
    return max(_DELIMITERS, key=score)


def _get_quote_options(options: Options) -> dict[str, Any]:
    return {"quoting": csv.QUOTE_NONE} if options.quote == "none" else {"quotechar": options.quote}


def _read_names(path: File, options: Options) -> list[str]:
    """Read the column names from the header, or number the columns; none is empty or repeated."""
    line, cells = _read_first_records(path, options)[0]
    tables.check_count(path, len(cells), line=line)
    if options.header:
        names = [name.strip() for name in cells]
        tables.check_names(path, names, line)
        return names
    if options.columns is not None and len(options.columns) != len(cells):
        raise BmcliError(
            f"{files.format_path(path)}:{line}  has {len(cells)} cells, but `columns` lists {len(options.columns)} "
            "names.",
            path="data.source.columns",
        )
    return list(options.columns or (f"column_{position + 1}" for position in range(len(cells))))


def _read_first_records(path: File, options: Options) -> list[tuple[int, list[str]]]:
    """Read the first records of a file, two at most, and check that there is a row."""
    try:
        first = list(islice(_read_records(path, options), 2))
    except (UnicodeError, csv.Error) as error:
        raise _explain_error(path, [], options, error) from None
    if not first:
        raise files.file_error(path, "is empty.")
    line, cells = first[0]
    if any("\0" in cell for cell in cells):
        raise files.file_error(
            path,
            f"contains zero bytes, so it is not {options.encoding} text.",
            "Set its encoding, for example `encoding: utf-16-le`.",
            line,
        )
    if options.header and len(first) < 2:
        raise files.file_error(path, "has a header, but no rows.")
    return first


def _read_batches(path: File, options: Options, malformed: list[int] | None) -> Iterator[pa.RecordBatch]:
    """Read the rows of a file in batches."""
    import pyarrow as pa
    import pyarrow.csv

    names, header = _read_names(path, options), _read_first_records(path, options)[0][1]
    quotes = _QuoteCounter(options.quote)
    last = ""

    def skip(record: Any) -> str:
        assert malformed is not None
        malformed.append(record.actual_columns)
        return "skip"

    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(files.ChunkStream(quotes.count_quotes(_read_as_utf8(path, options.encoding))), mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                block_size=_BLOCK_BYTES, column_names=None if options.header else names
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=options.delimiter,
                quote_char=False if options.quote == "none" else options.quote,
                newlines_in_values=options.quote != "none",
                invalid_row_handler=None if malformed is None else skip,
            ),
            # Without types Arrow guesses them from the first block: 007 would become 7, and a later word an error.
            convert_options=pyarrow.csv.ConvertOptions(
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
    # A quote that is never closed makes everything after it one cell, so the last cell contains line breaks.
    if quotes.is_open and "\n" in last:
        *_, (line, _) = _read_records(path, options)
        raise files.file_error(path, "a quote is opened here and never closed.", line=line)


class _QuoteCounter:
    """Count the quotes in the bytes of a file, to find an unclosed one: the parser accepts it as the last cell."""

    def __init__(self, quote: str) -> None:
        self._quote = quote.encode()
        self._count, self._end = 0, b""

    def count_quotes(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks unchanged, and count their quotes."""
        for chunk in chunks:
            self._count += chunk.count(self._quote)
            self._end = chunk[-64:].rstrip() or self._end
            yield chunk

    @property
    def is_open(self) -> bool:
        """Whether a quote is left open at the end of the file."""
        return self._count % 2 == 1 and not self._end.endswith(self._quote)


def _read_as_utf8(path: File, encoding: str) -> Iterator[bytes]:
    """Read the bytes of a file recoded to UTF-8; bytes that are UTF-8 already are not checked here."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        yield from files.read_chunks(path)
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in files.read_chunks(path):
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()  # raises if the file ends within a character


def _open_text(path: File, encoding: str) -> io.TextIOWrapper:
    # "-sig" skips a byte order mark, which would become part of the first column name.
    return io.TextIOWrapper(
        io.BufferedReader(files.ChunkStream(_read_as_utf8(path, encoding))), "utf-8-sig", newline=""
    )


def _read_records(path: File, options: Options) -> Iterator[tuple[int, list[str]]]:
    """Read the records that are not blank, with the line on which each begins; a quoted cell may span lines."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(_open_text(path, options.encoding), delimiter=options.delimiter, **_get_quote_options(options))
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _explain_error(path: File, header: list[str], options: Options, error: Exception) -> BmcliError:
    """Find why Arrow could not parse a table, with the line of the first wrong byte or record."""
    _check_encoding(path, options.encoding)
    try:
        for line, cells in _read_records(path, options) if header else ():
            size = len(options.delimiter.join(cells).encode(errors="replace"))
            if size > _BLOCK_BYTES:
                return files.file_error(
                    path,
                    f"a row of {size:,} bytes, expected at most {_BLOCK_BYTES:,}.",
                    "Keep such texts in separate files, or save the table as Parquet.",
                    line,
                )
            if len(cells) != len(header):
                return files.file_error(
                    path,
                    f"expected {len(header)} cells, received {len(cells)}.",
                    "Put cells that contain the delimiter in double quotes, and close every quote.",
                    line,
                )
    except csv.Error as second:
        error = second
    return files.file_error(path, brief(str(error).splitlines()[0]))


def _check_encoding(path: File, encoding: str) -> None:
    """Raise BmcliError with the line of the first byte that is invalid in the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    try:
        for chunk in chain(files.read_chunks(path), [b""]):
            decoder.decode(chunk, final=not chunk).encode()
            lines += chunk.count(b"\n")
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start)
        raise files.file_error(
            path,
            f"byte 0x{error.object[error.start]:02x} is not {encoding}.",
            "Save the file as UTF-8, or set its encoding, for example `encoding: latin-1`.",
            line,
        ) from None
    except UnicodeError as error:
        raise files.file_error(path, f"is not {encoding}: {error}.") from None


def _describe_row(path: File, row: int, options: Options, width: int | None) -> str:
    """Return file and line of a row.

    Lines are counted only for a fault: quoted cells may span several, so that the whole file has to be parsed.

    Args:
        width: Number of cells of a record that is a row; None if all records are rows.
    """
    try:
        # Records that were left out as malformed do not count as rows.
        rows = ((line, cells) for line, cells in _read_records(path, options) if width in (None, len(cells)))
        return f"{files.format_path(path)}:{next(islice(rows, row + options.header, None))[0]}"
    except (BmcliError, UnicodeError, StopIteration):  # The file has changed since.
        return f"{files.format_path(path)} row {row + 1}"
