"""Files that hold either their old or their new content after a crash, a full disk or a power cut; failures to write.

A file is written under a temporary name beside its own, flushed, and renamed: POSIX replaces a name in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PRIVATE_MODE = 0o600
"""Mode of files that only their owner may read: they can hold arguments of a command."""

_PRIVATE_FOLDER_MODE = 0o700


_WRITE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteFailure(OSError):
    """A file system refused to write.

    Args:
        number: The reason, an `errno` value.
        path: The file that was to be written.
        needed: Its size in bytes, if known.
        free: Free bytes at the time; by default measured now.
        is_estimate: Whether `needed` is an estimate.
    """

    def __init__(
        self,
        number: int,
        path: Path | str | None,
        needed: int | None = None,
        free: int | None = None,
        is_estimate: bool = False,
    ) -> None:
        super().__init__(number, os.strerror(number), None if path is None else str(path))
        self.needed, self.is_estimate = needed, is_estimate
        # Measured at once: the partly written file is removed before the message is read.
        self.free = free_bytes(Path(path)) if free is None and path is not None and number in _SPACE_ERRORS else free

    def __str__(self) -> str:
        """Path, reason, and the needed and free bytes, as a sentence."""
        where = f"{format_path(Path(self.filename))}: " if self.filename else ""
        return f"{where}{(self.strerror or '').lower()}{self.sizes}."

    @property
    def sizes(self) -> str:
        """Needed and free bytes, as the end of a sentence; empty if neither is known."""
        about = "about " if self.is_estimate else ""
        size = f"; {about}{self.needed:,} bytes were to be written" if self.needed is not None else ""
        left = "" if self.free is None else f"{',' if size else ';'} {self.free:,} are free there"
        return f"{size}{left}"


@contextlib.contextmanager
def convert_write_errors(
    path: Path, needed: int | None = None, estimate: Callable[[], int | None] | None = None
) -> Iterator[None]:
    """Convert the errors of a file system that refuses what the body writes into one `WriteFailure`.

    Args:
        path: The file as the user knows it, instead of the temporary file beside it.
        needed: Its size in bytes, if known.
        estimate: Estimates the size where it is not known; called after a failure only.

    Raises:
        WriteFailure: The file system refused to write, whichever library wrote.
    """
    try:
        yield
    except Exception as error:
        failure = find_write_failure(error)
        if failure is None:
            raise
        if failure.filename is not None and _on_another_disk(Path(failure.filename), path):
            raise failure from error  # such as the disk of temporary files, whose free space is another
        estimated = None if estimate is None else estimate()
        size = failure.needed if needed is None else needed
        raise WriteFailure(
            failure.errno or 0,
            path,
            size if estimated is None else estimated,
            failure.free,
            is_estimate=estimated is not None or (needed is None and failure.is_estimate),
        ) from error


def _on_another_disk(one: Path, other: Path) -> bool:
    def device(path: Path) -> int:
        return next(each for each in (path, *path.absolute().parents) if each.exists()).stat().st_dev

    return device(one) != device(other)


def find_write_failure(error: BaseException) -> WriteFailure | None:
    """Find the failed write that caused an error of Python, TensorFlow, HDF5 or Arrow; None if it has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, WriteFailure):
            return seen
        number = _find_errno(seen)
        if number is not None:
            path = getattr(seen, "filename2", None) or getattr(seen, "filename", None) or _extract_path(str(seen))
            if isinstance(path, str) and not Path(path).parent.is_dir():
                path = None  # other text of a library, or a folder that was removed
            return WriteFailure(number, str(path) if isinstance(path, str | os.PathLike) else None)
        seen = seen.__cause__ or seen.__context__
    return None


def suggest_remedy(failure: OSError) -> str:
    """Suggest a remedy for a failed write, as a sentence; empty if there is none."""
    elsewhere = "choose another folder with --runs or BMCLI_CACHE."
    return {
        errno.ENOSPC: "Free some space.",
        errno.EDQUOT: "Your quota is used up: free some space.",
        errno.EFBIG: "Raise the limit on the size of files (ulimit -f).",
        errno.EACCES: f"Check who owns it, or {elsewhere}",
        errno.EPERM: f"Check who owns it, or {elsewhere}",
        errno.EROFS: f"C{elsewhere[1:]}",
        errno.EIO: "Look at the system's log: the disk may be failing.",
    }.get(failure.errno or 0, "")


def _find_errno(error: BaseException) -> int | None:
    """Find the `errno` of a failed write in an error of any library."""
    if isinstance(error, OSError):
        in_text = re.search(r"\berrno = (\d+)", str(error))  # HDF5 leaves the attribute empty
        number = error.errno or (int(in_text[1]) if in_text else None)
        return number if number in _WRITE_ERRORS else None
    if type(error).__module__.startswith("tensorflow."):
        # TensorFlow raises one class for a full disk and for full memory; only the text differs.
        return next((number for number in _WRITE_ERRORS if os.strerror(number) in str(error)), None)
    return None


def _extract_path(text: str) -> str | None:
    """Extract the path from an error text of TensorFlow (`path; reason`) or HDF5 (`name = 'path'`)."""
    match = re.search(r"name = '([^']+)'", text) or re.match(r"(/?[^;\n]*/[^;\n]*);", text)
    return match[1] if match else None


def free_bytes(path: Path) -> int | None:
    """Free bytes of the file system of a path; None if they are unknown."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            values = os.statvfs(folder)
            return values.f_bavail * values.f_frsize
    return None


class DamagedFile(ValueError):
    """A file does not hold what was written; the message gives the reason, without the file's name."""


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file in one step: it holds either its old or its new content, whatever happens meanwhile.

    Args:
        mode: Permissions of the file, restricted by the umask.
    """
    # Beside the file: a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}-{os.urandom(4).hex()}")
    with convert_write_errors(path, len(content)):
        try:
            write_and_flush(temporary, content, mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet; raises as `create_new_file` does."""
    with create_new_file(path) as temporary:
        write_and_flush(temporary, content)


@contextlib.contextmanager
def create_new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file that must not exist yet; it gets its name when the body succeeds.

    Raises:
        FileExistsError: The file exists, perhaps because another process was faster.
    """
    temporary = path.with_name(f".{os.urandom(4).hex()}-{path.name}")
    with convert_write_errors(path):
        try:
            yield temporary
            os.link(temporary, path)  # fails if the name exists; a rename would replace the other file
        finally:
            temporary.unlink(missing_ok=True)


def write_and_flush(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file, never through a symbolic link, and flush it to the disk."""
    with convert_write_errors(path, len(content)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            flush(file)


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents, with access for their owner only, whatever the umask.

    An existing folder keeps its mode.
    """
    # `mkdir(mode, parents=True)` would give the parents the default mode.
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(_PRIVATE_FOLDER_MODE, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # not at the top: its decompressors take 2 ms of every start

        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_file(path: Path, limit: int | None = None) -> bytes:
    """Read a regular file without following a symbolic link.

    Args:
        limit: Maximum size in bytes.

    Raises:
        OSError: It does not exist or cannot be read.
        DamagedFile: It is no regular file, or too large.
    """
    try:
        # O_NONBLOCK: opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        if path.is_symlink():
            raise DamagedFile("a symbolic link, which is not followed") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedFile("not a regular file")
        content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise DamagedFile(f"larger than {limit:,} bytes")
    return content


def find_irregular_entry(folder: Path) -> tuple[Path, str] | None:
    """Find the first entry in or below a folder that is neither file nor folder, and name its type; links count."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                return folder / entry.name, "a symbolic link"
            if entry.is_dir(follow_symlinks=False):
                if inner := find_irregular_entry(folder / entry.name):
                    return inner
            elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                return folder / entry.name, "no regular file"
    return None


def try_to_remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, ignoring errors; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # as above

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def describe_non_file(path: Path | str) -> str:
    """Describe an existing path that is no regular file: `a folder`, or `a device or pipe`, whose opening may block.

    Returns an empty text for a regular file, a missing path, and a path that the system refuses.
    """
    if os.path.isdir(path):
        return "a folder"
    return "a device or pipe" if os.path.exists(path) and not os.path.isfile(path) else ""


def compute_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file; raises OSError if it cannot be read."""
    import hashlib  # not at the top: OpenSSL takes 3 ms of every start

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(file: Any) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush a folder to the disk: without it, the names of new files can be lost in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def format_path(path: Path) -> str:
    """Format a path relative to the working directory, if it is below it.

    Everything is below the root folder: there, paths are absolute.
    """
    with contextlib.suppress(ValueError, OSError):  # it is not below, or the working directory was removed
        absolute, working_folder = path.absolute(), Path.cwd()
        return str(absolute if working_folder == working_folder.parent else absolute.relative_to(working_folder))
    return str(path)
