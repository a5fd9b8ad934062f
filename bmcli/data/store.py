"""Entries of the cache: folders of arrays whose integrity is verified, and which are made again if damaged."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bmcli import disk, records, trust
from bmcli.errors import RunFailed
from bmcli.messages import write_message
from bmcli.specs import SPLITS, DataSpec, get_base_name
from bmcli.windows import EncodedRows, WindowedArray, count_row_bytes

if TYPE_CHECKING:
    pass

_RECORD_FILE = "files.json"
_SEAL_FILE = "checked"
_SEAL_PURPOSE = "checked entry of the cache"

LARGE_BYTES = 2**30
_PIECE_BYTES = 2**26  # of a base that are written at once
# Two changes of a file within one tick of the file system's clock leave the same time, so a file must have been
# unchanged for longer before its time identifies its content.
_SETTLED_NS = 2 * 10**9

_verified_entries: dict[Path, str] = {}
"""Digest of the record and the stamps of each entry that this process has verified."""


def ensure_entry(folder: Path, make: Callable[[Path], None]) -> None:
    """Make an entry of the cache unless it exists and is intact; a damaged entry is made again, with a warning.

    Args:
        folder: Folder of the entry, named by a key of its content.
        make: Function that fills a draft folder, which is renamed to the entry when it is complete.

    Raises:
        RunFailed: The cache cannot be written.
    """
    if not find_damage(folder):
        return
    with translate_write_errors(folder.parent), lock_entry(folder):
        if not (damage := find_damage(folder)):  # Another process has made it while this one waited for the lock.
            return
        if os.path.lexists(folder):
            write_message(f"warning: {folder} in the cache is damaged ({damage}); it is made again.")
        with _draft_entry(folder) as draft:
            make(draft)


def find_damage(folder: Path) -> str:
    """Describe the damage of an entry, such as a missing or changed file; empty if it is intact.

    The files are compared with their SHA-256, which takes 0.6 s per GiB, once in a process as long as their sizes,
    times and inodes do not change. Entries of more than `LARGE_BYTES`, which may be larger than memory, are read in
    full only once: later processes trust a seal over sizes, times and inodes. Every write changes these, but decay of
    the disk does not.
    """
    try:
        _check_entry(folder)
    except disk.DamagedFile as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {(error.strerror or str(error)).lower()}"
    return ""


class PreparedDataWriter:
    """Writer of a folder of prepared data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stacks: dict[Path, tuple[int, tuple[int, ...], str]] = {}
        for split in SPLITS:
            (folder / split).mkdir()

    def write(self, split: str, file: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[EncodedRows]) -> None:
        """Write an array whose rows come in pieces."""
        _write_array(self._folder / split / f"{file}.npy", shape, dtype, pieces)

    def append(self, split: str, file: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[EncodedRows]) -> None:
        """Append an array to a file of arrays of the same shape, which are stacked on a new first axis."""
        path = self._folder / split / f"{file}.npy"
        count = self._stacks[path][0] if path in self._stacks else 0
        if not count:
            _write_array(path, (0, *shape), dtype, ())
        with disk.convert_write_errors(path, _count_bytes(shape, dtype)), path.open("ab") as stream:
            _write_pieces(stream, dtype, pieces)
        self._stacks[path] = count + 1, shape, dtype

    def write_windows(self, file: str, windows: WindowedArray, counts: Mapping[str, int]) -> None:
        """Write windows: the part of their base that they use once, and the starts of each split.

        Args:
            counts: Number of rows of each split, in the order of the windows.
        """
        windows = windows.crop()
        write_base(self._folder / get_base_name(file), windows)
        first = 0
        for split, count in counts.items():
            write_starts(self._folder / split / f"{file}.npy", windows[first : first + count])
            first += count

    def finish(self, spec: DataSpec) -> None:
        """Write the description of the arrays, and complete the headers of stacked arrays."""
        for path, (count, shape, dtype) in self._stacks.items():
            # The number of arrays is known only now; the length of the header does not depend on it.
            with path.open("r+b") as stream:
                _write_header(stream, (count, *shape), dtype)
        disk.write_and_flush(self._folder / "spec.json", json.dumps(spec.to_json(), allow_nan=False).encode())


def write_base(path: Path, windows: WindowedArray) -> None:
    """Write the base of windows piece by piece, since it may be mapped and larger than memory."""
    base, steps = windows.base, max(1, _PIECE_BYTES // max(1, count_row_bytes(windows.base)))
    pieces = (base[start : start + steps] for start in range(0, len(base), steps))
    _write_array(path, base.shape, base.dtype.name, pieces)


def write_starts(path: Path, windows: WindowedArray) -> None:
    """Write the starts of windows, in 32 bits if these suffice."""
    dtype = "int32" if len(windows.base) < 2**31 else "int64"
    _write_array(path, windows.starts.shape, dtype, [windows.starts])


@contextmanager
def lock_entry(folder: Path) -> Iterator[None]:
    """Wait until no other process makes the same entry. The kernel frees the lock when the process ends."""
    import fcntl

    disk.make_private_folder(folder.parent)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def translate_write_errors(cache: Path) -> Iterator[None]:
    """Turn errors of the file system into a RunFailed that names the place."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        place, sizes = error.filename or cache, ""
        if isinstance(error, disk.WriteFailure):
            place, sizes = cache, error.sizes  # The file belongs to a draft that has been removed.
        raise RunFailed(
            f"{place}: cannot write the prepared data: {reason}{sizes}.",
            suggestion="Free some space there, or make the folder writable.",
        ) from None


def _check_entry(folder: Path) -> None:
    """Raise DamagedFile or OSError unless an entry exists and is intact."""
    if folder.is_symlink():
        raise disk.DamagedFile("a symbolic link")
    record = _read_record(folder)
    stamps = {name: _read_file_stamp(folder / name, name) for name in record["files"]}
    state = records.compute_record_digest({**record, "stamps": stamps})
    if _verified_entries.get(folder) == state:
        return
    large = sum(size for size, *_ in stamps.values()) > LARGE_BYTES
    if large and _has_seal(folder, state):
        return
    start = time.time_ns()
    for name, expected in record["files"].items():
        if disk.compute_sha256(folder / name) != expected:
            raise disk.DamagedFile(f"{name}: changed since it was written (its SHA-256 differs)")
    if all(changed < start - _SETTLED_NS for _, _, changed, _ in stamps.values()):
        _verified_entries[folder] = state
        if large:
            _flush_files(folder, record["files"])
            _write_seal(folder, state)


def _read_record(folder: Path) -> dict[str, Any]:
    """Read the record of an entry: its key, and the SHA-256 of each file by its path in the folder."""
    _read_file_stamp(folder / _RECORD_FILE, _RECORD_FILE)
    try:
        record = records.read_record(folder / _RECORD_FILE)
    except disk.DamagedFile as error:
        raise disk.DamagedFile(f"{_RECORD_FILE}: {error}") from None
    if record.get("key") != folder.name or not isinstance(record.get("files"), dict):
        raise disk.DamagedFile(f"{_RECORD_FILE}: not of this entry")
    return record


def _read_file_stamp(path: Path, name: str) -> tuple[int, int, int, int]:
    """Read size, modification time, change time and inode of a file."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise disk.DamagedFile(f"{name}: not a regular file")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _has_seal(folder: Path, state: str) -> bool:
    with suppress(OSError, ValueError):
        return trust.is_sealed(state.encode(), _SEAL_PURPOSE, (folder / _SEAL_FILE).read_text(encoding="ascii"))
    return False


def _flush_files(folder: Path, names: Iterable[str]) -> None:
    """Flush files to the disk: a later process trusts the seal, which must not cover data that is only in memory."""
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _write_seal(folder: Path, state: str) -> None:
    if seal := trust.seal(state.encode(), _SEAL_PURPOSE):
        with suppress(OSError):  # Without a seal the next process reads the entry in full again.
            disk.write_atomically(folder / _SEAL_FILE, seal.encode(), disk.PRIVATE_MODE)


@contextmanager
def _draft_entry(folder: Path) -> Iterator[Path]:
    """Provide a draft folder, and rename it to the entry if the block succeeds; other processes never see a part."""
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
    """Write the SHA-256 of every file of an entry; nothing may be written afterwards.

    The files are not flushed to the disk: after a power failure the digests of incomplete files differ, and the entry
    is made again.
    """
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    digests = {path.relative_to(folder).as_posix(): disk.compute_sha256(path) for path in paths}
    records.write_record(folder / _RECORD_FILE, {"key": key, "files": digests})


def _write_array(path: Path, shape: tuple[int, ...], dtype: str, pieces: Iterable[EncodedRows]) -> None:
    with disk.convert_write_errors(path, _count_bytes(shape, dtype)), path.open("wb") as file:
        _write_header(file, shape, dtype)
        _write_pieces(file, dtype, pieces)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: str) -> None:
    """Write the header of an NPY file; NumPy pads it so that its length does not depend on the first axis."""
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})


def _write_pieces(file: IO[bytes], dtype: str, pieces: Iterable[EncodedRows]) -> None:
    import numpy as np

    for piece in pieces:
        file.write(np.ascontiguousarray(piece, dtype).data)


def _count_bytes(shape: tuple[int, ...], dtype: str) -> int:
    import numpy as np

    return math.prod(shape) * np.dtype(dtype).itemsize
