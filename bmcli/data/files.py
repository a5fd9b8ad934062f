"""Files of a source: paths and addresses, bytes and digests, with faults that name the file."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import quote

from bmcli import disk, limits, parts
from bmcli.errors import BmcliError
from bmcli.machine import read_available_bytes
from bmcli.quoting import quoted
from bmcli.recipe import addresses
from bmcli.recipe.addresses import is_address

RECIPE_PATH = "data.source.path"
CHUNK = 2**24  # bytes that are read at once


@dataclass(frozen=True)
class Address:
    """A file or folder of an object store, such as `s3://bucket/table.parquet`."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        return self.text.partition("?")[0].rstrip("/").rpartition("/")[2]

    def exists(self) -> bool:
        from pyarrow import fs

        return self.info().type != fs.FileType.NotFound

    def info(self) -> Any:
        """Request type, size and modification time from the object store."""
        with _translate_os_errors(self):
            system, path = self._system()
            return system.get_file_info(path)

    def open(self) -> Any:
        """Open the file for random access."""
        system, path = self._system()
        return system.open_input_file(path)

    @property
    def parent(self) -> Address:
        path, mark, options = self.text.partition("?")
        return Address(path.rstrip("/").rpartition("/")[0] + mark + options)

    def children(self) -> list[Address]:
        """List the files of a folder."""
        from pyarrow import fs

        with _translate_os_errors(self):
            system, folder = self._system()
            entries = system.get_file_info(fs.FileSelector(folder))
        path, mark, options = self.text.partition("?")
        names = [entry.base_name for entry in entries if entry.type == fs.FileType.File]
        return [Address(f"{path.rstrip('/')}/{quote(name)}{mark}{options}") for name in names]

    def _system(self) -> tuple[Any, str]:
        """Return the file system and the path in it.

        Every access to an object store passes through here, so that none escapes the check of its origin.

        Raises:
            BmcliError: The user has not allowed the origin, or the address is malformed.
        """
        if not addresses.is_allowed(self.text):
            origin = addresses.get_origin(self.text)
            raise BmcliError(
                f"{self}: the recipe reads from {origin}, which uses the network and your credentials.",
                path=RECIPE_PATH,
                suggestion=f"If you trust it, set {addresses.ENVIRONMENT_VARIABLE}={origin}, or write the whole "
                "address on the command line: data.source.path=ADDRESS. A part of an address, such as "
                "vars.bucket=NAME, does not allow it.",
            )
        from pyarrow import fs

        try:
            location: tuple[Any, str] = fs.FileSystem.from_uri(self.text)
        except ValueError as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise BmcliError(
                f"{self}: no address of a file: {reason}.",
                path=RECIPE_PATH,
                suggestion="Addresses begin with s3://, gs://, hdfs://, abfs:// or file://.",
            ) from None
        return location


File: TypeAlias = Path | Address


def parse_path(path: str) -> File:
    """Parse a path or an address of a recipe."""
    return Address(path) if is_address(path) else Path(path)


def file_error(path: File, message: str, suggestion: str = "", line: int | None = None) -> BmcliError:
    """Make the error of a file of a source: `a.csv: is empty.`, or with a line `a.csv:7  expected 3 cells, ...`."""
    place = f"{format_path(path)}:" if line is None else f"{format_path(path)}:{line} "
    return BmcliError(f"{place} {message}", path=RECIPE_PATH, suggestion=suggestion)


def find_files(path: str, endings: tuple[str, ...]) -> tuple[File, ...]:
    """Find the files of a path: one file; those of a folder; or those that match a pattern, such as `part-*.csv`.

    Args:
        endings: Endings of the files that are read in a folder. Files such as `.part` and `_SUCCESS`, whose names begin
            with a dot or an underscore, are left out.

    Raises:
        BmcliError: A folder or a pattern has no file.
    """
    place = parse_path(path)
    if _is_folder(place):
        visible = [each for each in _list_children(place) if not each.name.startswith((".", "_"))]
        files = [each for each in visible if each.name.lower().removesuffix(".gz").endswith(endings)]
        problem = f"holds no file that ends in {' or '.join(endings)}."
    elif _is_pattern(place):
        files = [each for each in _list_children(place.parent) if fnmatchcase(each.name, place.name)]
        problem = "matches no file."
    else:
        return (place,)
    if not files:
        raise file_error(place, problem)
    return tuple(sorted(files, key=lambda each: each.name))


def _is_folder(place: File) -> bool:
    if isinstance(place, Path):
        return os.path.isdir(
            place
        )  # Unlike pathlib's, false for a name that the system refuses, such as a very long one.
    from pyarrow import fs

    return bool(place.info().type == fs.FileType.Directory)


def _is_pattern(place: File) -> bool:
    """Whether a name contains wildcards, and is not the literal name of a file."""
    if isinstance(place, Path):
        return any(mark in place.name for mark in "*?[") and not os.path.exists(place)
    return "*" in place.name and not place.exists()


def _list_children(folder: File) -> list[File]:
    if isinstance(folder, Address):
        return list(folder.children())
    with _translate_os_errors(folder):
        return [each for each in folder.iterdir() if each.is_file()]


def exists(path: Path) -> bool:
    """Whether a file or folder exists; raise BmcliError if the user has no permission to look."""
    with _translate_os_errors(path):
        return path.exists()


def list_folder(folder: Path) -> list[Path]:
    """List the content of a folder, sorted; raise BmcliError if it cannot be read."""
    with _translate_os_errors(folder):
        return sorted(folder.iterdir())


def get_ending(name: str) -> str:
    """Return the ending of a file name in lower case and without `.gz`, such as `.csv`."""
    return Path(name.lower().removesuffix(".gz")).suffix


def format_path(path: File) -> str:
    """Format a path or an address for a message, as `disk.format_path` does."""
    return path.text if isinstance(path, Address) else disk.format_path(path)


@contextmanager
def open_file(path: File) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes; errors of the file system become BmcliErrors."""
    with _translate_os_errors(path):
        # Opening a named pipe would wait for a writer for ever.
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            raise file_error(path, f"expected a file, found a {'folder' if path.is_dir() else 'device or pipe'}.")
        with path.open("rb") if isinstance(path, Path) else path.open() as file:
            yield file


@contextmanager
def _translate_os_errors(path: File) -> Iterator[None]:
    """Turn errors of the file system into BmcliErrors that name the file."""
    try:
        yield
    except FileNotFoundError:
        raise missing_file_error(path) from None
    except OSError as error:
        reason = (error.strerror or str(error).partition("\n")[0]).lower().rstrip(".")
        raise file_error(path, f"cannot be read: {reason}.") from None


def read_stamp(path: File) -> tuple[int, int, int]:
    """Read size, modification time and inode of a file, by which a change while reading is noticed."""
    if isinstance(path, Address):
        info = path.info()
        return info.size or 0, info.mtime_ns or 0, 0
    with open_file(path) as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def missing_file_error(path: File, what: str = "file") -> BmcliError:
    """Make the error of a path that does not exist, with the most similar name in its folder."""
    try:
        near = parts.nearest(path.name, (item.name for item in path.parent.iterdir())) if isinstance(path, Path) else ""
    except OSError:
        near = None
    suggestion = f"Did you mean {quoted(near, 300)}?" if near and near != path.name else ""
    return file_error(path, f"no such {what}.", suggestion)


def read_bytes(path: File) -> bytes:
    """Read all bytes of a file, decompressed if they are gzip.

    Raises:
        BmcliError: The file cannot be read, or its gzip stream is damaged or expands beyond `limits.check_growth`.
    """
    return b"".join(read_chunks(path))


def read_chunks(path: File) -> Iterator[bytes]:
    """Read a file in chunks, decompressed if they are gzip; raise as `read_bytes` does."""
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"  # The content decides, because a file name need not end in `.gz`.
        file.seek(0)
        if not packed:
            while chunk := file.read(CHUNK):
                yield chunk
            return
        try:
            yield from _unpack_chunks(path, file)
        except EOFError:
            raise file_error(path, "the gzip stream ends too early.") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise file_error(path, f"damaged gzip stream: {error}.") from None


class ChunkStream(io.RawIOBase):
    """A file object that reads an iterable of byte chunks from front to back."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._left = iter(chunks), memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = memoryview(chunk)
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)

    def readinto(self, buffer: Any) -> int:
        taken = self.read(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)


def check_memory(path: File, needed: int, suggestion: str = "") -> None:
    """Raise BmcliError if reading a file needs more bytes of memory than are free."""
    free = read_available_bytes()
    if needed > free:
        raise file_error(path, f"reading it takes {needed} bytes of memory, but {free} are free.", suggestion)


def compute_fingerprint(paths: Iterable[File]) -> str:
    """Compute the SHA-256 of one file, or of the digests of several; their names and folders do not matter."""
    digests = [
        _compute_digest(path) if isinstance(path, Address) else _compute_digest_once(path, read_stamp(path))
        for path in paths
    ]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


@functools.lru_cache(maxsize=100_000)
def _compute_digest_once(path: Path, stamp: tuple[int, int, int]) -> str:
    """Compute the digest of a file once for each stamp: every trial of a search needs it again."""
    return _compute_digest(path)


def _compute_digest(path: File) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack_chunks(path: File, file: IO[bytes]) -> Iterator[bytes]:
    packed_bytes, unpacked_bytes = file.seek(0, io.SEEK_END), 0
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(CHUNK):
            # Counted, because the size in the trailer of a gzip stream may be forged, and is modulo 4 GiB.
            unpacked_bytes += len(chunk)
            limits.check_growth(format_path(path), packed_bytes, unpacked_bytes)
            yield chunk
