"""Files of a source: their bytes and identity, with faults that name the file."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from bmcli import parts
from bmcli.errors import BmcliError

RECIPE_PATH = "data.source.path"
FREE_BYTES = 2**28
GROWTH = 200
_CHUNK = 2**24


def shown(path: Path) -> str:
    """A path as short as the reader needs it: relative when below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file's bytes as a stream; whatever the file system refuses becomes a BmcliError."""
    try:
        # A named pipe would block on opening.
        if not stat.S_ISREG(path.stat().st_mode):
            raise BmcliError(f"{shown(path)}: expected a file, found a {_thing(path)}.", path=RECIPE_PATH)
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BmcliError(f"{shown(path)}: cannot be read: {reason}.", path=RECIPE_PATH) from None


def missing(path: Path, what: str = "file") -> BmcliError:
    """The fault of a path that does not exist, with the nearest name beside it."""
    try:
        near = parts.nearest(path.name, (item.name for item in path.parent.iterdir()))
    except OSError:
        near = None
    suggestion = f"Did you mean '{near}'?" if near and near != path.name else ""
    return BmcliError(f"{shown(path)}: no such {what}.", path=RECIPE_PATH, suggestion=suggestion)


def contents(path: Path) -> bytes:
    """All bytes of a file, unpacked if they are gzip.

    Raises:
        BmcliError: The file cannot be read, or its gzip stream is damaged or grows beyond reason.
    """
    with opened(path) as file:
        if file.peek(2)[:2] != b"\x1f\x8b":
            return file.read()
        try:
            return b"".join(_unpacked(path, file))
        except EOFError:
            raise BmcliError(f"{shown(path)}: the gzip stream ends too early.", path=RECIPE_PATH) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BmcliError(f"{shown(path)}: damaged gzip stream: {error}.", path=RECIPE_PATH) from None


def check_growth(place: str, packed_bytes: int, unpacked_bytes: int) -> None:
    """Refuses data that unpacks to far more than any honest file does.

    Real arrays and tables shrink by up to a hundred times; archives made to exhaust memory by a thousand.
    """
    if unpacked_bytes > max(FREE_BYTES, GROWTH * packed_bytes):
        raise BmcliError(
            f"{place}: {packed_bytes} bytes unpack to {unpacked_bytes} or more, over {GROWTH} times as many.",
            path=RECIPE_PATH,
        )


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 of one file's bytes, or of the digests of several; names and places do not matter."""
    digests = [_digest(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _digest(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(path: Path, file: BufferedReader) -> Iterator[bytes]:
    packed_bytes, unpacked_bytes = os.fstat(file.fileno()).st_size, 0
    with gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(_CHUNK):
            unpacked_bytes += len(chunk)
            check_growth(shown(path), packed_bytes, unpacked_bytes)
            yield chunk


def _thing(path: Path) -> str:
    return "folder" if path.is_dir() else "device or pipe"
