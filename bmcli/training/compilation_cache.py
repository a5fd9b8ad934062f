"""What XLA compiled, kept for later processes. Imports no TensorFlow, which has to be told before it is imported.

TensorFlow runs what it finds, native code, and fails on a damaged entry instead of compiling anew. Each entry therefore
gets a seal with the key of this user once a run has worked with it, and entries without a seal that fits are removed
before TensorFlow looks at them. Where others could write, or no key can be kept, nothing is kept and all is compiled.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bmcli import disk, machine, trust

MAX_ENTRIES = 200
_SEAL = ".seal"
_PURPOSE = "program compiled by XLA"


def cache_folder(root: Path) -> Path:
    """Where programs for this processor and this TensorFlow are kept; they are of no use to others."""
    here = f"{machine.read_processor_name()} {version('tensorflow')}"
    return (root / "xla" / hashlib.sha256(here.encode()).hexdigest()[:16]).absolute()


@cache
def is_usable(folder: Path) -> bool:
    """Whether TensorFlow may use a folder, which is swept before.

    Looks once in this process, or in the one that this is a fork of: it reads every entry.
    """
    return remove_unsealed(folder)


def remove_unsealed(folder: Path) -> bool:
    """Removes entries without a fitting seal, and all but the newest; whether what is left and added may be used."""
    try:
        if trust.explain_foreign_write_access(folder):
            return False
        entries = sorted(_list_entries(folder), key=_modified_at, reverse=True)
        for number, entry in enumerate(entries):
            if number >= MAX_ENTRIES or not _is_sealed(entry):
                disk.remove(entry)
        for left in folder.glob(f"*{_SEAL}"):
            if not os.path.lexists(left.with_name(left.name.removesuffix(_SEAL))):
                disk.remove(left)
    except OSError:
        return False
    return trust.seal(b"", _PURPOSE) is not None


def seal_new_entries(folder: Path) -> None:
    """Seals the entries that are new, after they have worked.

    They came about after this process swept the folder; without a sweep before, nothing is to be sealed.
    """
    if not is_usable(folder):
        return
    with suppress(OSError):  # a cache that cannot be kept costs time, nothing else
        for entry in _list_entries(folder):
            if not os.path.lexists(_seal_path(entry)) and (made := trust.seal(_read_entry(entry), _PURPOSE)):
                disk.write_atomically(_seal_path(entry), made.encode(), disk.PRIVATE_MODE)


def _list_entries(folder: Path) -> Iterator[Path]:
    """The entries that TensorFlow may read, whatever they are: files, links, folders."""
    with suppress(FileNotFoundError):
        yield from (folder / name for name in os.listdir(folder) if name.endswith(".pb"))


def _modified_at(entry: Path) -> float:
    """When an entry was written; others remove entries at the same time."""
    with suppress(FileNotFoundError):
        return entry.lstat().st_mtime
    return 0.0


def _is_sealed(entry: Path) -> bool:
    with suppress(OSError, ValueError):
        return trust.is_sealed(_read_entry(entry), _PURPOSE, _seal_path(entry).read_text(encoding="ascii"))
    return False


def _seal_path(entry: Path) -> Path:
    return entry.with_name(entry.name + _SEAL)


def _read_entry(entry: Path) -> bytes:
    """The name and the bytes of an entry; raises OSError if it is no file of its own."""
    if not stat.S_ISREG(entry.lstat().st_mode):
        raise OSError(f"{entry} is not a file")
    return entry.name.encode() + b"\0" + entry.read_bytes()
