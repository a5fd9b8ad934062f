"""Transfer sets: the training rows of a student, and the teacher outputs for them, cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import parts, raw_columns
from bmcli.data import columns, derivation, preparation, raw_rows, store
from bmcli.data.invalid import take_source_rows
from bmcli.data.sources import SourceRows, read_rows
from bmcli.distillation.teachers import BATCH_SIZE, TeacherNetwork, TeacherPredictor
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.distill import DistillationOptions, TransferOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.schema import Recipe
from bmcli.specs import DataSpec, PreparedData, Split, get_base_name, load_rows
from bmcli.windows import EncodedRows, WindowedArray, concatenate_rows

CACHE_VERSION = 1
"""Part of every key; increase it whenever the same rows and teachers give other arrays."""


@dataclass(frozen=True)
class TransferSet:
    """The training rows of a student, with teacher outputs.

    Args:
        prepared: The data, with the transfer set as training rows.
        folder: Of the cached teacher outputs; None if the teachers predict in each step.
        shapes: Of the layers of the teachers that losses compare, without the batch axis, by name.
    """

    prepared: PreparedData
    folder: Path | None
    shapes: Mapping[str, tuple[int, ...]]


def load_transfer_set(
    recipe: Recipe,
    options: DistillationOptions,
    prepared: PreparedData,
    predictor: TeacherPredictor | None,
    cache: Path,
) -> TransferSet:
    """Load the transfer set, with cached teacher outputs unless the inputs are augmented in each step.

    Args:
        predictor: None without teachers.

    Raises:
        BmcliError: A teacher cannot read the rows, or no row is left.
    """
    key, changed_rows = _find_changed_rows(options.transfer, prepared, cache)
    prepared = prepared if changed_rows is None else replace(prepared, transfer=changed_rows)
    if predictor is None:
        return TransferSet(prepared, None, {})
    shapes = {name: tuple(tensor.shape[1:]) for name, (_, tensor) in predictor.layers.items()}
    if recipe.data.augment:
        return TransferSet(prepared, None, shapes)
    rows = TeacherInputs(recipe, prepared, options.transfer)
    folder = cache / "teachers" / _make_key(key, options, predictor)
    count = len(prepared.split("train"))
    store.ensure_entry(
        folder, lambda draft: _write_outputs(draft, predictor, rows.encode("train", predictor.teachers), count)
    )
    teacher_outputs = {kind: _read_outputs(folder, kind, names) for kind, names in _list_arrays(predictor).items()}
    transfer = replace(
        prepared.split("train"), teacher_outputs={kind: arrays for kind, arrays in teacher_outputs.items() if arrays}
    )
    return TransferSet(replace(prepared, transfer=transfer), folder, shapes)


def _list_arrays(predictor: TeacherPredictor) -> dict[str, list[str]]:
    return {"outputs": list(predictor.output_forms), "layers": list(predictor.layers)}


def _make_key(rows: str, options: DistillationOptions, predictor: TeacherPredictor) -> str:
    """Make the cache key: SHA-256 of everything that determines the teacher outputs."""
    averaged = [predictor.average, predictor.teacher_weights] if predictor.average == "logits" else []
    teachers = [
        (teacher.digest, [name for name, (owner, _) in predictor.layers.items() if owner == index])
        for index, teacher in enumerate(predictor.teachers)
    ]
    values = [CACHE_VERSION, rows, teachers, averaged, tf.__version__, keras.__version__]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _write_outputs(
    draft: Path, predictor: TeacherPredictor, inputs: Sequence[Mapping[str, EncodedRows]], count: int
) -> None:
    """Write the teacher outputs for all rows, batch by batch."""
    arrays: dict[tuple[str, str], np.memmap] = {}
    for start in range(0, count, BATCH_SIZE):
        rows = slice(start, min(start + BATCH_SIZE, count))
        for kind, outputs in predictor.predict_arrays(inputs, rows).items():
            for index, (name, values) in enumerate(outputs.items()):
                if (kind, name) not in arrays:
                    arrays[kind, name] = _create_array(
                        draft / f"{kind}-{index}.npy", (count, *values.shape[1:]), "float32"
                    )
                arrays[kind, name][rows] = values
    for array in arrays.values():
        array.flush()


def _read_outputs(folder: Path, kind: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        name: np.load(folder / f"{kind}-{index}.npy", mmap_mode="r", allow_pickle=False)
        for index, name in enumerate(names)
    }


def _create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """Create an array in a new file."""
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _find_changed_rows(options: TransferOptions, prepared: PreparedData, cache: Path) -> tuple[str, Split | None]:
    """Find the key of the transfer set, and its rows if they differ from the training rows."""
    if not options.replaces_rows:
        return prepared.spec.key, None
    fingerprint = options.unlabelled.fingerprint() if options.unlabelled else ""  # type: ignore[attr-defined]  # a source
    values = dump(options)
    (values["unlabelled"] or {}).pop("path", None)
    key_values = [CACHE_VERSION, prepared.spec.key, values, fingerprint]
    key = hashlib.sha256(json.dumps(key_values).encode()).hexdigest()
    folder = cache / "transfer" / key
    store.ensure_entry(folder, lambda draft: _write_rows(draft, options, prepared))
    return key, _read_rows(folder, prepared)


def select_rows(options: TransferOptions, prepared: PreparedData) -> np.ndarray:
    """Select the training rows without excluded classes: their indices, ascending.

    Raises:
        BmcliError: A class is unknown, or no row is left.
    """
    split = prepared.split("train")
    keep = np.ones(len(split), bool)
    for target, names in options.excluded_classes.items():
        classes = prepared.spec.target(target).classes
        for index, name in enumerate(map(str, names)):
            if name not in classes:
                raise BmcliError(
                    f"target {quoted(target)} has no class {quoted(name)}.",
                    path=f"distillation.transfer.excluded_classes.{target}.{index}",
                    suggestion=parts.did_you_mean(name, classes),
                )
            keep &= np.asarray(split.targets[target]) != classes.index(name)
    if not keep.any():
        raise BmcliError("every training row is left out.", path="distillation.transfer.excluded_classes")
    return np.flatnonzero(keep)


def _write_rows(draft: Path, options: TransferOptions, prepared: PreparedData) -> None:
    """Write the selected training rows, followed by the unlabelled ones."""
    indices, split, spec = (
        select_rows(options, prepared),
        replace(prepared, transfer=None).split("train"),
        prepared.spec,
    )
    unlabelled = _read_unlabelled(options, prepared)
    count = len(indices) + (len(unlabelled) if unlabelled else 0)
    for index, column in enumerate(spec.inputs):
        pieces = [split.inputs[column.name][indices], *([unlabelled.inputs[column.name]] if unlabelled else [])]
        _write_column(draft, f"inputs-{index}", pieces)
    # Rows without labels get the label of another row: their loss has weight 0, but 0 times infinity would be NaN.
    others = np.repeat(indices[:1], count - len(indices))
    for index, column in enumerate(spec.targets):
        _write_column(draft, f"targets-{index}", [split.targets[column.name][np.concatenate([indices, others])]])
    if split.weights is not None:
        np.save(
            draft / "weights.npy", np.concatenate([split.weights[indices], np.ones(count - len(indices), "float32")])
        )
    # The mean of these weights is 1, so that the mean label loss over all rows is that over the labelled ones.
    labelled = np.zeros(count, "float32")
    labelled[: len(indices)] = count / len(indices)
    np.save(draft / "labelled.npy", labelled)


def _write_column(draft: Path, file: str, pieces: Sequence[EncodedRows]) -> None:
    """Write rows that come in pieces."""
    if isinstance(pieces[0], WindowedArray):
        windows = concatenate_rows(pieces)
        assert isinstance(windows, WindowedArray)
        store.write_base(draft / get_base_name(file), windows)
        store.write_starts(draft / f"{file}.npy", windows)
        return
    rows = _create_array(draft / f"{file}.npy", (sum(map(len, pieces)), *pieces[0].shape[1:]), pieces[0].dtype)
    np.concatenate([np.asarray(each) for each in pieces], out=rows)
    rows.flush()


def _read_rows(folder: Path, prepared: PreparedData) -> Split:
    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    spec, labelled = prepared.spec, array("labelled")
    return Split(
        inputs={c.name: load_rows(folder, "", f"inputs-{index}", c) for index, c in enumerate(spec.inputs)},
        targets={c.name: load_rows(folder, "", f"targets-{index}", c) for index, c in enumerate(spec.targets)},
        weights=array("weights") if spec.weight is not None else None,
        label_weights=None if labelled.all() else labelled,
    )


def _read_unlabelled(options: TransferOptions, prepared: PreparedData) -> Split | None:
    if options.unlabelled is None:
        return None
    try:
        return preparation.encode_rows(_read_unlabelled_rows(options, prepared.spec), prepared.spec, with_targets=False)
    except BmcliError as error:
        raise BmcliError(*(replace(each, path="distillation.transfer.unlabelled") for each in error.faults)) from None


def _read_unlabelled_rows(options: TransferOptions, spec: DataSpec) -> SourceRows:
    """Read the rows without labels, with the inputs of the student that are made of several rows."""
    rows = read_rows(options.unlabelled, skip_malformed=False)  # type: ignore[arg-type]  # checked to be a source
    return derivation.derive_columns(rows, derivation.get_derivations(spec), with_faults=True)


class TeacherInputs:
    """Inputs of the teachers for the rows of a student.

    Args:
        prepared: With the transfer set as training rows.
    """

    def __init__(self, recipe: Recipe, prepared: PreparedData, transfer: TransferOptions) -> None:
        self._recipe, self._prepared, self._transfer = recipe, prepared, transfer

    def encode(self, split: str, teachers: Sequence[TeacherNetwork]) -> list[Mapping[str, EncodedRows]]:
        """Encode the rows of a split for each teacher: its inputs by column."""
        return [self._encode_for(split, teacher) for teacher in teachers]

    def _encode_for(self, split: str, teacher: TeacherNetwork) -> Mapping[str, EncodedRows]:
        if teacher.accepts_inputs_of(self._prepared.spec):
            return self._prepared.split(split).inputs
        encode = self._build_encoder(teacher)
        pieces = [encode(self._read_raw_rows(split))]
        if split == "train" and self._transfer.unlabelled is not None:
            pieces.append(encode(_read_unlabelled_rows(self._transfer, self._prepared.spec)))
        return {name: concatenate_rows([piece[name] for piece in pieces]) for name in pieces[0]}

    def _build_encoder(self, teacher: TeacherNetwork) -> Callable[[SourceRows], Mapping[str, EncodedRows]]:
        spec = teacher.spec
        if spec is None:
            inputs = teacher.model.input
            return lambda rows: _read_served_inputs(rows, inputs)
        return lambda rows: preparation.encode_rows(rows, spec, with_targets=False).inputs

    def _read_raw_rows(self, split: str) -> SourceRows:
        """Read the rows of a split from the source, in the order of the split."""
        rows, indices = self._source
        positions = indices[split]
        if split == "train":
            positions = positions[select_rows(self._transfer, replace(self._prepared, transfer=None))]
        return replace(take_source_rows(rows, positions), split=None)

    @cached_property
    def _source(self) -> tuple[SourceRows, Mapping[str, np.ndarray]]:
        recipe = self._recipe
        return raw_rows.reread_rows(recipe.data, recipe.targets(), recipe.data_seed)


def _read_served_inputs(rows: SourceRows, inputs: Mapping[str, Any]) -> Mapping[str, EncodedRows]:
    """Convert rows to inputs of a served model; a missing column or a cell of another kind is a fault."""
    faults = [columns.missing_column_fault(name, "", rows) for name in inputs if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    return {name: columns.read_column(rows, name, partial(_to_array, tensor=inputs[name])) for name in inputs}


def _to_array(column: RawColumn, tensor: Any) -> np.ndarray:
    """Convert a raw column to an array for an input of a served model."""
    if tensor.dtype == "string":
        return np.array([text or "" for text in raw_columns.to_texts(column).to_pylist()], object)
    values = raw_columns.read_written_numbers(column) if raw_columns.is_text_column(column) else np.asarray(column)
    if values.ndim < len(tensor.shape):
        values = values.reshape(*values.shape, *(1,) * (len(tensor.shape) - values.ndim))
    return values.astype(tensor.dtype)
