"""JSON lines, one object per line, or a list of objects; with or without gzip."""

from __future__ import annotations

import codecs
import io
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import limits
from bmcli.data import files, tables
from bmcli.data.files import File
from bmcli.data.sources import SourceRows, TableOptions, TablePaths
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import brief, quoted
from bmcli.raw_columns import UnreadableColumn

if TYPE_CHECKING:
    import pyarrow as pa

_SCALARS = {str: "text", int: "a number", float: "a number", bool: "true or false"}
_TYPE_NAMES = {**_SCALARS, list: "a list", dict: "an object"}

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_KEY = re.compile(rb'("(?:[^"\\]+|\\.)*+")\s*:')
_LONG_INTEGER = re.compile(rb"[:\[,]\s*-?[0-9]{19,}\s*[,\]}]")
_LIST_START = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*[{\]]")
_ITEM_START = re.compile(r"\s*[\[,]\s*(?=[^\s\],])")
_ITEM_END = re.compile(r"\s*[\],]")
_LIST_END = re.compile(r"\s*\[?\s*\]\s*")
_SAMPLE = 64  # lines whose keys are compared
_TEXT = re.compile(rb'"(?:[^"\\]+|\\.)*+("?)')  # Possessive: backtracking would take exponential time on many quotes.

_MalformedLines = dict[File, set[int]]
"""Numbers of the lines that are left out, by file."""


class _MalformedLineError(BmcliError):
    """A line that is not a row, and may be skipped."""

    def __init__(self, path: File, line: int, message: str, suggestion: str = "") -> None:
        super().__init__(*files.file_error(path, message, suggestion, line).faults)


class Options(TableOptions):
    """JSON lines: one object per line, or a list of objects; keys are columns, and absent keys are missing values.

    Values are numbers, text, booleans, lists of numbers of equal length, which become arrays, or lists of texts, which
    a target of labels reads. Fields of nested objects become columns such as `address.city`.
    """

    ENDINGS = (".jsonl", ".ndjson", ".json")

    kind: Literal["jsonl"] = "jsonl"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.jsonl, a list of these, or one of these per split; "
        ".gz files are decompressed."
    )


def read(options: Options) -> SourceRows:
    """Read all rows of all files; every file must have the same keys. A column of text and numbers is text."""
    return _read(options, None)


def read_well_formed(options: Options) -> SourceRows:
    """Read all rows as `read` does, but leave out lines that are not objects, and count them."""
    malformed: _MalformedLines = {}
    rows = _read(options, malformed)
    return replace(rows, malformed_records=sum(len(numbers) for numbers in malformed.values()))


def _read(options: Options, malformed: _MalformedLines | None) -> SourceRows:
    """Read all rows.

    Args:
        malformed: Filled with the lines that are left out; None to raise a fault instead.
    """
    try:
        return _read_files(options, malformed)
    except BmcliError as error:
        raise BmcliError(*(_name_item(fault, options) for fault in error.faults)) from None


def _name_item(fault: Fault, options: Options) -> Fault:
    """Name the item of a list instead of a line; the lines of such a file are unknown."""
    for path in options.files():
        name = files.format_path(path)
        place = re.match(re.escape(name) + r":(\d+) ", fault.message)
        if place and _is_list(next(files.read_chunks(path), b"")):
            return replace(fault, message=f"{name} item {place[1]} {fault.message[place.end() :]}")
    return fault


def _is_list(start: bytes) -> bool:
    """Whether a file begins with a list."""
    return _LIST_START.match(start) is not None


def _read_files(options: Options, malformed: _MalformedLines | None) -> SourceRows:
    """Read all rows as `_read` does; the items of a list count as lines."""
    sources = options.tables()
    first = sources[0][1]
    types: dict[str, pa.DataType] = {}
    unreadable: dict[str, UnreadableColumn] = {}
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for split, path in sources:
            count, file_types = 0, dict[str, Any]()
            for line, block in _read_blocks(path, _read_line_chunks(path), malformed):
                batch = _parse_batch(path, line, block, malformed, unreadable)
                if batch is None:
                    continue
                file_types |= {name: pa.null() for name in unreadable if name not in file_types}
                for field in batch.schema:
                    before = file_types.get(field.name, field.type)
                    file_types[field.name] = _unify_type(path, line, field, before, unreadable)
                tables.check_count(path, len(file_types), "keys")
                count += len(batch)
                yield batch
            if not count:
                raise files.file_error(
                    path, "no line is an object." if malformed and path in malformed else "is empty."
                )
            if types:
                tables.check_same_columns(first, types, path, file_types)
            for name, kind in file_types.items():
                types[name] = _unify_type(path, 1, pa.field(name, kind), types.get(name, kind), unreadable)
            lengths.append((split, path, count))

    import pyarrow as pa

    spilled = tables.spill_batches(batches())
    tables.check_names(first, list(types))
    return tables.build_rows(
        spilled,
        types,
        lengths,
        lambda path, row: _describe_row(path, row, (malformed or {}).get(path, ())),
        unreadable={
            name: UnreadableColumn(*(_name_item(fault, options) for fault in error.faults))
            for name, error in unreadable.items()
        },
    )


def _read_line_chunks(path: File) -> Iterator[bytes]:
    """Read a file in chunks of lines; the objects of a list become one line each."""
    chunks = files.read_chunks(path)
    first = next(chunks, b"")
    if _is_list(first):
        return _read_list_items(path, chain([first], chunks))
    return chain([first], chunks)


def _read_list_items(path: File, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Read the items of a JSON list, as one line each.

    Raises:
        BmcliError: The list is damaged, or an item is too long.
    """
    parse, decoder = json.JSONDecoder().raw_decode, codecs.getincrementaldecoder("utf-8-sig")()
    text, count = "", 0
    for chunk in chain(chunks, [b""]):
        try:
            text += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            raise files.file_error(path, "is not utf-8.", "Save the file as UTF-8.") from None
        place, lines = 0, list[str]()
        while start := _ITEM_START.match(text, place):
            try:
                _, end = parse(text, start.end())
            except (ValueError, RecursionError):
                break  # The rest of the item may be in the next chunk.
            if not _ITEM_END.match(text, end):
                break  # A number may continue.
            lines.append(" ".join(text[start.end() : end].splitlines()))
            place = end
        yield "".join(f"{line}\n" for line in lines).encode(errors="replace")
        text, count = text[place:], count + len(lines)
        if len(text) > limits.MAX_RECORD_BYTES:
            raise files.file_error(path, f"item {count + 1} is longer than {limits.MAX_RECORD_BYTES} bytes.")
    if not _LIST_END.fullmatch(text):
        raise files.file_error(
            path, f"item {count + 1} of the list is not JSON, or the list does not end.", "Write [{...}, {...}]."
        )


def _read_blocks(path: File, chunks: Iterable[bytes], malformed: _MalformedLines | None) -> Iterator[tuple[int, bytes]]:
    """Read blocks of whole lines, each with the number of its first line.

    The bytes of a line that is too long are dropped as they are read, so that it does not fill the memory.
    """
    line, left, left_bytes = 1, list[bytes](), 0
    for chunk in chunks:
        whole, newline, rest = chunk.rpartition(b"\n")
        start = chunk.find(b"\n") if newline else len(chunk)
        if left_bytes + start > limits.MAX_RECORD_BYTES:
            too_long = _MalformedLineError(path, line, f"is longer than {limits.MAX_RECORD_BYTES} bytes.")
            if malformed is None:
                raise too_long
            malformed.setdefault(path, set()).add(line)
            left, whole, rest = [], whole[start:], rest if newline else b""
        if newline:
            block = b"".join([*left, whole, newline])
            if block.strip():
                yield line, block
            line += block.count(b"\n")
            left, left_bytes = [], 0
        left.append(rest)
        left_bytes += len(rest) if newline else len(chunk)
    block = b"".join(left)
    if block.strip():
        yield line, block


def _parse_batch(
    path: File, line: int, block: bytes, malformed: _MalformedLines | None, unreadable: dict[str, UnreadableColumn]
) -> pa.RecordBatch | None:
    """Parse lines to a batch, with the fields of nested objects as columns; None if no line is a row.

    Args:
        unreadable: Filled with the columns whose values have no common type, which the batch lacks.
    """
    try:
        return _parse_rows(path, line, block, unreadable)
    except _MalformedLineError:
        if malformed is None:
            raise
    remaining = _blank_malformed_lines(path, line, block, malformed)
    return _parse_rows(path, line, remaining, unreadable) if remaining.strip() else None


def _blank_malformed_lines(path: File, line: int, block: bytes, malformed: _MalformedLines) -> bytes:
    """Replace malformed lines by blank ones, so that the other lines keep their numbers."""
    lines = block.split(b"\n")
    for number, text in enumerate(lines, start=line):
        try:
            _check_nesting(path, number, text)
            _parse_object(path, number, text)
        except _MalformedLineError:
            malformed.setdefault(path, set()).add(number)
            lines[number - line] = b""
    return b"\n".join(lines)


def _parse_rows(path: File, line: int, block: bytes, unreadable: dict[str, UnreadableColumn]) -> pa.RecordBatch:
    """Parse lines by Arrow if they are safe for it, otherwise one by one."""
    import pyarrow as pa

    is_closed = _check_nesting(path, line, block)
    _check_keys(path, line, block)
    try:
        block.decode()  # Arrow does not check UTF-8.
        table = _parse_block(block) if is_closed and _has_object_lines(block) else None
    except (UnicodeDecodeError, pa.ArrowInvalid):
        table = None
    if table is not None and pa.float64() in table.schema.types and _LONG_INTEGER.search(block):
        table = None  # Arrow reads integers beyond 64 bits as floating point.
    # Arrow reads two objects on a line as two rows, after which rows and lines would no longer correspond.
    if table is None or len(table) != sum(1 for text in block.split(b"\n") if text.strip()):
        table = _parse_block_strictly(path, line, block, unreadable)
    if not table.column_names:
        raise files.file_error(path, "expected objects with keys, received empty ones from this line on.", line=line)
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return tables.flatten_batch(batch)


def _check_nesting(path: File, line: int, block: bytes) -> bool:
    """Whether the brackets of every line are balanced.

    Parsers recurse for each level of nesting: too many levels overflow the stack and end the process, without an error
    that could be caught.

    Raises:
        _MalformedLineError: A line is nested too deeply.
    """
    shapes = block.translate(None, _NO_BRACKETS).split(b"\n")
    odd = {shape for shape in set(shapes) if not _is_plain(shape)}
    if not odd:
        return True
    is_closed = True
    for number, (shape, text) in enumerate(zip(shapes, block.split(b"\n"), strict=True), start=line):
        if shape not in odd:
            continue
        # Brackets inside of texts do not count. Of a text without an end the quote remains, and marks the line as open.
        bare = _TEXT.sub(lambda match: b"" if match[1] else b'"', text)
        deepest, level = limits.measure_nesting(bare.translate(None, _NO_BRACKETS))
        if deepest > limits.MAX_NESTING:
            raise _MalformedLineError(
                path, number, f"lists and objects are nested more than {limits.MAX_NESTING} levels deep."
            )
        is_closed = is_closed and level == 0 and b'"' not in bare
    return is_closed


def _check_keys(path: File, line: int, block: bytes) -> None:
    """Raise BmcliError for more keys than a table may have columns: Arrow's time grows with their square.

    To collect the keys of all lines is slow, so the longest lines and a random sample are compared first; all keys are
    collected only if these lines differ in theirs. The sample is random so that no file can be written to evade it.
    """
    if block.count(b":") <= limits.MAX_COLUMNS:
        return
    texts = block.split(b"\n")
    longest = sorted(texts, key=len)[-_SAMPLE:]
    most = max(map(_count_keys, ([text] for text in longest)))
    some = [*longest, *random.sample(texts, min(_SAMPLE, len(texts)))]
    if most > limits.MAX_COLUMNS or _count_keys(some) > 2 * most:
        tables.check_count(path, _count_keys(texts), "keys", line)


def _count_keys(lines: Sequence[bytes]) -> int:
    """Count the distinct keys in lines, including those of nested objects."""
    return len({key for text in lines for key in _KEY.findall(text)})


def _is_plain(brackets: bytes) -> bool:
    """Whether brackets are too few to be nested too deeply, and as many are closed as opened."""
    opened = brackets.count(b"[") + brackets.count(b"{")
    return opened <= limits.MAX_NESTING and 2 * opened == len(brackets)


def _has_object_lines(block: bytes) -> bool:
    """Whether every line begins and ends like an object.

    Arrow accepts `null` as an object, and continues an object that is left open on the next line.
    """
    lines = (text.strip() for text in block.split(b"\n"))
    return all(not text or (text[:1] == b"{" and text[-1:] == b"}") for text in lines)


def _parse_block(block: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Parse lines by Arrow; text that looks like a date stays text."""
    import pyarrow as pa
    import pyarrow.json

    # Arrow parses blocks separately: an object across two blocks is an error, so all lines are one block.
    table = pyarrow.json.read_json(
        pa.BufferReader(block.removeprefix(b"\xef\xbb\xbf")),  # A byte order mark is not JSON.
        read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )
    plain = pa.schema([field.with_type(_replace_date_types(field.type)) for field in table.schema])
    return table if plain == table.schema else _parse_block(block, plain)


def _replace_date_types(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_replace_date_types(field.type)) for field in kind])
    return pa.list_(_replace_date_types(kind.value_type)) if pa.types.is_list(kind) else kind


def _unify_type(
    path: File, line: int, field: pa.Field, before: pa.DataType, unreadable: dict[str, UnreadableColumn]
) -> pa.DataType:
    """Return the type that holds the values of a column so far and those of another block: text if scalars differ."""
    import pyarrow as pa

    common = tables.find_common_type(before, field.type)
    if common is not None:
        return common
    if tables.is_list_type(before) or tables.is_list_type(field.type):
        error = files.file_error(
            path,
            f"column {quoted(field.name)}: expected values of type {brief(str(before))}, as before, received "
            f"{brief(str(field.type))} from this line on.",
            line=line,
        )
        unreadable.setdefault(field.name, UnreadableColumn.of(error))
    return pa.string()


def _parse_block_strictly(path: File, line: int, block: bytes, unreadable: dict[str, UnreadableColumn]) -> pa.Table:
    """Parse lines that Arrow refused, one by one: columns of text and numbers become text.

    Args:
        unreadable: Filled with the columns that have lists or objects beside other values, which the table lacks.

    Raises:
        BmcliError: A line is not an object; with file and line.
    """
    import pyarrow as pa

    rows = list(_parse_objects(path, line, block))
    kinds: dict[str, tuple[str, int]] = {}
    mixed: set[str] = set()
    for number, row in rows:
        for name, value in row.items():
            if value is None:
                continue
            kind = _TYPE_NAMES[type(value)]
            expected, first_line = kinds.setdefault(name, (kind, number))
            if kind != expected and not {kind, expected} <= set(_SCALARS.values()):
                message = f"column {quoted(name)}: expected {expected}, as in line {first_line}, received {kind}."
                unreadable.setdefault(name, UnreadableColumn.of(files.file_error(path, message, line=number)))
            if kind != expected:
                mixed.add(name)
    values = [
        {name: _format_scalar(value) if name in mixed else value for name, value in row.items()} for _, row in rows
    ]
    columns = {}
    for name in kinds.keys() - unreadable.keys():
        try:
            columns[name] = _build_column(path, rows, name, [row.get(name) for row in values])
        except UnreadableColumn as error:
            unreadable[name] = error
    return pa.table({name: columns[name] for name in kinds if name in columns})


def _parse_objects(path: File, line: int, block: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse every line that is not blank to its number and its object, with nested objects flattened."""
    for number, text in enumerate(block.split(b"\n"), start=line):
        value = _parse_object(path, number, text)
        if value is not None:
            yield number, dict(_flatten_object(value))


def _parse_object(path: File, number: int, text: bytes) -> dict[str, Any] | None:
    """Parse the object of a line whose nesting has been checked; None if it is blank."""
    if not text.strip():
        return None
    try:
        value = json.loads(text.decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=_check_unique_keys)
        if b"\\u" in text:  # Escapes can spell one half of a surrogate pair, which no UTF-8 text can contain.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{text[error.start]:02x} is not utf-8."
        raise _MalformedLineError(path, number, message, "Save the file as UTF-8.") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        message = f"{half} is one half of a surrogate pair, without the other half."
        raise _MalformedLineError(path, number, message) from None
    except (ValueError, RecursionError) as error:
        raise _MalformedLineError(path, number, f"is not JSON: {brief(str(error).partition(': line')[0])}.") from None
    if not isinstance(value, dict):
        raise _MalformedLineError(
            path,
            number,
            f"expected an object, received {_TYPE_NAMES.get(type(value), 'null')}.",
            "Write one object per line: {...}, without a list around them.",
        )
    return value


def _check_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = tables.find_repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"the key {quoted(twice)} is repeated")
    return dict(pairs)


def _flatten_object(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flatten_object(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item


def _format_scalar(value: Any) -> str | None:
    """Format a scalar as text, in the same way as Arrow, which formats the blocks that it can parse."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _build_column(path: File, rows: list[tuple[int, Any]], name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values if value is not None):
        # Integers beyond 64 bits do not fit into Arrow's integers: as text, such identifiers keep their digits.
        present = [value for value in values if value is not None]
        if any(isinstance(value, float) for value in present):
            values = [None if value is None else float(value) for value in values]
        elif any(abs(value) >= 2**63 for value in present):
            values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = brief(str(error).partition("\n")[0].rstrip("."))
        message = f"column {quoted(name)}, from this line on: {reason}."
        raise UnreadableColumn.of(files.file_error(path, message, line=rows[0][0])) from None


def _describe_row(path: File, row: int, malformed: Collection[int]) -> str:
    """Return file and line of a row; blank lines count.

    Args:
        malformed: Numbers of the lines that were left out.
    """
    lines = enumerate(io.BufferedReader(files.ChunkStream(_read_line_chunks(path))), start=1)
    try:
        filled = (number for number, text in lines if text.strip() and number not in malformed)
        is_list = _is_list(next(files.read_chunks(path), b""))
        return f"{files.format_path(path)}{' item ' if is_list else ':'}{next(islice(filled, row, None))}"
    except (BmcliError, StopIteration):  # The file has changed since.
        return f"{files.format_path(path)} row {row + 1}"
