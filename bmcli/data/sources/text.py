"""Documents of text, cut into windows, for language models and for all who read long texts."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from bmcli.data import files
from bmcli.data.files import File
from bmcli.data.sources import SourceRows, TableOptions, TablePaths, locate_row, repeat_split_names
from bmcli.errors import BmcliError
from bmcli.recipe.fields import fault

if TYPE_CHECKING:
    import pyarrow as pa

_EARLIEST_CUT = 0.75  # of a window, from which on it may end at a blank
_SECTION = 16  # windows, among which alone windows overlap
_MAX_OVERLAP = 64  # windows that a character is in


class Options(TableOptions):
    """Text files, each of which is a document.

    Every row is a window of a document, in the column `text`; windows follow each other without gap or overlap. Two
    more columns locate it: `document`, the name of the file, and `position`, its number among all windows. With
    `stride` windows overlap, but only within sections of 16 windows, and `position` is the number of the section.
    Split by `time: position`, so that the end of the text is the test, or by `group: document`: both keep sections
    together, so that no text of the test is in another split.
    """

    ENDINGS = (".txt", ".text", ".md")
    detects: ClassVar[bool] = False

    kind: Literal["text"] = "text"
    path: TablePaths = Field(
        description="A file, a folder, a pattern such as part-*.txt, a list of these, or one of these per split; .gz "
        "files are decompressed."
    )
    window: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        default=256,
        description="Largest number of characters of a row. A window ends at a blank where there is one near its end.",
    )
    stride: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Characters from the start of a window to that of the next one; by default the window, without "
        "overlap. With a fourth of the window the text is cut at four offsets, and each character is learned with "
        "more and with less of the text before it.",
    )
    encoding: str = Field(
        default="utf-8", description="Text encoding, by its Python name. A byte order mark of UTF-16 is obeyed."
    )

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError:
            raise fault(
                "encoding", f"no text encoding {value!r}.", "Common ones: utf-8, latin-1, cp1252, utf-16."
            ) from None
        return value

    @model_validator(mode="after")
    def _stride_within_window(self) -> Options:
        if self.stride is not None and self.stride > self.window:
            raise fault("stride", f"a stride of {self.stride} leaves gaps between windows of {self.window}.",
                        "Write a stride up to the window.")  # fmt: skip
        if self.stride is not None and self.window > self.stride * _MAX_OVERLAP:
            raise fault("stride", f"a stride of {self.stride} cuts the text {-(-self.window // self.stride):,} times, "
                        f"and {_MAX_OVERLAP} are the most.", "Write a larger stride.")  # fmt: skip
        return self


def read(options: Options) -> SourceRows:
    """Read all documents.

    Raises:
        BmcliError: A file is missing or of another encoding, or all are empty.
    """
    import numpy as np
    import pyarrow as pa

    starts: dict[File, list[int]] = {}
    chunks: list[pa.Array] = []
    positions: list[int] = []
    empty: list[str] = []
    lengths: dict[str | None, int] = {}
    for split, path in options.tables():
        text = _read_document(path, options.encoding)
        windows = list(_cut_windows(text, options.window, options.stride))
        starts[path] = [each.start for each in windows]
        chunks.append(pa.array([text[each.start : each.end] for each in windows], pa.string()))
        first = positions[-1] + 1 if positions else 0
        positions += [first + each.position for each in windows]
        lengths[split] = lengths.get(split, 0) + len(windows)
        if not windows:
            empty.append(files.format_path(path))
    if not any(starts.values()):
        raise BmcliError(
            f"{options.describe_files()}: holds no text.", path=files.RECIPE_PATH, suggestion="Name another file."
        )
    places = [(path, len(each)) for path, each in starts.items()]

    def describe_row(row: int) -> str:
        path, number = locate_row(places, row)
        return f"{files.format_path(path)} from character {starts[path][number] + 1}"

    count = sum(length for _, length in places)
    return SourceRows(
        columns={
            "text": pa.chunked_array(chunks, pa.string()),
            "document": _repeat_names(places),
            "position": np.array(positions, dtype="int64"),
        },
        split=repeat_split_names(lengths),
        describe_row=describe_row,
        count=count,
        origin="",
        notes=_describe_empty(empty),
    )


def _describe_empty(empty: Sequence[str]) -> tuple[str, ...]:
    if not empty:
        return ()
    return (f"{len(empty):,} {'documents are' if len(empty) > 1 else 'document is'} empty, such as {empty[0]}.",)


def _repeat_names(places: Sequence[tuple[File, int]]) -> pa.ChunkedArray:
    """Repeat the name of each document for its windows; documents of one name get their folder too."""
    import pyarrow as pa

    names = [path.name for path, _ in places]
    full = [path.name if names.count(path.name) == 1 else str(path) for path, _ in places]
    chunks = [pa.repeat(name, length) for name, (_, length) in zip(full, places, strict=True)]
    return pa.chunked_array(chunks, pa.string())


def _read_document(path: File, encoding: str) -> str:
    """Read a document, with line ends as in Unix and without a byte order mark."""
    content = files.read_bytes(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise files.file_error(
            path, f"byte {error.start + 1:,} is not {encoding}.", "Set `encoding`, for example to cp1252 or utf-16.",
        ) from None  # fmt: skip
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


class _Window(NamedTuple):
    """Characters `start` to `end` of a document, and the number within it of the window, or of its section."""

    start: int
    end: int
    position: int


def _cut_windows(text: str, window: int, stride: int | None) -> Iterator[_Window]:
    """Cut a document into windows; with a stride, each of its sections once per multiple of it within a window."""
    ends = list(_cut(text, 0, window))
    starts = [0, *ends[:-1]]
    if stride is None:
        yield from map(_Window, starts, ends, range(len(ends)))
        return
    for section in range(0, len(ends), _SECTION):
        first, last = starts[section], ends[min(section + _SECTION, len(ends)) - 1]
        for offset in range(0, min(window, last - first), stride):
            start = first + offset
            for end in _cut(text[:last], start, window):
                yield _Window(start, end, section // _SECTION)
                start = end


def _cut(text: str, start: int, window: int) -> Iterator[int]:
    """Cut a text from its character `start` on into windows, and yield the end of each."""
    while start < len(text):
        end = start + window
        if end < len(text):
            earliest = start + int(_EARLIEST_CUT * window)
            blank = max(text.rfind(mark, earliest, end) for mark in (" ", "\n", "\t"))
            end = end if blank < 0 else blank + 1
            while end < len(text) and unicodedata.combining(text[end]):
                end += 1  # a mark belongs to the letter before it
        yield (start := min(end, len(text)))
