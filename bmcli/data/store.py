"""Prepared data on disk: one folder for each content key, whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bmcli import disk
from bmcli.errors import RunFailed
from bmcli.specs import SPLITS, DataSpec, Prepared

if TYPE_CHECKING:
    import numpy as np


def reopened(folder: Path, key: str) -> Prepared | None:
    """The prepared data of a folder, or None if it is not there or not whole."""
    try:
        prepared = Prepared.open(folder)
        whole = prepared.spec.key == key and all(_is_whole(prepared, split) for split in SPLITS)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError):
        return None
    return prepared if whole else None


class Draft:
    """A folder of prepared data that is being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, split: str, file: str, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]) -> None:
        """Writes an array whose rows come in pieces."""
        _write_array(self._folder / split / f"{file}.npy", shape, dtype, pieces)

    def finish(self, spec: DataSpec) -> None:
        """Writes what the arrays are; nothing may be written afterwards."""
        for split in SPLITS:
            disk.flush_folder(self._folder / split)
        disk.write_through(self._folder / "spec.json", json.dumps(spec.to_json(), allow_nan=False).encode())
        disk.flush_folder(self._folder)


@contextmanager
def drafted(folder: Path) -> Iterator[Draft]:
    """A draft beside a folder, to be finished and then moved to its place; nobody ever sees half of it."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for split in SPLITS:
            (draft / split).mkdir(parents=True)
        yield Draft(draft)
        _replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process prepares the same folder. The lock ends with the process."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turns what the file system refuses into a RunFailed that names the place."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunFailed(
            f"{error.filename or cache}: cannot keep the prepared data: {reason}.",
            suggestion="Free some space there, or make the folder writable.",
        ) from None


def _is_whole(prepared: Prepared, name: str) -> bool:
    """Whether every array of a split is there in full, as the spec describes it."""
    spec, split = prepared.spec, prepared.split(name)
    expected = [(split.inputs[column.name], column.shape, column.dtype) for column in spec.inputs]
    expected += [(split.targets[column.name], column.shape, column.dtype) for column in spec.targets]
    if split.weights is not None:
        expected.append((split.weights, (), "float32"))
    return all(
        array.shape == (spec.counts[name], *shape) and str(array.dtype) == dtype for array, shape, dtype in expected
    )


def _write_array(path: Path, shape: tuple[int, ...], dtype: str, pieces: Iterable[np.ndarray]) -> None:
    import numpy as np
    from numpy.lib import format as npy

    with path.open("wb") as file:
        description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, description)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)
        disk.flush(file)


def _replace(draft: Path, folder: Path) -> None:
    """Moves the draft to its place; a damaged folder there makes way first."""
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(draft, folder)
    disk.flush_folder(folder.parent)
