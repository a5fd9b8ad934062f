"""Detection of the source of a file by its content and its name, and of a folder by the names in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bmcli.data import files, picture_folders
from bmcli.data.sources import map_endings_to_kinds
from bmcli.data.splitting.splits import parse_split_name
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.specs import SPLITS

_SIGNATURE_BYTES = 4096  # from the start of a file, by which its format is recognised
_TEXT_ENDINGS = ("", ".txt", ".text", ".data", ".dat", ".asc", ".all", ".train", ".test", ".trn", ".tst")
"""Endings of files that may be tables of delimited text, beside those that promise one."""
_FOREIGN_FILES = {
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a single NumPy array; save it by numpy.savez",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"<!DOCTYPE": "a page of HTML or XML",
    b"<!doctype": "a page of HTML or XML",
    b"<html": "a page of HTML or XML",
    b"<?xml": "a page of HTML or XML",
}
"""Formats that no source reads, by the bytes that their files begin with."""
_JSON_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"([^"\\]|\\.)*"\s*:')
_LAST_WORD = re.compile(r"(?:^|[-_. ])([A-Za-z]+)$")


@dataclass(frozen=True)
class DetectedSource:
    """A detected source.

    Args:
        kind: A module of `data.sources`.
        path: A file, a folder, or a file for each split.
        options: Further options of the source.
    """

    kind: str
    path: Path | Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_options(self) -> dict[str, Any]:
        """Convert to options of `data.source`, with the paths as they were passed in."""
        path = {split: str(each) for split, each in self.path.items()} if isinstance(self.path, Mapping) else self.path
        return {"kind": self.kind, "path": path if isinstance(path, dict) else str(path), **self.options}


def detect_source(data: Path) -> DetectedSource:
    """Detect the source of a table, an archive of arrays, or a folder of tables or pictures.

    Raises:
        BmcliError: The path does not exist, or no source reads its files.
    """
    try:
        if not files.exists(data):
            raise files.missing_file_error(data, "file or folder")
        return _detect_folder(data) if data.is_dir() else detect_file(data)
    except BmcliError as error:
        raise _drop_recipe_path(error) from None


def detect_file(file: Path) -> DetectedSource:
    """Detect the source of a table or an archive by its first bytes, and by the ending of its name if these are text.

    Raises:
        BmcliError: No source reads such files.
    """
    suffix = files.get_ending(file.name)
    start = next(files.read_chunks(file), b"")[:_SIGNATURE_BYTES]
    what = next((what for mark, what in _FOREIGN_FILES.items() if start.lstrip().startswith(mark)), "")
    if start.startswith(b"PK") and b"[Content_Types].xml" in start:
        what = "an Excel file"
    if what:
        raise BmcliError(f"{files.format_path(file)}: is {what}.", suggestion="Save the table as CSV or Parquet.")
    kind = _detect_kind(start) or map_endings_to_kinds().get(suffix)
    if kind is None and suffix in _TEXT_ENDINGS and start and b"\0" not in start:
        kind = "csv"
    if kind is None:
        ending = f"files ending in {quoted(suffix)}" if suffix else "files without an ending"
        raise BmcliError(f"{files.format_path(file)}: no source reads {ending}.", suggestion=_describe_known_endings())
    return DetectedSource(kind, file)


def _detect_kind(start: bytes) -> str | None:
    """Return the source that the first bytes of a file are certain of; None for other text, and for TFRecord files."""
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04") and b".npy" in start:
        return "npz"
    return "jsonl" if _JSON_OBJECT.match(start) else None


def _detect_folder(folder: Path) -> DetectedSource:
    content = [path for path in files.list_folder(folder) if not path.name.startswith(".")]
    if any("-images-idx3-ubyte" in path.name for path in content):
        return DetectedSource("idx", folder)
    if not _select_tables(content) and any(_holds_pictures(folder, pattern) for pattern in ("*/*", "*/*/*")):
        return DetectedSource("image_folder", folder)
    return _detect_tables(folder, _select_tables(content))


def _holds_pictures(folder: Path, pattern: str) -> bool:
    """Whether a pattern finds a picture in folders that are not hidden."""
    return any(
        picture_folders.is_picture(path)
        and not any(map(picture_folders.is_left_out, (path, *path.relative_to(folder).parents)))
        for path in folder.glob(pattern)
    )


def _select_tables(content: list[Path]) -> list[Path]:
    return [path for path in content if path.is_file() and files.get_ending(path.name) in map_endings_to_kinds()]


def _detect_tables(folder: Path, tables: list[Path]) -> DetectedSource:
    """Detect the source of a folder of tables: one table, one for each split, or one in many files."""
    if not tables:
        raise BmcliError(
            f"{files.format_path(folder)}: contains neither tables nor pictures.", suggestion=_describe_known_endings()
        )
    if len(tables) == 1:
        return detect_file(tables[0])
    kinds = sorted({map_endings_to_kinds()[files.get_ending(path.name)] for path in tables})
    splits = {path: _parse_split(path) for path in tables}
    by_split = {split: path for split in SPLITS for path, name in splits.items() if name == split}
    if len(kinds) == 1 and "train" in by_split and len(by_split) == len(tables):
        return DetectedSource(kinds[0], by_split)
    if len(kinds) == 1 and not by_split and len({files.get_ending(path.name) for path in tables}) == 1:
        return DetectedSource(kinds[0], folder)
    names = ", ".join(path.name for path in tables[:5]) + (" ..." if len(tables) > 5 else "")
    raise BmcliError(
        f"{files.format_path(folder)}: expected one table, one table per split, or files of one ending; found {names}.",
        suggestion="Pass one of the files, or name them train, validation and test.",
    )


def _parse_split(path: Path) -> str:
    """Return the split in the last word of a file name, such as `mails_train.csv.gz`; empty without one."""
    word = _LAST_WORD.search(path.name.removesuffix(".gz").rpartition(".")[0])
    return parse_split_name(word[1]) if word else ""


def _describe_known_endings() -> str:
    return f"Known endings: {', '.join(map_endings_to_kinds())}; also folders of such files or of pictures."


def _drop_recipe_path(error: BmcliError) -> BmcliError:
    """Remove the path in a recipe from an error, because there is no recipe yet."""
    return BmcliError(error.faults[0].message, suggestion=error.faults[0].suggestion)
