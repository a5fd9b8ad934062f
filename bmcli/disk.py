"""Writing so that a crash, a full disk or a power cut leaves the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

PRIVATE_MODE = 0o600
"""Mode of files that may hold what only their owner should see, such as arguments of a command."""

_PRIVATE_FOLDER_MODE = 0o700

_MAX_RECORD_BYTES = 2**28

_Value = TypeVar("_Value")


_WRITE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteFailure(OSError):
    """A file system refused to write.

    Args:
        number: Its reason, as `errno` numbers them.
        path: What was to be written.
        needed: Its bytes, if that is known.
        free: Bytes that were free, if that is known; by default those that are now.
        roughly: Whether `needed` is but an estimate.
    """

    def __init__(
        self,
        number: int,
        path: Path | str | None,
        needed: int | None = None,
        free: int | None = None,
        roughly: bool = False,
    ) -> None:
        super().__init__(number, os.strerror(number), None if path is None else str(path))
        self.needed, self.roughly = needed, roughly
        # Asked at once: what was written in part is removed before anybody reads this.
        self.free = free_bytes(Path(path)) if free is None and path is not None and number in _SPACE_ERRORS else free

    def __str__(self) -> str:
        """What was refused and why, how many bytes it needs and how many are free, as a sentence."""
        where = f"{format_path(Path(self.filename))}: " if self.filename else ""
        return f"{where}{(self.strerror or '').lower()}{self.sizes}."

    @property
    def sizes(self) -> str:
        """How many bytes it needs and how many are free, as the end of a sentence; empty if neither is known."""
        about = "about " if self.roughly else ""
        size = f"; {about}{self.needed:,} bytes were to be written" if self.needed is not None else ""
        left = "" if self.free is None else f"{',' if size else ';'} {self.free:,} are free there"
        return f"{size}{left}"


@contextlib.contextmanager
def convert_write_errors(
    path: Path, needed: int | None = None, estimate: Callable[[], int | None] | None = None
) -> Iterator[None]:
    """Tells of what the body writes, should the file system refuse it, as one `WriteFailure`.

    Args:
        path: What a user knows it by, rather than a file beside it that is written first.
        needed: Bytes, if that is known.
        estimate: Gives them roughly, where they are not known; asked once the file system has refused.

    Raises:
        WriteFailure: Whatever library wrote.
    """
    try:
        yield
    except Exception as error:
        failure = find_write_failure(error)
        if failure is None:
            raise
        if failure.filename is not None and _on_another_disk(Path(failure.filename), path):
            raise failure from error  # such as that of temporary files
        roughly = None if estimate is None else estimate()
        known = failure.needed if needed is None else needed
        raise WriteFailure(
            failure.errno or 0,
            path,
            known if roughly is None else roughly,
            failure.free,
            roughly=roughly is not None or (needed is None and failure.roughly),
        ) from error


def _on_another_disk(one: Path, other: Path) -> bool:
    def device(path: Path) -> int:
        return next(each for each in (path, *path.absolute().parents) if each.exists()).stat().st_dev

    return device(one) != device(other)


def find_write_failure(error: BaseException) -> WriteFailure | None:
    """What a file system refused, if that is the reason of an error of Python, TensorFlow, HDF5 or Arrow."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, WriteFailure):
            return seen
        number = _find_errno(seen)
        if number is not None:
            path = getattr(seen, "filename2", None) or getattr(seen, "filename", None) or _extract_path(str(seen))
            if isinstance(path, str) and not Path(path).parent.is_dir():
                path = None  # words of a library, or a folder that is gone
            return WriteFailure(number, str(path) if isinstance(path, str | os.PathLike) else None)
        seen = seen.__cause__ or seen.__context__
    return None


def suggest_remedy(failure: OSError) -> str:
    """What a user can do about what a file system refused, as a sentence."""
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
    """The reason of a file system in an error, as `errno` numbers them."""
    if isinstance(error, OSError):
        named = re.search(r"\berrno = (\d+)", str(error))  # as HDF5 writes it
        number = error.errno or (int(named[1]) if named else None)
        return number if number in _WRITE_ERRORS else None
    if type(error).__module__.startswith("tensorflow."):
        # It has one class for disks and memory that are full, but words of its own for the latter.
        return next((number for number in _WRITE_ERRORS if os.strerror(number) in str(error)), None)
    return None


def _extract_path(text: str) -> str | None:
    """The file that TensorFlow (`path; reason`) or HDF5 (`name = 'path'`) names."""
    found = re.search(r"name = '([^']+)'", text) or re.match(r"(/?[^;\n]*/[^;\n]*);", text)
    return found[1] if found else None


def free_bytes(path: Path) -> int | None:
    """Bytes that a user may still write where a path lies; None if the system does not tell."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


class DamagedFile(ValueError):
    """A file is not what was written; the message tells what is wrong with it, without the file's name."""


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value, with null where a number is not finite."""
    text = json.dumps(to_json_value(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def write_record(path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
    """Writes a JSON object with its own digest, so that `read_record` notices every change.

    Raises:
        ValueError: A number is not finite: JSON knows none such, so null has to stand there.
    """
    text = json.dumps(_add_digest(value), indent=2, ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no text; JSON has the very escape that Python writes for them.
    write_atomically(path, (text + "\n").encode(errors="backslashreplace"), mode)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object that `write_record` wrote, without its digest.

    Raises:
        OSError: It is not there or cannot be read.
        Damaged: Its bytes are not those that were written.
    """
    return parse_record(read_file(path, _MAX_RECORD_BYTES))


def write_record_line(file: Path, value: Mapping[str, Any]) -> None:
    """Appends a record as one line, never through a symbolic link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    line = encode_record_line(value)
    with convert_write_errors(file, len(line)), os.fdopen(os.open(file, flags, 0o666), "wb") as opened:
        opened.write(line)


def encode_record_line(value: Mapping[str, Any]) -> bytes:
    """A record as one line of a file; raises as `write_record` does."""
    return (json.dumps(_add_digest(value), allow_nan=False) + "\n").encode()


def parse_record(content: bytes) -> dict[str, Any]:
    """The JSON object of a record, without its digest; raises as `read_record` does."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise DamagedFile("not a JSON object")
    digest = value.pop("sha256", None)
    try:
        found = compute_record_digest(value)
    except RecursionError:
        raise DamagedFile("nested too deeply") from None
    if digest != found:
        raise DamagedFile("changed since it was written, by its SHA-256" if digest else "without its SHA-256")
    return value


def compute_record_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys and its indentation."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _add_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(value, allow_nan=False))  # keys as they will be read: all of them text
    return {**plain, "sha256": compute_record_digest(plain)}


def to_json_value(value: Any) -> Any:
    """The same value for JSON: null for numbers that are not finite, and no text that is none, as some file names."""
    if isinstance(value, Mapping):
        return {to_json_value(key): to_json_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(each) for each in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="replace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def validate_as(value_type: type[_Value], value: Any) -> _Value:
    """A JSON value as what a type describes, as a dataclass; its keys that the type does not know are left out.

    Raises:
        Damaged: A key is missing, or holds a value of another type; nothing is converted.
    """
    from pydantic import ValidationError

    try:
        adapter: Any = _get_adapter(cast(Hashable, value_type))
        return adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFile(f"{place}: {first['msg']}" if place else first["msg"]) from None
    except (RecursionError, ValueError) as error:
        raise DamagedFile(str(error)) from None


@cache
def _get_adapter(value_type: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(value_type)


def parse_json(content: bytes | str) -> Any:
    """The JSON value of a text that may come from anywhere.

    Raises:
        Damaged: It is no JSON, nested too deeply, or holds NaN or Infinity, which JSON does not know.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError:
        raise DamagedFile("nested too deeply") from None
    except ValueError as error:
        raise DamagedFile(f"no JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """The file afterwards holds the old content or the new one, whatever happens meanwhile.

    Args:
        mode: Permissions of the file, less those that the user's umask takes away.
    """
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with convert_write_errors(path, len(content)):
        try:
            write_and_flush(aside, content, mode)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that must not be there yet; raises as `create_new_file` does."""
    with create_new_file(path) as aside:
        write_and_flush(aside, content)


@contextlib.contextmanager
def create_new_file(path: Path) -> Iterator[Path]:
    """A place to write a file that must not be there yet; it takes its name at the end, if all went well.

    Raises:
        FileExistsError: It is there, perhaps since a moment ago.
    """
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    with convert_write_errors(path):
        try:
            yield aside
            os.link(aside, path)  # refused where the name is taken, as renaming is not
        finally:
            aside.unlink(missing_ok=True)


def write_and_flush(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file, never through a symbolic link, and flushes it to the disk."""
    with convert_write_errors(path, len(content)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            flush(file)


def make_private_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, for their owner alone, whatever the user's umask.

    A folder that is there keeps its mode.
    """
    for place in reversed((folder, *folder.parents)):
        if not place.exists():
            place.mkdir(_PRIVATE_FOLDER_MODE, exist_ok=True)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all it holds; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_file(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file, which is never looked for behind a symbolic link.

    Args:
        limit: Most bytes that it may have.

    Raises:
        OSError: It is not there or cannot be read.
        Damaged: It is something else than a file, or too large.
    """
    try:
        # A pipe that nobody writes would be waited for.
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
    """The first thing in or below a folder that is neither file nor folder, and what it is; no link is followed."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                return folder / entry.name, "a symbolic link"
            if entry.is_dir(follow_symlinks=False):
                if found := find_irregular_entry(folder / entry.name):
                    return found
            elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                return folder / entry.name, "no regular file"
    return None


def try_to_remove(path: Path) -> None:
    """Removes what can be removed of a file, a link, or a folder with all that it holds; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def what_is_no_file(path: Path | str) -> str:
    """What stands where a file should, which opening may wait for for ever: `a folder`, `a device or pipe`, or nothing.

    Where nothing stands there, or the system refuses to tell, it is an empty text, too.
    """
    if os.path.isdir(path):
        return "a folder"
    return "a device or pipe" if os.path.exists(path) and not os.path.isfile(path) else ""


def compute_sha256(path: Path) -> str:
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


def format_path(path: Path) -> str:
    """A path relative to where the user is, if it is below."""
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
