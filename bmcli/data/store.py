"""Entries of the cache: folders of arrays, whole and as they were written, or made again."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bmcli import disk, trust
from bmcli.errors import RunFailed
from bmcli.messages import write_message
from bmcli.specs import SPLITS, DataSpec

if TYPE_CHECKING:
    import numpy as np

_RECORD_FILE = "files.json"
_SEAL_FILE = "checked"
_SEAL_PURPOSE = "checked entry of the cache"

LARGE_BYTES = 2**30
_SETTLED_NS = 2 * 10**9  # two changes of a file closer together than its file system's clock ticks look like one

_found_whole: dict[Path, str] = {}


def ensure_entry(folder: Path, make: Callable[[Path], None]) -> None:
    """Makes an entry of the cache unless it is there and whole; a damaged one is made again, with a word about it.

    Args:
        folder: Of the entry, named by a key of its content.
        make: Fills a folder, which then takes the name of the entry: nobody ever sees half of it.

    Raises:
        RunFailed: The cache cannot be written.
    """
    if not find_damage(folder):
        return
    with translate_write_errors(folder.parent), lock_entry(folder):
        if not (found := find_damage(folder)):
            return
        if os.path.lexists(folder):
            write_message(f"warning: {folder} in the cache is damaged ({found}); it is made again.")
        with _draft_entry(folder) as draft:
            make(draft)


def find_damage(folder: Path) -> str:
    """Tell why an entry is not there as it was written, or an empty text if it is.

    Every byte is compared with its SHA-256, once in a process as long as no file's size, times and identity change:
    0.6 s a GiB. Entries of more than a GiB, which may be larger than memory, are read in full once; later processes
    trust a seal over sizes, times and identities then, which every write changes, but not a disk that forgets.
    """
    try:
        _check(folder)
    except disk.DamagedFile as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {(error.strerror or str(error)).lower()}"
    return ""


class PreparedDataWriter:
    """A folder of prepared data that is being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stacks: dict[Path, tuple[int, tuple[int, ...], str]] = {}
        for split in SPLITS:
            (folder / split).mkdir()

    def write(self, split: str, file: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]) -> None:
        """Writes an array whose rows come in pieces."""
        _write_array(self._folder / split / f"{file}.npy", shape, dtype, pieces)

    def append(self, split: str, file: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]) -> None:
        """Writes an array behind those of the same shape in a file, which then is one more on its first axis."""
        path = self._folder / split / f"{file}.npy"
        count = self._stacks[path][0] if path in self._stacks else 0
        if not count:
            _write_array(path, (0, *shape), dtype, ())
        with disk.convert_write_errors(path, _bytes(shape, dtype)), path.open("ab") as stream:
            _write_pieces(stream, dtype, pieces)
        self._stacks[path] = count + 1, shape, dtype

    def finish(self, spec: DataSpec) -> None:
        """Writes what the arrays are."""
        for path, (count, shape, dtype) in self._stacks.items():
            with path.open("r+b") as stream:
                _write_header(stream, (count, *shape), dtype)
        disk.write_and_flush(self._folder / "spec.json", json.dumps(spec.to_json(), allow_nan=False).encode())


@contextmanager
def lock_entry(folder: Path) -> Iterator[None]:
    """Waits until no other process makes the same entry. The lock ends with the process."""
    import fcntl

    disk.make_private_folder(folder.parent)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def translate_write_errors(cache: Path) -> Iterator[None]:
    """Turns what the file system refuses into a RunFailed that names the place."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        place, sizes = error.filename or cache, ""
        if isinstance(error, disk.WriteFailure):
            place, sizes = cache, error.sizes  # the file itself is of a draft that is gone now
        raise RunFailed(
            f"{place}: cannot keep the prepared data: {reason}{sizes}.",
            suggestion="Free some space there, or make the folder writable.",
        ) from None


def _check(folder: Path) -> None:
    """Raises Damaged or OSError unless an entry is there as it was written."""
    if folder.is_symlink():
        raise disk.DamagedFile("a symbolic link")
    record = _read_record(folder)
    stamps = {name: _stamp(folder / name, name) for name in record["files"]}
    state = disk.compute_record_digest({**record, "stamps": stamps})
    if _found_whole.get(folder) == state:
        return
    large = sum(size for size, *_ in stamps.values()) > LARGE_BYTES
    if large and _has_seal(folder, state):
        return
    start = time.time_ns()
    for name, expected in record["files"].items():
        if disk.compute_sha256(folder / name) != expected:
            raise disk.DamagedFile(f"{name}: changed since it was written, by its SHA-256")
    if all(changed < start - _SETTLED_NS for _, _, changed, _ in stamps.values()):
        _found_whole[folder] = state
        if large:
            _flush(folder, record["files"])
            _write_seal(folder, state)


def _read_record(folder: Path) -> dict[str, Any]:
    """The SHA-256 of each file of an entry, by its path there."""
    _stamp(folder / _RECORD_FILE, _RECORD_FILE)
    try:
        record = disk.read_record(folder / _RECORD_FILE)
    except disk.DamagedFile as error:
        raise disk.DamagedFile(f"{_RECORD_FILE}: {error}") from None
    if record.get("key") != folder.name or not isinstance(record.get("files"), dict):
        raise disk.DamagedFile(f"{_RECORD_FILE}: not of this entry")
    return record


def _stamp(path: Path, name: str) -> tuple[int, int, int, int]:
    """Size, times and identity of a file."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise disk.DamagedFile(f"{name}: not a file")
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _has_seal(folder: Path, state: str) -> bool:
    with suppress(OSError, ValueError):
        return trust.is_sealed(state.encode(), _SEAL_PURPOSE, (folder / _SEAL_FILE).read_text(encoding="ascii"))
    return False


def _flush(folder: Path, names: Iterable[str]) -> None:
    """Has files written to the disk: a seal is trusted afterwards, and must not vouch for what is in memory alone."""
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _write_seal(folder: Path, state: str) -> None:
    if seal := trust.seal(state.encode(), _SEAL_PURPOSE):
        with suppress(OSError):  # without it the entry is read again
            disk.write_atomically(folder / _SEAL_FILE, seal.encode(), disk.PRIVATE_MODE)


@contextmanager
def _draft_entry(folder: Path) -> Iterator[Path]:
    draft = folder.with_name(f".{folder.name}.draft")
    disk.remove(draft)
    try:
        disk.make_private_folder(draft)
        yield draft
        _write_record(draft, folder.name)
        disk.remove(folder)
        os.rename(draft, folder)
        disk.flush_folder(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _write_record(folder: Path, key: str) -> None:
    """Writes the digest of every file of an entry; nothing may be written afterwards.

    The files are left to the system to write: what a power failure takes of them, their digests miss when the entry is
    opened, and it is made again.
    """
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    digests = {path.relative_to(folder).as_posix(): disk.compute_sha256(path) for path in paths}
    disk.write_record(folder / _RECORD_FILE, {"key": key, "files": digests})


def _write_array(path: Path, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]) -> None:
    with disk.convert_write_errors(path, _bytes(shape, dtype)), path.open("wb") as file:
        _write_header(file, shape, dtype)
        _write_pieces(file, dtype, pieces)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: str) -> None:
    """Writes what an array is; of the same length whatever the length of its first axis."""
    import numpy as np
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})


def _write_pieces(file: IO[bytes], dtype: str, pieces: Iterable[np.ndarray]) -> None:
    import numpy as np

    for piece in pieces:
        file.write(np.ascontiguousarray(piece, dtype).data)


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    import numpy as np

    return math.prod(shape) * np.dtype(dtype).itemsize
