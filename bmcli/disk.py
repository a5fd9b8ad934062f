"""Writing so that a crash, a full disk or a power cut leaves the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """The file afterwards holds the old content or the new one, whatever happens meanwhile."""
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        write_through(aside, content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that must not be there yet; raises as `new_file` does."""
    with new_file(path) as aside:
        write_through(aside, content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A place to write a file that must not be there yet; it takes its name at the end, if all went well.

    Raises:
        FileExistsError: It is there, perhaps since a moment ago.
    """
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield aside
        os.link(aside, path)  # refused where the name is taken, as renaming is not
    finally:
        aside.unlink(missing_ok=True)


def write_through(path: Path, content: bytes) -> None:
    """Writes a file and flushes it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        flush(file)


def sha256(path: Path) -> str:
    """SHA-256 of a file; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(file: Any) -> None:
    """Forces what was written to an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown_path(path: Path) -> str:
    """A path relative to where the user is, if it is below."""
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
