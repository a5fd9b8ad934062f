"""Folders of pictures: what is a picture, what is left out, and what must not be there; for training and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bmcli import limits
from bmcli.data import files
from bmcli.errors import BmcliError
from bmcli.pictures import IMAGE_SUFFIXES, UNREAD_SUFFIXES, looks_like_picture

_SYSTEM_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r")


@dataclass(frozen=True)
class FolderContent:
    """Content of one folder, sorted by name.

    Args:
        others: Files that are pictures by content, or of a format that is not read, but not by their names.
        left_out: Hidden files and folders, those that operating systems and editors keep for themselves, and files that
            are no pictures by content and name.
    """

    folders: tuple[Path, ...]
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]
    left_out: tuple[Path, ...]


def is_left_out(path: Path) -> bool:
    """Whether a file or folder is hidden, or belongs to an operating system: no data, wherever it lies."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture. The content decides about the format, not the name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_folder(folder: Path) -> FolderContent:
    """List a folder.

    Raises:
        BmcliError: There is no such folder, it cannot be read, or it has too many files.
    """
    if not files.exists(folder):
        raise files.missing_file_error(folder, "folder")
    try:
        # No more names are read than are allowed, so that a huge folder does not exhaust the memory first.
        content = sorted(islice(folder.iterdir(), limits.MAX_PICTURES + 1), key=lambda path: path.name)
    except NotADirectoryError:
        raise files.file_error(folder, "expected a folder, found a file.") from None
    except OSError as error:
        raise files.file_error(folder, f"cannot be read: {(error.strerror or str(error)).lower()}.") from None
    check_count(folder, len(content))
    kept = [path for path in content if not is_left_out(path)]
    folders = tuple(path for path in kept if path.is_dir())
    listed = [path for path in kept if path not in set(folders)]
    others = tuple(path for path in listed if not is_picture(path) and _may_be_picture(path))
    strays = {path for path in listed if not is_picture(path)}.difference(others)
    return FolderContent(
        folders,
        tuple(path for path in listed if is_picture(path)),
        others,
        tuple(path for path in content if path in strays or is_left_out(path)),
    )


def _may_be_picture(path: Path) -> bool:
    """Whether a file that is not named like a picture is one all the same, or cannot be opened."""
    if path.suffix.lower() in UNREAD_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return looks_like_picture(file.read(16))
    except OSError:
        return True


def check_count(folder: Path, count: int) -> None:
    """Refuse a folder of too many files."""
    if count > limits.MAX_PICTURES:
        raise files.file_error(
            folder,
            f"has more than {limits.MAX_PICTURES:,} files and folders.",
            "Write the pictures into record files, and read them with `kind: tfrecord`.",
        )


def walk(folder: Path) -> Iterator[FolderContent]:
    """Yield the content of a folder and of all folders below, without those that are left out."""
    content = read_folder(folder)
    yield content
    for each in content.folders:
        yield from walk(each)


def list_left_out(folder: Path) -> tuple[str, ...]:
    """List what is left out in a folder and below, relative to it; all files of folders without pictures."""
    return tuple(
        str(path.relative_to(folder))
        for content in walk(folder)
        for path in (*content.left_out, *(() if content.pictures else content.others))
    )


def make_other_file_error(path: Path) -> BmcliError:
    """Make the fault of a file among pictures that may be one, but is not named like one."""
    if path.suffix.lower() in UNREAD_SUFFIXES:
        return files.file_error(
            path, f"{path.suffix.lower()} pictures are not read.", "Convert them to JPEG first, with any image viewer."
        )
    known = ", ".join(IMAGE_SUFFIXES)
    return files.file_error(
        path, f"expected a picture, that is a file ending in one of {known}.", "Move it elsewhere, or convert it."
    )
