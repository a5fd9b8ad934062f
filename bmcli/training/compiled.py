"""What XLA compiled, kept for later processes. Imports no TensorFlow, which has to be told before it is imported.

TensorFlow fails on a damaged entry instead of compiling anew, so that a write cut short would stop every later run of
that network. Each entry therefore gets a seal, its SHA-256, once a run has worked with it, and entries without a seal
that fits are removed before TensorFlow looks at them.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bmcli import disk, machine

KEPT = 200
_SEAL = ".sha256"


def folder(root: Path) -> Path:
    """Where programs for this processor and this TensorFlow are kept; they are of no use to others."""
    here = f"{machine.processor()} {version('tensorflow')}"
    return (root / "xla" / hashlib.sha256(here.encode()).hexdigest()[:16]).absolute()


@cache
def sweep_once(folder: Path) -> None:
    """Sweeps before the first use in this process, or in the one that this is a fork of: it reads every entry."""
    sweep(folder)


def sweep(folder: Path) -> None:
    """Removes entries without a fitting seal, and all but the newest."""
    with contextlib.suppress(OSError):  # others sweep and compile at the same time
        entries = sorted(folder.glob("*.pb"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for number, entry in enumerate(entries):
            if number >= KEPT or not _is_whole(entry):
                entry.unlink()
        for left in folder.glob(f"*{_SEAL}"):
            if not left.with_name(left.name.removesuffix(_SEAL)).exists():
                left.unlink()


def seal(folder: Path) -> None:
    """Seals the entries that are new, after they have worked."""
    with contextlib.suppress(OSError):  # a cache that cannot be kept costs time, nothing else
        for entry in folder.glob("*.pb"):
            if not _seal(entry).exists():
                disk.write_atomically(_seal(entry), _digest(entry).encode())


def _is_whole(entry: Path) -> bool:
    try:
        return _seal(entry).read_text() == _digest(entry)
    except (OSError, ValueError):
        return False


def _seal(entry: Path) -> Path:
    return entry.with_name(entry.name + _SEAL)


def _digest(entry: Path) -> str:
    return hashlib.sha256(entry.read_bytes()).hexdigest()
