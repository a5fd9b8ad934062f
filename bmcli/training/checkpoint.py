"""Resumable state on disk: flat lists of variables and a small JSON object, written completely or not at all.

`tf.train.Checkpoint` of a model leaves out the state of Keras' seed generators, without which a training with dropout
resumes to other weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from bmcli import disk, records
from bmcli.errors import RunFailed

MAX_CHECKPOINTS = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue as if it had never stopped.

    Args:
        groups: Lists of arrays by name: `variables`, `meters`, and `selected` weights once an epoch was selected.
        values: Progress, best value and counters of callbacks, as plain JSON values.
    """

    groups: Mapping[str, Sequence[np.ndarray]]
    values: Mapping[str, Any]


class CheckpointWriter:
    """Background writer of checkpoints, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "bmcli-checkpoint")
        self._pending: Future[Path] | None = None
        for aside in folder.glob(".aside-*"):  # of a process that was killed while it wrote
            disk.try_to_remove(aside)

    def write(self, step: int, state: Checkpoint) -> None:
        """Start to write a state; an error of the one before is raised here."""
        self.wait()
        self._pending = self._thread.submit(save, self._folder, step, state)

    def wait(self) -> None:
        """Wait until every checkpoint is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def save(folder: Path, step: int, state: Checkpoint) -> Path:
    """Write a checkpoint, and remove all but the newest two."""
    if folder.is_symlink():  # it may lead outside of the run, and old checkpoints are removed there
        raise RunFailed(f"{disk.format_path(folder)}: a symbolic link, which checkpoints are not written through.")
    target = folder / f"step-{step:09d}"
    needed = sum(array.nbytes for arrays in state.groups.values() for array in arrays)
    with disk.convert_write_errors(target, needed):
        _write_checkpoint(folder, target, state)
    for old in _newest_first(folder)[MAX_CHECKPOINTS:]:
        disk.try_to_remove(old)
    return target


def _write_checkpoint(folder: Path, target: Path, state: Checkpoint) -> None:
    # A rename is atomic: a process that is killed leaves a hidden folder, never half a checkpoint. Files and folders
    # are flushed before and after it, because a file system may otherwise rename before it has written the content.
    folder.mkdir(exist_ok=True)
    aside = folder / f".aside-{secrets.token_hex(4)}"
    try:
        aside.mkdir()
        manifest = {
            f"{name}.npz": _write_arrays(aside / f"{name}.npz", arrays) for name, arrays in state.groups.items()
        }
        records.write_record(aside / "state.json", {"values": _encode_nonfinite(state.values), "files": manifest})
        disk.flush_folder(aside)
        disk.try_to_remove(target)
        os.rename(aside, target)
        disk.flush_folder(folder)
    finally:
        disk.try_to_remove(aside)


def restore(folder: Path, run_id: str | None = None) -> tuple[Checkpoint, tuple[str, ...]]:
    """Read the newest intact checkpoint.

    Args:
        run_id: Run that the checkpoint must belong to; None for any.

    Returns:
        The checkpoint, and the names of newer ones that are damaged or belong to another run.

    Raises:
        RunFailed: No checkpoint is usable.
    """
    damaged: list[str] = []
    for candidate in _newest_first(folder):
        state = _read_checkpoint(candidate)
        if state is not None and run_id in (None, state.values.get("run_id")):
            return state, tuple(damaged)
        damaged.append(candidate.name)
    raise RunFailed(f"{folder}: no usable checkpoint.", suggestion="Train again to make a new run.")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> str:
    """Write arrays to an `.npz` file; returns its SHA-256."""
    # As bytes, with dtypes and shapes beside them: NumPy's format has no bfloat16.
    specs = [{"dtype": str(array.dtype), "shape": list(array.shape)} for array in arrays]
    raw: dict[str, Any] = {f"a{i}": np.frombuffer(array.tobytes(), np.uint8) for i, array in enumerate(arrays)}
    raw["described"] = np.frombuffer(json.dumps(specs).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **raw)
        disk.flush(file)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read a checkpoint; None if a file is missing or its bytes have changed."""
    try:
        content = records.validate_as(_CheckpointRecord, records.read_record(folder / "state.json"))
        groups = {}
        for name, digest in content["files"].items():
            data = disk.read_file(folder / name)
            if hashlib.sha256(data).hexdigest() != digest:
                return None
            groups[name.removesuffix(".npz")] = _read_arrays(folder / name)
        return Checkpoint(groups, _decode_nonfinite(content["values"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged JSON or arrays raise any of them
        return None


class _CheckpointRecord(TypedDict):
    values: dict[str, Any]
    files: dict[str, str]


_NONFINITE_KEY = "not finite"


def _encode_nonfinite(value: Any) -> Any:
    """Replace numbers that are not finite by objects that name them."""
    # JSON has no infinity, with which the best loss of Keras' callbacks begins.
    if isinstance(value, Mapping):
        return {key: _encode_nonfinite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode_nonfinite(each) for each in value]
    return {_NONFINITE_KEY: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _decode_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_NONFINITE_KEY}:
            return float(value[_NONFINITE_KEY])
        return {key: _decode_nonfinite(each) for key, each in value.items()}
    return [_decode_nonfinite(each) for each in value] if isinstance(value, list) else value


def _read_arrays(path: Path) -> list[np.ndarray]:
    import ml_dtypes  # registers bfloat16 with numpy

    assert ml_dtypes.bfloat16
    with np.load(path, allow_pickle=False) as stored:
        specs = json.loads(stored["described"].tobytes())
        return [
            np.frombuffer(stored[f"a{i}"].tobytes(), np.dtype(entry["dtype"])).reshape(entry["shape"])
            for i, entry in enumerate(specs)
        ]
