"""Files of a source: which they are, their bytes and identity, with faults that name the file."""

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

from bmcli import limits, parts
from bmcli.errors import BmcliError
from bmcli.machine import read_available_bytes
from bmcli.quoting import quoted
from bmcli.recipe import addresses
from bmcli.recipe.addresses import is_address

RECIPE_PATH = "data.source.path"
CHUNK = 2**24


@dataclass(frozen=True)
class Address:
    """A file or folder of an object store, as `s3://bucket/table.parquet`."""

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
        """What its file system tells of it: type, size, time of the last change."""
        with _translate_os_errors(self):
            system, path = self._system()
            return system.get_file_info(path)

    def open(self) -> Any:
        """Its bytes, to be read from any place."""
        system, path = self._system()
        return system.open_input_file(path)

    @property
    def parent(self) -> Address:
        path, mark, options = self.text.partition("?")
        return Address(path.rstrip("/").rpartition("/")[0] + mark + options)

    def children(self) -> list[Address]:
        """The files of a folder."""
        from pyarrow import fs

        with _translate_os_errors(self):
            system, folder = self._system()
            found = system.get_file_info(fs.FileSelector(folder))
        path, mark, options = self.text.partition("?")
        names = [item.base_name for item in found if item.type == fs.FileType.File]
        return [Address(f"{path.rstrip('/')}/{quote(name)}{mark}{options}") for name in names]

    def _system(self) -> tuple[Any, str]:
        """The file system, and the path in it: the one place from which an object store is spoken to."""
        if not addresses.is_allowed(self.text):
            place = addresses.get_origin(self.text)
            raise BmcliError(
                f"{self}: a recipe asks to read from {place}, which takes the network and your credentials.",
                path=RECIPE_PATH,
                suggestion=f"If you trust it, set {addresses.ENVIRONMENT_VARIABLE}={place}, or write the whole address "
                "on the command line, as data.source.path=ADDRESS; a part of it, as vars.bucket=NAME, is no word for "
                "what a recipe makes of it.",
            )
        from pyarrow import fs

        try:
            found: tuple[Any, str] = fs.FileSystem.from_uri(self.text)
        except ValueError as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise BmcliError(
                f"{self}: no address of a file: {reason}.",
                path=RECIPE_PATH,
                suggestion="Addresses begin with s3://, gs://, hdfs://, abfs:// or file://.",
            ) from None
        return found


File: TypeAlias = Path | Address


def parse_path(path: str) -> File:
    """A path or an address, as it stands in a recipe."""
    return Address(path) if is_address(path) else Path(path)


def find_files(path: str, endings: tuple[str, ...]) -> tuple[File, ...]:
    """The files that a path names: one file; those of a folder; or those that fit a pattern, as `part-*.csv`.

    Args:
        endings: Of the names that count in a folder, where files beginning with a dot or underscore do not.

    Raises:
        BmcliError: A folder or a pattern without a file.
    """
    place = parse_path(path)
    if _is_folder(place):
        every = [each for each in _children(place) if not each.name.startswith((".", "_"))]
        files = [each for each in every if each.name.lower().removesuffix(".gz").endswith(endings)]
        lacks = f"holds no file that ends in {' or '.join(endings)}."
    elif _is_pattern(place):
        files = [each for each in _children(place.parent) if fnmatchcase(each.name, place.name)]
        lacks = "fits no file."
    else:
        return (place,)
    if not files:
        raise BmcliError(f"{format_path(place)}: {lacks}", path=RECIPE_PATH)
    return tuple(sorted(files, key=lambda each: each.name))


def _is_folder(place: File) -> bool:
    if isinstance(place, Path):
        return os.path.isdir(place)  # Unlike pathlib's, false where the system refuses a name.
    from pyarrow import fs

    return bool(place.info().type == fs.FileType.Directory)


def _is_pattern(place: File) -> bool:
    """Whether a name that no file has can stand for several."""
    if isinstance(place, Path):
        return any(mark in place.name for mark in "*?[") and not os.path.exists(place)
    return "*" in place.name and not place.exists()


def _children(folder: File) -> list[File]:
    if isinstance(folder, Address):
        return list(folder.children())
    with _translate_os_errors(folder):
        return [each for each in folder.iterdir() if each.is_file()]


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; raises BmcliError where this user must not know."""
    with _translate_os_errors(path):
        return path.exists()


def listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; raises BmcliError if it cannot be read."""
    with _translate_os_errors(folder):
        return sorted(folder.iterdir())


def get_ending(name: str) -> str:
    """What a file's name ends in, as `.csv`, in small letters and without `.gz`."""
    return Path(name.lower().removesuffix(".gz")).suffix


def format_path(path: File) -> str:
    """A path as short as the reader needs it: relative when below the working directory."""
    if isinstance(path, Address):
        return path.text
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


@contextmanager
def open_file(path: File) -> Iterator[IO[bytes]]:
    """The file's bytes as a stream; whatever the file system refuses becomes a BmcliError."""
    with _translate_os_errors(path):
        # A named pipe would block on opening.
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            raise BmcliError(
                f"{format_path(path)}: expected a file, found a {_describe_file_type(path)}.", path=RECIPE_PATH
            )
        with path.open("rb") if isinstance(path, Path) else path.open() as file:
            yield file


@contextmanager
def _translate_os_errors(path: File) -> Iterator[None]:
    """Turns what a file system refuses into a BmcliError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise missing_file_error(path) from None
    except OSError as error:
        reason = (error.strerror or str(error).partition("\n")[0]).lower().rstrip(".")
        raise BmcliError(f"{format_path(path)}: cannot be read: {reason}.", path=RECIPE_PATH) from None


def read_stamp(path: File) -> tuple[int, int, int]:
    """Size, time and identity of a file, to notice a change while reading."""
    if isinstance(path, Address):
        info = path.info()
        return info.size or 0, info.mtime_ns or 0, 0
    with open_file(path) as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def missing_file_error(path: File, what: str = "file") -> BmcliError:
    """The fault of a path that does not exist, with the nearest name beside it."""
    try:
        near = parts.nearest(path.name, (item.name for item in path.parent.iterdir())) if isinstance(path, Path) else ""
    except OSError:
        near = None
    suggestion = f"Did you mean {quoted(near, 300)}?" if near and near != path.name else ""
    return BmcliError(f"{format_path(path)}: no such {what}.", path=RECIPE_PATH, suggestion=suggestion)


def read_bytes(path: File) -> bytes:
    """All bytes of a file, unpacked if they are gzip.

    Raises:
        BmcliError: The file cannot be read, or its gzip stream is damaged or grows beyond reason.
    """
    return b"".join(read_chunks(path))


def read_chunks(path: File) -> Iterator[bytes]:
    """The bytes of a file piece by piece, unpacked if they are gzip; raises what `read_bytes` does."""
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            while chunk := file.read(CHUNK):
                yield chunk
            return
        try:
            yield from _unpack_chunks(path, file)
        except EOFError:
            raise BmcliError(f"{format_path(path)}: the gzip stream ends too early.", path=RECIPE_PATH) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BmcliError(f"{format_path(path)}: damaged gzip stream: {error}.", path=RECIPE_PATH) from None


class ChunkStream(io.RawIOBase):
    """Pieces of bytes as one file to read from front to back."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._pieces, self._left = iter(chunks), memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)

    def readinto(self, buffer: Any) -> int:
        taken = self.read(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)


def check_memory(path: File, needed: int, suggestion: str = "") -> None:
    """Raises BmcliError if what is read of a file at a time takes more bytes of memory than are free."""
    free = read_available_bytes()
    if needed > free:
        raise BmcliError(
            f"{format_path(path)}: takes {needed} bytes of memory to be read, of which {free} are free.",
            path=RECIPE_PATH,
            suggestion=suggestion,
        )


def fingerprint(paths: Iterable[File]) -> str:
    """SHA-256 of one file's bytes, or of the digests of several; names and places do not matter."""
    digests = [
        _compute_digest(path) if isinstance(path, Address) else _compute_digest_once(path, read_stamp(path))
        for path in paths
    ]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


@functools.lru_cache(maxsize=100_000)
def _compute_digest_once(path: Path, stamp: tuple[int, int, int]) -> str:
    """The digest of a file as it was at a stamp: every trial of a search asks for it again."""
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
            unpacked_bytes += len(chunk)
            limits.check_growth(format_path(path), packed_bytes, unpacked_bytes)
            yield chunk


def _describe_file_type(path: Path) -> str:
    return "folder" if path.is_dir() else "device or pipe"
