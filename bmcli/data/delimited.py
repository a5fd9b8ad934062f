"""Files of delimited text: their encodings, samples, and records with the lines on which they begin."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bmcli.data import dialects, files
from bmcli.data.dialects import WHITESPACE, Dialect
from bmcli.data.files import File
from bmcli.errors import BmcliError

_SCRIPT_SAMPLE = 2**18  # bytes by which the script of a file is guessed
_SAMPLE = 2**16  # characters, or bytes, of each part of a file from which its dialect is detected
# UTF-32 comes first: its mark begins with that of UTF-16.
_UNMARKED: Mapping[tuple[bool, ...], str] = {
    (True, False, True, False): "utf-16-le",
    (False, True, False, True): "utf-16-be",
}
_BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_UTF8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Letters and punctuation of Western European texts in cp1252; the last letters, such as \xff, are too rare to be meant.
_WESTERN = re.compile(rb"[\x80\x82\x84\x85\x8a\x8c\x8e\x91-\x97\x99\x9a\x9c\x9e\x9f\xa0-\xfd]")
_MAX_ADJACENT = 0.25  # share of letters beside another such letter; texts in other scripts have mostly such


@dataclass(frozen=True)
class _Script:
    """An encoding of another script than the Latin one, and the characters by which texts in it are recognised.

    Args:
        common: Regular expression of characters of which its texts have many, and of which other texts decoded in this
            encoding have few.
        share: Least share of them among the letters that are not ASCII.
        rare: Regular expression of characters that its texts hardly have.
        is_certain: Whether other texts never fit.
    """

    encoding: str
    name: str
    common: str
    share: float
    rare: str = "(?!)"
    is_certain: bool = False


# Of several that fit, the one with the largest share is guessed, and of these the first. Bytes of Korean are Chinese,
# too, but only of the first rows of its table; bytes of Chinese are Japanese katakana of half the width.
_SCRIPTS = (
    _Script("cp932", "Japanese", r"[\u3041-\u30fc]", 0.2, r"[\uff61-\uff9f]", is_certain=True),
    _Script("euc_jp", "Japanese", r"[\u3041-\u30fc]", 0.2, is_certain=True),
    _Script("cp949", "Korean", r"[\uac00-\ud7a3]", 0.9),
    _Script("gb18030", "Chinese", r"[\u4e00-\u9fff]", 0.7),
    _Script("cp950", "traditional Chinese", r"[\u4e00-\u9fff]", 0.7),
    _Script("cp1251", "Cyrillic", r"[\u0430-\u044f\u0451\u0454\u0456\u0457]", 0.6),
    _Script("koi8_r", "Cyrillic", r"[\u0430-\u044f\u0451]", 0.6),
)
# First bytes of the characters of everyday texts, in the tables of KS X 1001, GB 2312 and Big5.
_COMMON_ROWS = {"cp949": (0xB0, 0xC8), "gb18030": (0xB0, 0xD7), "cp950": (0xA4, 0xC6)}
_MIN_LETTERS, _MAX_RARE = 10, 0.05


@dataclass(frozen=True)
class TextFormat:
    """How a file of delimited text is decoded and split."""

    encoding: str
    dialect: Dialect


@dataclass(frozen=True)
class Sample:
    """Texts of a file.

    Args:
        start: From its start.
        later: Whole lines from its middle and its end.
        is_whole: Whether `start` is all of the file.
    """

    start: str
    later: tuple[str, ...]
    is_whole: bool


class EncodingError(BmcliError):
    """A byte that is invalid in the encoding of a file."""

    def __init__(self, path: File, message: str, suggestion: str = "", line: int | None = None) -> None:
        super().__init__(*files.file_error(path, message, suggestion, line).faults)
        self.path = path


def detect_encoding(path: File) -> str:
    """Return the encoding of a file's byte order mark, UTF-16 if its first characters are two bytes of which one is 0.

    Otherwise UTF-8.
    """
    start = next(files.read_chunks(path), b"")[:4]
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    return marked or _UNMARKED.get(tuple(byte > 0 for byte in start), "utf-8")


def guess_encoding(path: File) -> tuple[str, str]:
    """Guess the encoding of a file that is not UTF-8 by its letters; also name their script.

    Both are empty where no encoding is likely.
    """
    if is_western(path):
        return "cp1252", "Western European"
    start = next(files.read_chunks(path), b"")[:_SCRIPT_SAMPLE]
    shares = {script: share for script in _SCRIPTS if (share := _measure_script(start, script))}
    if not shares:
        return "", ""
    found = max(shares, key=lambda script: (script.is_certain, shares[script]))
    return found.encoding, found.name


def _measure_script(start: bytes, script: _Script) -> float:
    """Return the share of common characters among the letters that are not ASCII; 0 if the script does not fit."""
    try:
        text = codecs.getincrementaldecoder(script.encoding)().decode(start)
    except UnicodeDecodeError:
        return 0.0
    # Characters without a meaning (category C) are signs of another encoding, unlike punctuation.
    letters = [letter for letter in text if letter > "\x7f" and unicodedata.category(letter)[0] in "LC"]
    if len(letters) < _MIN_LETTERS:
        return 0.0
    joined = "".join(letters)
    common, rare = (re.findall(pattern, joined) for pattern in (script.common, script.rare))
    if script.encoding in _COMMON_ROWS:
        first, last = _COMMON_ROWS[script.encoding]
        common = [letter for letter in common if first <= letter.encode(script.encoding)[0] <= last]
    share = len(common) / len(letters)
    return share if share >= script.share and len(rare) <= _MAX_RARE * len(letters) else 0.0


def is_western(path: File) -> bool:
    """Whether a file that is not UTF-8 looks like a Western European text in cp1252.

    Such letters stand among ASCII letters. A file that also has letters in UTF-8 mixes encodings.
    """
    letters, adjacent, end = 0, 0, b""
    for chunk in files.read_chunks(path):
        special = chunk.translate(None, bytes(range(128)))
        if not special and not end:
            continue
        if b"\0" in chunk or len(_WESTERN.findall(special)) < len(special) or _UTF8_LETTER.search(chunk):
            return False
        letters += len(special)
        adjacent += sum(map(len, re.findall(rb"[\x80-\xff]{2,}", chunk)))
    return letters > 0 and adjacent <= _MAX_ADJACENT * letters


def read_sample(path: File, encoding: str) -> Sample:
    """Read the start of a file and, if it is large, parts of the middle and of the end.

    Raises:
        EncodingError: The start is not in this encoding.
    """
    try:
        text = open_text(path, encoding)
        start = text.read(_SAMPLE)
        is_whole = len(start) < _SAMPLE
    except UnicodeError:
        check_encoding(path, encoding)
        raise
    later = () if is_whole else tuple(_read_later_lines(path, encoding))
    return Sample(start, later, is_whole)


def _read_later_lines(path: File, encoding: str) -> Iterator[str]:
    # Lines are found in files only whose bytes are ASCII where they look like it, and that can be read from anywhere.
    if not isinstance(path, Path) or codecs.lookup(encoding).name not in ("utf-8", "cp1252", "iso8859-1"):
        return
    with files.open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(2) == b"\x1f\x8b" or size < 4 * _SAMPLE:
            return
        for start in (size // 2, size - _SAMPLE):
            file.seek(start)
            lines = _LINE_END.split(file.read(_SAMPLE))
            yield "\n".join(line.decode(encoding, "replace") for line in lines[1:-1])


def read_table_bytes(path: File, text_format: TextFormat, above: int) -> Iterator[bytes]:
    """Read the lines below the first ones as UTF-8, with one tab between cells that are separated by blanks.

    Bytes that are UTF-8 already are not checked.

    Args:
        above: Number of lines to skip.
    """
    chunks = _skip_lines(_read_as_utf8(path, text_format.encoding), above)
    if text_format.dialect.delimiter != WHITESPACE:
        return chunks
    return (dialects.squeeze_blanks(lines, text_format.dialect.quote) for lines in _split_at_lines(chunks))


def open_text(path: File, encoding: str) -> io.TextIOWrapper:
    """Open a file as text without its byte order mark; line ends stay as they are."""
    return _wrap_text(_read_as_utf8(path, encoding))


def read_records(path: File, text_format: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """Read the records that are not blank, with the line on which each begins; a quoted cell may span lines."""
    csv.field_size_limit(2**31 - 1)  # The default limit of 128 KiB refuses long texts; Arrow has none.
    dialect = text_format.dialect
    text = _wrap_text(read_table_bytes(path, text_format, dialect.skip_lines))
    reader = csv.reader(text, **dialects.get_reader_options(dialect.delimiter, dialect.quote))
    line = dialect.skip_lines + 1
    for cells in reader:
        if cells:
            yield line, cells
        line = dialect.skip_lines + reader.line_num + 1


def check_encoding(path: File, encoding: str) -> None:
    """Raise EncodingError with the line of the first byte that is invalid in the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    try:
        for chunk in chain(files.read_chunks(path), [b""]):
            decoder.decode(chunk, final=not chunk).encode()
            lines += chunk.count(b"\n")
    except UnicodeDecodeError as error:
        line = lines + error.object.count(b"\n", 0, error.start)
        raise EncodingError(
            path,
            f"byte 0x{error.object[error.start]:02x} is not {encoding}.",
            "Save the file as UTF-8, or set its encoding, for example `encoding: latin-1` in a recipe or `--encoding "
            "latin-1` of `bmcli init`; others are cp1251 (Cyrillic), gbk (Chinese), shift_jis (Japanese).",
            line,
        ) from None
    except UnicodeError as error:
        raise EncodingError(path, f"is not {encoding}: {error}.") from None


class LineCounter:
    """Count quotes and lines in the bytes of a file, which the parser does not report.

    An unclosed quote makes everything after it one cell, and a quoted cell with line breaks has more lines than rows.
    """

    def __init__(self, quote: str) -> None:
        self._quote = b"" if quote == "none" else quote.encode()
        self._quotes, self._lines, self._end = 0, 0, b"\n"

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks unchanged, and count their quotes and lines."""
        for chunk in chunks:
            if self._quote:
                self._quotes += chunk.count(self._quote)
                self._lines += chunk.count(b"\n")
            if self._quotes:  # Blank lines are no records, but take longer to count.
                self._lines -= chunk.count(b"\n\n") + chunk.count(b"\n\r\n")
            self._end = chunk[-64:] or self._end
            yield chunk

    @property
    def is_open(self) -> bool:
        """Whether a quote is left open at the end of the file."""
        return self._quotes % 2 == 1 and not self._end.rstrip().endswith(self._quote)

    @property
    def lines(self) -> int:
        """Number of lines that are not blank, about; 0 if the file has no quotes, so that none are joined."""
        return self._lines + (not self._end.endswith(b"\n")) if self._quotes else 0


def _wrap_text(chunks: Iterator[bytes]) -> io.TextIOWrapper:
    # "-sig" skips a byte order mark, which would become part of the first column name.
    return io.TextIOWrapper(io.BufferedReader(files.ChunkStream(chunks)), "utf-8-sig", newline="")


def _read_as_utf8(path: File, encoding: str) -> Iterator[bytes]:
    """Read the bytes of a file recoded to UTF-8; bytes that are UTF-8 already are not checked here."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        yield from files.read_chunks(path)
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in files.read_chunks(path):
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()  # raises if the file ends within a character


def _skip_lines(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Leave out the first lines."""
    left = b""
    while count:
        chunk = next(chunks, None)
        if chunk is None:
            return
        left += chunk
        lines = _LINE_END.split(left, maxsplit=count)
        if len(lines) > count:
            yield lines[-1]
            break
    yield from chunks


def _split_at_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Join the bytes of chunks to pieces of whole lines."""
    left = b""
    for chunk in chunks:
        whole, newline, rest = (left + chunk).rpartition(b"\n")
        if newline:
            yield whole + newline
        left = rest
    yield left
