"""Writing so that a crash, a full disk or a power cut leaves the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PRIVATE = 0o600
"""Mode of files that may hold what only their owner should see, such as arguments of a command."""

_MAX_RECORD_BYTES = 2**28


class Damaged(ValueError):
    """A file is not what was written; the message tells what is wrong with it, without the file's name."""


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value, with null where a number is not finite."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def finite(value: Any) -> Any:
    """A JSON value with None for every number that JSON does not know: NaN and Infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def write_record(path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
    """Writes a JSON object with its own digest, so that `read_record` notices every change.

    Raises:
        ValueError: A number is not finite: JSON knows none such, so null has to stand there.
    """
    content = {**value, "sha256": record_digest(value)}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode(), mode)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object that `write_record` wrote, without its digest.

    Raises:
        OSError: It is not there or cannot be read.
        Damaged: Its bytes are not those that were written.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_RECORD_BYTES + 1)
    if len(content) > _MAX_RECORD_BYTES:
        raise Damaged(f"larger than {_MAX_RECORD_BYTES:,} bytes")
    value = parse_json(content)
    if not isinstance(value, dict):
        raise Damaged("not a JSON object")
    digest = value.pop("sha256", None)
    if digest != record_digest(value):
        raise Damaged("changed since it was written, by its SHA-256" if digest else "without its SHA-256")
    return value


def record_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys and its indentation."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_json(content: bytes | str) -> Any:
    """The JSON value of a text that may come from anywhere.

    Raises:
        Damaged: It is no JSON, nested too deeply, or holds NaN or Infinity, which JSON does not know.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise Damaged("nested too deeply") from None
    except ValueError as error:
        raise Damaged(f"no JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """The file afterwards holds the old content or the new one, whatever happens meanwhile.

    Args:
        mode: Permissions of the file, less those that the user's umask takes away.
    """
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        write_through(aside, content, mode)
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


def write_through(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file, never through a symbolic link, and flushes it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
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
