"""Programs compiled by XLA, kept for later processes.

TensorFlow is not imported here, because it reads the folder's name when it is imported.

TensorFlow runs the native code that it finds in the folder, and fails on a damaged entry instead of compiling again.
Therefore each entry gets a seal with this user's key once a run has worked with it, and entries without a valid seal
are removed before TensorFlow reads them. Where other users could write, or no key can be kept, there is no cache.
"""

from __future__ import annotations

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
    """Folder of the programs for this processor and this version of TensorFlow; others cannot use them."""
    here = f"{machine.read_processor_name()} {version('tensorflow')}"
    import hashlib  # not at the top: OpenSSL takes 3 ms of every start

    return (root / "xla" / hashlib.sha256(here.encode()).hexdigest()[:16]).absolute()


@cache
def is_usable(folder: Path) -> bool:
    """Whether TensorFlow may use a folder; entries without a valid seal are removed first.

    The answer is computed once per process and inherited by its forks, because every entry is read for it.
    """
    return remove_unsealed(folder)


def remove_unsealed(folder: Path) -> bool:
    """Remove entries without a valid seal, and all but the newest; returns whether the folder may be used."""
    try:
        if trust.explain_foreign_write_access(folder):  # another user could replace an entry after the check
            return False
        entries = sorted(_list_entries(folder), key=_modified_at, reverse=True)
        for number, entry in enumerate(entries):
            if number >= MAX_ENTRIES or not _is_sealed(entry):
                disk.remove(entry)
        for seal in folder.glob(f"*{_SEAL}"):
            if not os.path.lexists(seal.with_name(seal.name.removesuffix(_SEAL))):
                disk.remove(seal)
    except OSError:
        return False
    return trust.seal(b"", _PURPOSE) is not None


def seal_new_entries(folder: Path) -> None:
    """Seal the new entries, after a training has worked with them."""
    # Entries without a seal were removed when this process started, so that those without one are made by it,
    # or by another process of this user: `is_usable` has excluded folders that others can write.
    if not is_usable(folder):
        return
    with suppress(OSError):  # a cache that cannot be kept costs time, nothing else
        for entry in _list_entries(folder):
            if not os.path.lexists(_seal_path(entry)) and (seal := trust.seal(_read_entry(entry), _PURPOSE)):
                disk.write_atomically(_seal_path(entry), seal.encode(), disk.PRIVATE_MODE)


def _list_entries(folder: Path) -> Iterator[Path]:
    """List everything that TensorFlow may read as an entry: files, links, folders."""
    with suppress(FileNotFoundError):
        yield from (folder / name for name in os.listdir(folder) if name.endswith(".pb"))


def _modified_at(entry: Path) -> float:
    """Time at which an entry was written."""
    with suppress(FileNotFoundError):  # other processes remove entries at the same time
        return entry.lstat().st_mtime
    return 0.0


def _is_sealed(entry: Path) -> bool:
    with suppress(OSError, ValueError):
        return trust.is_sealed(_read_entry(entry), _PURPOSE, _seal_path(entry).read_text(encoding="ascii"))
    return False


def _seal_path(entry: Path) -> Path:
    return entry.with_name(entry.name + _SEAL)


def _read_entry(entry: Path) -> bytes:
    """Read the content that a seal covers; raises OSError if the entry is not a regular file."""
    if not stat.S_ISREG(entry.lstat().st_mode):  # the target of a link may change after the check
        raise OSError(f"{entry} is not a file")
    # The name is covered too: it is the key under which TensorFlow looks a program up.
    return entry.name.encode() + b"\0" + entry.read_bytes()
