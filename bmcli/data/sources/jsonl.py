"""JSON lines: an object a line, gzip or not."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli import limits
from bmcli.data import files, tables
from bmcli.data.files import File
from bmcli.data.sources import SourceRows, TableOptions, TablePaths
from bmcli.errors import BmcliError
from bmcli.quoting import brief, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_SCALARS = {str: "text", int: "a number", float: "a number", bool: "true or false"}
_KINDS = {**_SCALARS, list: "a list", dict: "an object"}

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}\n"))
_KEY = re.compile(rb'("(?:[^"\\]+|\\.)*+")\s*:')
_SAMPLE = 64  # lines whose keys are compared
_TEXT = re.compile(rb'"(?:[^"\\]+|\\.)*+("?)')  # Never tries a second way, which would take forever on many quotes.

_Broken = dict[File, set[int]]
"""The numbers of the lines that are left out, by file."""


class _BrokenLine(BmcliError):
    """A line that is no row."""

    def __init__(self, path: File, number: int, message: str, suggestion: str = "") -> None:
        super().__init__(
            f"{files.format_path(path)}:{number}  {message}", path=files.RECIPE_PATH, suggestion=suggestion
        )


class Options(TableOptions):
    """JSON lines: one object per line; keys are columns, and absent keys are missing values.

    Values are numbers, text, booleans, or lists of numbers of equal length, which become arrays. Fields of nested
    objects become columns such as `address.city`.
    """

    ENDINGS = (".jsonl", ".ndjson")

    kind: Literal["jsonl"] = "jsonl"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.jsonl, a list of these, or one of these per split; "
        ".gz files are decompressed."
    )


def read(options: Options) -> SourceRows:
    """All rows of all files; every file must have the same keys. A column of text and numbers is text."""
    return _read(options, None)


def read_unbroken(options: Options) -> SourceRows:
    """The same, but lines that are no objects are left out and counted."""
    broken: _Broken = {}
    rows = _read(options, broken)
    return replace(rows, broken=sum(len(numbers) for numbers in broken.values()))


def _read(options: Options, broken: _Broken | None) -> SourceRows:
    """The rows.

    Args:
        broken: Takes the lines that are left out; None if they are faults.
    """
    sources = options.tables()
    first = sources[0][1]
    types: dict[str, pa.DataType] = {}
    lengths: list[tuple[str | None, File, int]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for split, path in sources:
            count, found = 0, dict[str, Any]()
            for line, block in _blocks(path, broken):
                batch = _parse_batch(path, line, block, broken)
                if batch is None:
                    continue
                for field in batch.schema:
                    found[field.name] = _unify_type(path, line, field, found.get(field.name, field.type))
                tables.check_count(path, len(found), "keys")
                count += len(batch)
                yield batch
            if not count:
                lacks = "no line is an object" if broken and path in broken else "is empty"
                raise BmcliError(f"{files.format_path(path)}: {lacks}.", path=files.RECIPE_PATH)
            if types:
                tables.check_same_columns(first, types, path, found)
            for name, kind in found.items():
                types[name] = _unify_type(path, 1, pa.field(name, kind), types.get(name, kind))
            lengths.append((split, path, count))

    import pyarrow as pa

    spilled = tables.spill_batches(batches())
    tables.check_names(first, list(types))
    return tables.build_rows(
        spilled, types, lengths, lambda path, row: _describe_row(path, row, (broken or {}).get(path, ()))
    )


def _blocks(path: File, broken: _Broken | None) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, many at a time, with the number of the first of them."""
    line, left, left_bytes = 1, list[bytes](), 0
    for chunk in files.read_chunks(path):
        whole, newline, rest = chunk.rpartition(b"\n")
        start = chunk.find(b"\n") if newline else len(chunk)
        if left_bytes + start > limits.RECORD_BYTES:
            fault = _BrokenLine(path, line, f"is longer than {limits.RECORD_BYTES} bytes.")
            if broken is None:
                raise fault
            broken.setdefault(path, set()).add(line)
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


def _parse_batch(path: File, line: int, block: bytes, broken: _Broken | None) -> pa.RecordBatch | None:
    """The rows of some lines, with the fields of nested objects as columns; None if no line is a row."""
    try:
        return _rows(path, line, block)
    except _BrokenLine:
        if broken is None:
            raise
    mended = _without_broken(path, line, block, broken)
    return _rows(path, line, mended) if mended.strip() else None


def _without_broken(path: File, line: int, block: bytes, broken: _Broken) -> bytes:
    """Some lines, of which the broken ones have become blank."""
    lines = block.split(b"\n")
    for number, text in enumerate(lines, start=line):
        try:
            _check_nesting(path, number, text)
            _object(path, number, text)
        except _BrokenLine:
            broken.setdefault(path, set()).add(number)
            lines[number - line] = b""
    return b"\n".join(lines)


def _rows(path: File, line: int, block: bytes) -> pa.RecordBatch:
    import pyarrow as pa

    is_closed = _check_nesting(path, line, block)
    _check_keys(path, line, block)
    try:
        block.decode()  # as the parser does not
        table = _parse_block(block) if is_closed and _has_object_lines(block) else None
    except (UnicodeDecodeError, pa.ArrowInvalid):
        table = None
    # The parser takes two objects in a line for two rows, which would lose count of the lines.
    if table is None or len(table) != sum(1 for text in block.split(b"\n") if text.strip()):
        table = _parse_block_strictly(path, line, block)
    if not table.column_names:
        raise BmcliError(
            f"{files.format_path(path)}:{line}  objects without a key, from this line on.", path=files.RECIPE_PATH
        )
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return tables.flatten_batch(batch)


def _check_nesting(path: File, line: int, block: bytes) -> bool:
    """Whether every line closes what it opens.

    Parsers call themselves for each level: too many end the process, without an error that could be caught.

    Raises:
        _BrokenLine: A line is nested too deeply.
    """
    shapes = block.translate(None, _NO_BRACKETS).split(b"\n")
    odd = {shape for shape in set(shapes) if not _is_plain(shape)}
    if not odd:
        return True
    is_closed = True
    for number, (shape, text) in enumerate(zip(shapes, block.split(b"\n"), strict=True), start=line):
        if shape not in odd:
            continue
        # Brackets in texts do not count; of a text that is never closed the quote is left.
        bare = _TEXT.sub(lambda found: b"" if found[1] else b'"', text)
        deepest, left = limits.measure_nesting(bare.translate(None, _NO_BRACKETS))
        if deepest > limits.MAX_NESTING:
            raise _BrokenLine(path, number, f"lists and objects are nested more than {limits.MAX_NESTING} levels deep.")
        is_closed = is_closed and left == 0 and b'"' not in bare
    return is_closed


def _check_keys(path: File, line: int, block: bytes) -> None:
    """Raises BmcliError for more keys than a table may have columns: the parser's time grows with their square.

    All keys are told apart only where some lines have other keys than others: the longest, and some at random, which
    nobody who writes a file can foresee.
    """
    if block.count(b":") <= limits.COLUMNS:
        return
    texts = block.split(b"\n")
    longest = sorted(texts, key=len)[-_SAMPLE:]
    most = max(map(_count_keys, ([text] for text in longest)))
    some = [*longest, *random.sample(texts, min(_SAMPLE, len(texts)))]
    if most > limits.COLUMNS or _count_keys(some) > 2 * most:
        tables.check_count(path, _count_keys(texts), "keys", f":{line}")


def _count_keys(lines: Sequence[bytes]) -> int:
    """Different keys in some lines, those of nested objects included."""
    return len({key for text in lines for key in _KEY.findall(text)})


def _is_plain(brackets: bytes) -> bool:
    """Whether brackets are few enough to be nested at will, and as many are closed as opened."""
    opened = brackets.count(b"[") + brackets.count(b"{")
    return opened <= limits.MAX_NESTING and 2 * opened == len(brackets)


def _has_object_lines(block: bytes) -> bool:
    """Whether every line begins and ends as an object does.

    The parser takes `null` for one, and goes on in the next line with an object that a line leaves open.
    """
    lines = (text.strip() for text in block.split(b"\n"))
    return all(not text or (text[:1] == b"{" and text[-1:] == b"}") for text in lines)


def _parse_block(block: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """The rows of some lines; text that looks like a date stays text."""
    import pyarrow as pa
    from pyarrow import json as arrow

    table = arrow.read_json(
        pa.BufferReader(block.removeprefix(b"\xef\xbb\xbf")),
        read_options=arrow.ReadOptions(block_size=len(block) + 1, use_threads=False),
        parse_options=arrow.ParseOptions(explicit_schema=schema),
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


def _unify_type(path: File, line: int, field: pa.Field, before: pa.DataType) -> pa.DataType:
    """The type that holds a column's values so far and those of one more block: text where scalars differ."""
    import pyarrow as pa

    common = tables.find_common_type(before, field.type)
    if common is not None:
        return common
    if tables.is_list_type(before) or tables.is_list_type(field.type):
        raise BmcliError(
            f"{files.format_path(path)}:{line}  column {quoted(field.name)}: from here on of type "
            f"{brief(str(field.type))}, "
            f"before of type {brief(str(before))}.",
            path=files.RECIPE_PATH,
        )
    return pa.string()


def _parse_block_strictly(path: File, line: int, block: bytes) -> pa.Table:
    """The rows of lines that the fast parser refused: columns of text and numbers become text.

    Raises:
        BmcliError: A line is no object, or a value differs in kind from those before; with file and line.
    """
    import pyarrow as pa

    rows = list(_objects(path, line, block))
    kinds: dict[str, tuple[str, int]] = {}
    mixed: set[str] = set()
    for number, row in rows:
        for name, value in row.items():
            if value is None:
                continue
            kind = _KINDS[type(value)]
            before, since = kinds.setdefault(name, (kind, number))
            if kind != before and not {kind, before} <= set(_SCALARS.values()):
                raise BmcliError(
                    f"{files.format_path(path)}:{number}  column {quoted(name)}: expected {before}, "
                    f"as in line {since}, "
                    f"received {kind}.",
                    path=files.RECIPE_PATH,
                )
            if kind != before:
                mixed.add(name)
    values = [
        {name: _format_scalar(value) if name in mixed else value for name, value in row.items()} for _, row in rows
    ]
    columns = {name: _column(path, rows, name, [row.get(name) for row in values]) for name in kinds}
    return pa.table(columns)


def _objects(path: File, line: int, block: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object of every line that is not blank, with nested ones flattened, and the line's number."""
    for number, text in enumerate(block.split(b"\n"), start=line):
        value = _object(path, number, text)
        if value is not None:
            yield number, dict(_flatten_object(value))


def _object(path: File, number: int, text: bytes) -> dict[str, Any] | None:
    """The object of a line that is not nested too deeply, None if it is blank."""
    if not text.strip():
        return None
    try:
        value = json.loads(text.decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=_check_unique_keys)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{text[error.start]:02x} is not utf-8."
        raise _BrokenLine(path, number, message, "Save the file as UTF-8.") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise _BrokenLine(path, number, f"{half} is half of a character, without the other half beside it.") from None
    except (ValueError, RecursionError) as error:
        raise _BrokenLine(path, number, f"is no JSON: {brief(str(error).partition(': line')[0])}.") from None
    if not isinstance(value, dict):
        raise _BrokenLine(
            path,
            number,
            f"expected an object, received {_KINDS.get(type(value), 'null')}.",
            "Write an object a line: {...}, without a list around them.",
        )
    return value


def _check_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = tables.repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return dict(pairs)


def _flatten_object(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flatten_object(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item


def _format_scalar(value: Any) -> str | None:
    """A scalar as text, as Arrow spells it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _column(path: File, rows: list[tuple[int, Any]], name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values if value is not None):
        large = any(isinstance(value, float) or abs(value) >= 2**63 for value in values if value is not None)
        values = [None if value is None else float(value) for value in values] if large else values
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        place, reason = f"{files.format_path(path)}:{rows[0][0]}", brief(str(error).partition("\n")[0].rstrip("."))
        raise BmcliError(
            f"{place}  column {quoted(name)}, from this line on: {reason}.", path=files.RECIPE_PATH
        ) from None


def _describe_row(path: File, row: int, broken: Collection[int]) -> str:
    """File and line of a row; blank lines count.

    Args:
        broken: Numbers of the lines that are no rows.
    """
    lines = enumerate(io.BufferedReader(files.ChunkStream(files.read_chunks(path))), start=1)
    try:
        filled = (number for number, text in lines if text.strip() and number not in broken)
        return f"{files.format_path(path)}:{next(islice(filled, row, None))}"
    except (BmcliError, StopIteration):  # The file has changed since.
        return f"{files.format_path(path)} row {row + 1}"
