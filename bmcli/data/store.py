"""Prepared data on disk: one folder for each content key, whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bmcli import disk
from bmcli.errors import RunFailed
from bmcli.specs import SPLITS, DataSpec, Prepared, Split


def reopened(folder: Path, key: str) -> Prepared | None:
    """The prepared data of a folder, or None if it is not there or not whole."""
    try:
        prepared = Prepared.open(folder)
        whole = prepared.spec.key == key and all(_is_whole(prepared, split) for split in SPLITS)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError):
        return None
    return prepared if whole else None


def write(folder: Path, spec: DataSpec, splits: Mapping[str, Split]) -> Prepared:
    """Writes a whole folder beside its place, then moves it there; nobody ever sees half of it."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for name, split in splits.items():
            (draft / name).mkdir(parents=True)
            for role, arrays in (("inputs", split.inputs), ("targets", split.targets)):
                for position, array in enumerate(arrays.values()):
                    _write_array(draft / name / f"{role}-{position}.npy", array)
            if split.weights is not None:
                _write_array(draft / name / "weights.npy", split.weights)
            disk.flush_folder(draft / name)
        disk.write_through(draft / "spec.json", json.dumps(spec.to_json(), allow_nan=False).encode())
        disk.flush_folder(draft)
        _replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Prepared(spec, folder)


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


def _write_array(path: Path, array: object) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)
        disk.flush(file)


def _replace(draft: Path, folder: Path) -> None:
    """Moves the draft to its place; a damaged folder there makes way first."""
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(draft, folder)
    disk.flush_folder(folder.parent)
