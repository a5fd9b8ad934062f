"""Tables as delimited text, with or without a header and gzip. Every cell is read as text."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bmcli.data import delimited, dialects, files, tables
from bmcli.data.delimited import EncodingError, LineCounter, TextFormat
from bmcli.data.dialects import WHITESPACE, Choices
from bmcli.data.files import File
from bmcli.data.sources import DELIMITED_ENDINGS, SourceRows, TableOptions, TablePaths
from bmcli.errors import BmcliError
from bmcli.quoting import brief, quoted
from bmcli.raw_columns import UNNAMED
from bmcli.recipe.fields import fault

if TYPE_CHECKING:
    import pyarrow as pa

_COMMENTS = ("#", "//", "--")  # what often begins a line that is no row
_BLOCK_BYTES = 2**24
_ENCODING_SAMPLE = 2**16  # bytes
_FIRST_RECORDS = 50  # records that are compared with the header
_SWALLOWED_ROWS = 5  # from which on lines that look like rows are no accident


class Options(TableOptions):
    """Comma-separated values, or values with another delimiter."""

    ENDINGS = (".csv", *DELIMITED_ENDINGS)

    kind: Literal["csv"] = "csv"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.csv, a list of these, or one of these per split; "
        ".gz files are decompressed."
    )
    delimiter: str = Field(
        default="auto",
        description='Delimiter; "\\t" is a tab, `whitespace` any number of blanks. `auto` picks what splits the rows '
        "into equal numbers of cells that hold one value each.",
    )
    quote: Literal["auto", '"', "'", "none"] = Field(
        default="auto",
        description="Quote character around cells that contain delimiters; doubled inside of such cells. `auto` reads "
        "quotes as ordinary characters (`none`) where they would join rows.",
    )
    header: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether the first row contains the column names; `auto` compares it with the rows below it.",
    )
    skip_lines: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = Field(
        default="auto",
        description="Number of lines above the table, such as a title. `auto` skips comments, titles, and Excel's "
        "`sep=;`, by which rows have fewer cells than those below.",
    )
    columns: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None, description="Column names of files without a header; by default column_1, column_2 and so on."
    )
    encoding: str = Field(
        default="auto",
        description="Text encoding, by its Python name. `auto` is UTF-8, UTF-16 for files with its byte order mark, or "
        "where a file is not UTF-8 the one that its letters look like: cp1252 (Western European), or one of Chinese, "
        "Japanese, Korean and Cyrillic texts.",
    )
    missing: tuple[str, ...] = Field(
        default=("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "?"),
        description="Cells that mark a missing value, in addition to empty cells.",
    )

    @field_validator("delimiter")
    @classmethod
    def _delimiter_is_one_character(cls, value: str) -> str:
        if value not in ("auto", WHITESPACE) and (len(value) != 1 or not value.isascii() or value in "\"'\r\n"):
            raise fault(
                "delimiter",
                f"expected one ASCII character, received {value!r}.",
                'A tab is written as "\\t", any number of blanks as "whitespace".',
            )
        return value

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("header") is True:
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


@dataclass(frozen=True)
class _Table:
    """A file of the source, and how it is read.

    Args:
        names: Names of the cells of a row.
        line: Line of the header, or of the first row if there is no header.
        above: Number of lines above the first row.
    """

    split: str | None
    path: File
    text_format: TextFormat
    names: list[str]
    line: int
    above: int

    def with_quote(self, quote: str) -> _Table:
        dialect = replace(self.text_format.dialect, quote=quote)
        return replace(self, text_format=replace(self.text_format, dialect=dialect))


@dataclass(frozen=True)
class _Rows:
    """Rows of all files, in memory-mapped tables.

    Args:
        lengths: Split, file and number of rows of each file.
        joins_lines: Whether there are more lines than rows, because quoted cells contain line breaks.
    """

    spilled: list[tables.MappedTable]
    lengths: list[tuple[str | None, File, int]]
    joins_lines: bool

    def __len__(self) -> int:
        return sum(length for _, _, length in self.lengths)


class _RecordError(BmcliError):
    """A record with too few or too many cells, or with a quote that is never closed."""


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
    guessed: dict[File, tuple[str, str]] = {}
    while True:
        try:
            return _read_files(options, guessed, malformed)
        except EncodingError as error:
            # Whether a file is UTF-8 is known only when all of it was read.
            if options.encoding != "auto" or error.path in guessed:
                raise
            encoding, script = delimited.guess_encoding(error.path)
            if not encoding:
                raise
            guessed[error.path] = encoding, script
            if malformed is not None:
                malformed.clear()


def _read_files(options: Options, guessed: Mapping[File, tuple[str, str]], malformed: list[int] | None) -> SourceRows:
    """Read all rows.

    Args:
        guessed: Encodings of files that are not UTF-8, with the names of their scripts.
    """
    import pyarrow as pa

    notes: list[str] = []
    sources = _resolve_tables(options, guessed, notes)
    rows, quote = _read_checked(sources, options, malformed, notes)
    sources = [each.with_quote(quote) for each in sources]
    first = sources[0]
    if not rows.spilled:
        raise files.file_error(first.path, f"no record has {len(first.names)} cells like the header.")
    by_path = {each.path: each for each in sources}
    built = tables.build_rows(
        rows.spilled,
        dict.fromkeys(first.names, pa.string()),
        rows.lengths,
        lambda path, row: _describe_row(by_path[path], row, malformed is not None),
        _list_detected(options, sources),
    )
    return replace(built, notes=tuple(notes))


def _list_detected(options: Options, sources: Sequence[_Table]) -> dict[str, Any]:
    """List the values of options that were `auto`, if they are the same for all files."""
    values = [{"encoding": each.text_format.encoding, **vars(each.text_format.dialect)} for each in sources]
    return {
        name: value
        for name, value in values[0].items()
        if getattr(options, name) == "auto" and all(each[name] == value for each in values)
    }


def _resolve_tables(options: Options, guessed: Mapping[File, tuple[str, str]], notes: list[str]) -> list[_Table]:
    """Find how to read each file: as the first one, unless it has no columns of these names then."""
    found: list[_Table] = []
    for split, path in options.tables():
        encoding = options.encoding if options.encoding != "auto" else delimited.detect_encoding(path)
        if path in guessed:
            encoding, script = guessed[path]
            example = "cp1250" if encoding == "cp1252" else "big5" if encoding == "gb18030" else "gbk"
            notes.append(
                f"{files.format_path(path)}: is not UTF-8, and was read as {encoding} ({script}). If letters look "
                f"wrong, set `encoding`, for example to {example}."
            )
        elif _is_misread_utf8(path, encoding):
            notes.append(f"{files.format_path(path)}: looks like UTF-8, but is read as {encoding}; see `encoding`.")
        table = _read_like_first(found[0], split, path, encoding, options) if found else None
        if table is None:
            known = options.model_copy(update={"header": found[0].text_format.dialect.header}) if found else options
            table = _detect_table(split, path, encoding, known, notes)
        found.append(table)
        named = [[name for name in each.names if not UNNAMED.fullmatch(name)] for each in (found[0], table)]
        tables.check_same_columns(found[0].path, named[0], path, named[1], table.line)
    return found


def _is_misread_utf8(path: File, encoding: str) -> bool:
    """Whether the start of a file has letters in UTF-8, but is read in an encoding of one byte for each letter."""
    if not codecs.lookup(encoding).name.startswith(("cp125", "iso8859", "mac")):
        return False
    start = next(files.read_chunks(path), b"")[:_ENCODING_SAMPLE]
    if start.isascii():
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _read_like_first(first: _Table, split: str | None, path: File, encoding: str, options: Options) -> _Table | None:
    """Read the columns of another file in the dialect of the first one; None if they have other names then."""
    try:
        table = _read_layout(split, path, TextFormat(encoding, first.text_format.dialect), options)
    except EncodingError:
        raise
    except BmcliError:
        return None  # The detection of its own dialect raises this again.
    differing = set(first.names).symmetric_difference(table.names)
    return table if all(map(UNNAMED.fullmatch, differing)) else None


def _detect_table(split: str | None, path: File, encoding: str, options: Options, notes: list[str]) -> _Table:
    """Detect the dialect of a file where the options leave it open, and read its columns."""
    header = False if options.columns is not None else options.header
    choices = Choices(
        delimiter=None if options.delimiter == "auto" else options.delimiter,
        quote=None if options.quote == "auto" else options.quote,
        skip_lines=None if options.skip_lines == "auto" else options.skip_lines,
        header=None if header == "auto" else header,
    )
    sample = delimited.read_sample(path, encoding)
    preferred = DELIMITED_ENDINGS.get(files.get_ending(path.name), "")
    detection = dialects.detect_dialect(sample.start, sample.later, sample.is_whole, choices, preferred)
    notes += [f"{files.format_path(path)}: {note}" for note in detection.notes]
    return _read_layout(split, path, TextFormat(encoding, detection.dialect), options)


def _read_layout(split: str | None, path: File, text_format: TextFormat, options: Options) -> _Table:
    """Read the column names from the header, or number the columns; none is empty or repeated."""
    records = _read_first_records(path, text_format)
    line, cells = records[0]
    tables.check_count(path, len(cells), line=line)
    if text_format.dialect.header:
        names = _name_columns(cells, [row for _, row in records[1:]])
        tables.check_names(path, names, line)
        return _Table(split, path, text_format, names, line, records[1][0] - 1)
    if options.columns is not None and len(options.columns) != len(cells):
        raise BmcliError(
            f"{files.format_path(path)}:{line}  has {len(cells)} cells, but `columns` lists {len(options.columns)} "
            "names.",
            path="data.source.columns",
        )
    names = list(options.columns or (f"column_{position + 1}" for position in range(len(cells))))
    return _Table(split, path, text_format, names, line, line - 1)


def _name_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each cell of a row; those that the header does not name are called as pandas calls them."""
    names = [name.strip() for name in header]
    width = len(rows[0])
    if names[0] == "#" and len(names) == width + 1:
        names = names[1:]  # NumPy writes names as a comment.
    elif names[0].startswith("# "):
        names[0] = names[0][1:].lstrip()
    elif len(names) == width + 1 and not names[-1]:
        names = names[:-1]
    elif dialects.has_trailing_delimiter(header, rows):
        names = [*names, ""]
    elif dialects.has_row_labels(header, rows):
        names = ["", *names]
    for position, name in enumerate(names):
        unnamed = f"Unnamed: {position}"
        names[position] = name or (f"{unnamed}.1" if unnamed in names else unnamed)
    return names


def _read_first_records(path: File, text_format: TextFormat) -> list[tuple[int, list[str]]]:
    """Read the first records of a file, and check that there is a row."""
    try:
        first = list(islice(delimited.read_records(path, text_format), _FIRST_RECORDS))
    except (UnicodeError, csv.Error) as error:
        delimited.check_encoding(path, text_format.encoding)
        raise files.file_error(path, brief(str(error).splitlines()[0])) from None
    if not first:
        raise files.file_error(path, "is empty.")
    line, cells = first[0]
    if any("\0" in cell for cell in cells):
        raise files.file_error(
            path,
            f"contains zero bytes, so it is not {text_format.encoding} text.",
            "Set its encoding, for example `encoding: utf-16-le`.",
            line,
        )
    if text_format.dialect.header and len(first) < 2:
        raise files.file_error(path, "has a header, but no rows.")
    return first


def _read_checked(
    sources: Sequence[_Table], options: Options, malformed: list[int] | None, notes: list[str]
) -> tuple[_Rows, str]:
    """Read all rows, as if quotes were ordinary characters if they join lines that are rows by themselves.

    Quotes that the options set stay quotes; the doubt is noted.

    Returns:
        The rows, and the quote character or `none`.
    """
    quote, width = sources[0].text_format.dialect.quote, len(sources[0].names)
    error, rows = None, None
    try:
        rows = _spill(sources, options, malformed)
    except _RecordError as found:
        error = found
    if rows is not None and not rows.joins_lines:
        return rows, quote
    plain = _read_without_quotes(sources, options) if quote != "none" else None
    if plain is not None and (rows is None or len(plain) > len(rows)):
        place, is_stray = _find_joined_lines(sources)
        is_certain = rows is None or is_stray or (width > 1 and len(plain) - len(rows) >= _SWALLOWED_ROWS)
        if is_certain and options.quote == "auto":
            notes.append(
                f"{place}: a quote that begins a cell does not end it, so that quotes were read as ordinary characters "
                "(`quote: none`), and every line is a row."
            )
            return plain, "none"
        if rows is not None and (is_certain or width > 1):
            notes.append(
                f"{place}: a quoted cell spans several lines, which are rows without quotes; this makes {len(rows):,} "
                f"rows of {len(plain):,} lines. If every line is a row, set `quote: none`."
            )
    if rows is None:
        assert error is not None
        raise error
    return rows, quote


def _read_without_quotes(sources: Sequence[_Table], options: Options) -> _Rows | None:
    """Read every line as a row; None if that gives some too few or too many cells, or leaves quotes around cells."""
    import pyarrow.compute as pc

    try:
        rows = _spill([each.with_quote("none") for each in sources], options, None)
    except _RecordError:
        return None
    quote = sources[0].text_format.dialect.quote
    opened, closed, ended = 0, 0, 0
    for column in (column for mapped in rows.spilled for column in mapped.table.columns):
        begins, ends = pc.starts_with(column, quote), pc.match_substring_regex(column, f".{quote}$")
        opened += pc.sum(begins).as_py() or 0
        closed += pc.sum(pc.and_(begins, ends)).as_py() or 0
        ended += pc.sum(ends).as_py() or 0
    # Lines of one cell are never too few or too many; there, cells of several lines end as often as they begin.
    has_quoted_cells = closed > opened / 2 or (len(sources[0].names) == 1 and ended > opened / 2)
    return None if has_quoted_cells else rows


def _find_joined_lines(sources: Sequence[_Table]) -> tuple[str, bool]:
    """Find the first quoted cell with line breaks, and whether text follows the end of such a cell."""
    place, is_stray = "", False
    for table in sources:
        reader_options = dialects.get_reader_options(
            table.text_format.dialect.delimiter, table.text_format.dialect.quote
        )
        for line, cells in delimited.read_records(table.path, table.text_format):
            if any("\n" in cell for cell in cells):
                place = place or f"{files.format_path(table.path)}:{line}"
                break
        text = delimited.read_table_bytes(table.path, table.text_format, table.above)
        lines = io.TextIOWrapper(io.BufferedReader(files.ChunkStream(text)), "utf-8", newline="")
        try:
            for _ in csv.reader(lines, strict=True, **reader_options):
                pass
        except csv.Error:
            is_stray = True
    return place or files.format_path(sources[0].path), is_stray


def _spill(sources: Sequence[_Table], options: Options, malformed: list[int] | None) -> _Rows:
    """Read the rows of all files to memory-mapped tables."""
    lengths: list[tuple[str | None, File, int]] = []
    names, joins_lines = sources[0].names, False

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal joins_lines
        for table in sources:
            count, broken = 0, len(malformed or ())
            counter = LineCounter(table.text_format.dialect.quote)
            for batch in _read_batches(table, options, counter, malformed):
                count += len(batch)
                # A file without the row labels of the first one has no column for them.
                yield batch.select([name for name in names if name in table.names])
            lengths.append((table.split, table.path, count))
            joins_lines = joins_lines or counter.lines > count + len(malformed or ()) - broken

    return _Rows(tables.spill_batches(batches()), lengths, joins_lines)


def _read_batches(
    table: _Table, options: Options, counter: LineCounter, malformed: list[int] | None
) -> Iterator[pa.RecordBatch]:
    """Read the rows of a file in batches."""
    import pyarrow as pa
    import pyarrow.csv

    dialect, names = table.text_format.dialect, table.names
    last = ""

    def skip(record: Any) -> str:
        assert malformed is not None
        malformed.append(record.actual_columns)
        return "skip"

    try:
        lines = counter.count(delimited.read_table_bytes(table.path, table.text_format, table.above))
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(files.ChunkStream(lines), mode="r"),
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=dialects.get_reader_options(dialect.delimiter, dialect.quote)["delimiter"],
                quote_char=False if dialect.quote == "none" else dialect.quote,
                newlines_in_values=dialect.quote != "none",
                invalid_row_handler=None if malformed is None else skip,
            ),
            # Without types Arrow guesses them from the first block: 007 would become 7, and a later word an error.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=["", *options.missing],
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            if len(batch):
                last = batch.columns[-1][-1].as_py() or ""
                yield batch
    except (pa.ArrowException, UnicodeError) as error:
        raise _explain_error(table, error) from None
    # A quote that is never closed makes everything after it one cell, so the last cell contains line breaks.
    if counter.is_open and "\n" in last:
        *_, (line, _) = delimited.read_records(table.path, table.text_format)
        raise _RecordError(*files.file_error(table.path, "a quote is opened here and never closed.", line=line).faults)


def _read_rows(table: _Table) -> Iterator[tuple[int, list[str]]]:
    """Read the records below the header, with the line on which each begins."""
    return islice(delimited.read_records(table.path, table.text_format), int(table.text_format.dialect.header), None)


def _explain_error(table: _Table, error: Exception) -> BmcliError:
    """Find why Arrow could not parse a table, with the line of the first wrong byte or record."""
    delimited.check_encoding(table.path, table.text_format.encoding)
    try:
        for line, cells in _read_rows(table):
            size = len(",".join(cells).encode(errors="replace"))
            if size > _BLOCK_BYTES:
                return files.file_error(
                    table.path,
                    f"a row of {size:,} bytes, expected at most {_BLOCK_BYTES:,}.",
                    "Keep such texts in separate files, or save the table as Parquet.",
                    line,
                )
            if len(cells) != len(table.names):
                fault = files.file_error(
                    table.path,
                    f"expected {len(table.names)} cells, received {len(cells)}.",
                    "Remove the line if it is a comment."
                    if cells[0].lstrip().startswith(_COMMENTS)
                    else "Put cells that contain the delimiter in double quotes, and close every quote.",
                    line,
                )
                return _RecordError(*fault.faults)
    except csv.Error as second:
        error = second
    return files.file_error(table.path, brief(str(error).splitlines()[0]))


def _describe_row(table: _Table, row: int, skips_malformed: bool) -> str:
    """Return file and line of a row.

    Lines are counted only for a fault: quoted cells may span several, so that the whole file has to be parsed.

    Args:
        skips_malformed: Whether records with too few or too many cells do not count as rows.
    """
    try:
        rows = (line for line, cells in _read_rows(table) if not skips_malformed or len(cells) == len(table.names))
        return f"{files.format_path(table.path)}:{next(islice(rows, row, None))}"
    except (BmcliError, UnicodeError, StopIteration):  # The file has changed since.
        return f"{files.format_path(table.path)} row {row + 1}"
