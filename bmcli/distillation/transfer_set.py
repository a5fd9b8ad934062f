"""What a student learns from: its rows, and what its teachers say of them, computed once and kept on disk."""

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
from bmcli.data import columns, preparation, raw_rows, store
from bmcli.data.invalid import picked
from bmcli.data.sources import SourceRows, read_rows
from bmcli.distillation.teachers import BATCH_SIZE, TeacherNetwork, TeacherPredictor
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.distill import DistillationOptions, TransferOptions
from bmcli.recipe.fields import dump
from bmcli.recipe.schema import Recipe
from bmcli.specs import PreparedData, Split

CACHE_VERSION = 1
"""Part of every key: to be raised whenever the same rows and teachers would give other arrays."""


@dataclass(frozen=True)
class TransferSet:
    """What is learned from.

    Args:
        prepared: The data, its training rows those that are learned from.
        folder: Where what the teachers say lies; None if each step asks them.
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
    """The rows that a student learns from, with what its teachers say of them unless they are to be asked in each step.

    Args:
        predictor: None without teachers.

    Raises:
        BmcliError: A teacher cannot read the rows, or no row is left.
    """
    key, chosen = _find_changed_rows(options.transfer, prepared, cache)
    prepared = prepared if chosen is None else replace(prepared, transfer=chosen)
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
    told = {kind: _read_outputs(folder, kind, names) for kind, names in _list_arrays(predictor).items()}
    transfer = replace(
        prepared.split("train"), teacher_outputs={kind: arrays for kind, arrays in told.items() if arrays}
    )
    return TransferSet(replace(prepared, transfer=transfer), folder, shapes)


def _list_arrays(predictor: TeacherPredictor) -> dict[str, list[str]]:
    return {"outputs": list(predictor.output_forms), "layers": list(predictor.layers)}


def _make_key(rows: str, options: DistillationOptions, predictor: TeacherPredictor) -> str:
    """SHA-256 of all that decides what teachers say of which rows."""
    averaged = [predictor.average, predictor.teacher_weights] if predictor.average == "logits" else []
    asked = [(teacher.digest, [name for name, (of, _) in predictor.layers.items() if of == place])
             for place, teacher in enumerate(predictor.teachers)]  # fmt: skip
    words = [CACHE_VERSION, rows, asked, averaged, tf.__version__, keras.__version__]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _write_outputs(
    draft: Path, predictor: TeacherPredictor, inputs: Sequence[Mapping[str, np.ndarray]], count: int
) -> None:
    """Writes what teachers say of all rows, a batch at a time."""
    arrays: dict[tuple[str, str], np.memmap] = {}
    for start in range(0, count, BATCH_SIZE):
        rows = slice(start, min(start + BATCH_SIZE, count))
        for kind, told in predictor.predict_arrays(inputs, rows).items():
            for place, (name, values) in enumerate(told.items()):
                if (kind, name) not in arrays:
                    arrays[kind, name] = _create_array(
                        draft / f"{kind}-{place}.npy", (count, *values.shape[1:]), "float32"
                    )
                arrays[kind, name][rows] = values
    for array in arrays.values():
        array.flush()


def _read_outputs(folder: Path, kind: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        name: np.load(folder / f"{kind}-{place}.npy", mmap_mode="r", allow_pickle=False)
        for place, name in enumerate(names)
    }


def _create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """An array in a new file, to be filled."""
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _find_changed_rows(options: TransferOptions, prepared: PreparedData, cache: Path) -> tuple[str, Split | None]:
    """A key of the rows that are learned from, and the rows if they are others than those that train."""
    if not options.replaces_rows:
        return prepared.spec.key, None
    fingerprint = options.unlabelled.fingerprint() if options.unlabelled else ""  # type: ignore[attr-defined]
    asked = dump(options)
    (asked["unlabelled"] or {}).pop("path", None)
    words = [CACHE_VERSION, prepared.spec.key, asked, fingerprint]
    key = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    folder = cache / "transfer" / key
    store.ensure_entry(folder, lambda draft: _write_rows(draft, options, prepared))
    return key, _read_rows(folder, prepared)


def select_rows(options: TransferOptions, prepared: PreparedData) -> np.ndarray:
    """Places of the training rows whose classes are not left out, ascending.

    Raises:
        BmcliError: A class is unknown, or no row is left.
    """
    split = prepared.split("train")
    keep = np.ones(len(split), bool)
    for target, names in options.excluded_classes.items():
        classes = prepared.spec.target(target).classes
        for place, name in enumerate(map(str, names)):
            if name not in classes:
                raise BmcliError(
                    f"target {quoted(target)} has no class {quoted(name)}.",
                    path=f"distillation.transfer.excluded_classes.{target}.{place}",
                    suggestion=parts.did_you_mean(name, classes),
                )
            keep &= np.asarray(split.targets[target]) != classes.index(name)
    if not keep.any():
        raise BmcliError("every training row is left out.", path="distillation.transfer.excluded_classes")
    return np.flatnonzero(keep)


def _write_rows(draft: Path, options: TransferOptions, prepared: PreparedData) -> None:
    """The training rows that are kept, then those that nobody labelled."""
    places, split, spec = select_rows(options, prepared), replace(prepared, transfer=None).split("train"), prepared.spec
    more = _read_unlabelled(options, prepared)
    count = len(places) + (len(more) if more else 0)
    for place, column in enumerate(spec.inputs):
        array = split.inputs[column.name]
        room = _create_array(draft / f"inputs-{place}.npy", (count, *array.shape[1:]), array.dtype)
        room[: len(places)] = array[places]
        if more is not None:
            room[len(places) :] = more.inputs[column.name]
        room.flush()
    for place, column in enumerate(spec.targets):
        array = split.targets[column.name]
        # Of rows without labels that of a row that has one, since no loss may be infinite even where it does not count.
        values = np.concatenate([array[places], np.repeat(array[places[:1]], count - len(places), axis=0)])
        np.save(draft / f"targets-{place}.npy", values)
    if split.weights is not None:
        np.save(draft / "weights.npy", np.concatenate([split.weights[places], np.ones(count - len(places), "float32")]))
    labelled = np.zeros(count, "float32")
    labelled[: len(places)] = count / len(places)
    np.save(draft / "labelled.npy", labelled)


def _read_rows(folder: Path, prepared: PreparedData) -> Split:
    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    spec, labelled = prepared.spec, array("labelled")
    return Split(
        inputs={column.name: array(f"inputs-{place}") for place, column in enumerate(spec.inputs)},
        targets={column.name: array(f"targets-{place}") for place, column in enumerate(spec.targets)},
        weights=array("weights") if spec.weight is not None else None,
        label_weights=None if labelled.all() else labelled,
    )


def _read_unlabelled(options: TransferOptions, prepared: PreparedData) -> Split | None:
    if options.unlabelled is None:
        return None
    try:
        rows = read_rows(options.unlabelled, skip_broken=False)  # type: ignore[arg-type]
        return preparation.encode_rows(rows, prepared.spec, with_targets=False)
    except BmcliError as error:
        raise BmcliError(*(replace(each, path="distillation.transfer.unlabelled") for each in error.faults)) from None


class TeacherInputs:
    """The rows of a student as its teachers take them.

    Args:
        prepared: With the rows that are learned from in the place of those that train.
    """

    def __init__(self, recipe: Recipe, prepared: PreparedData, transfer: TransferOptions) -> None:
        self._recipe, self._prepared, self._transfer = recipe, prepared, transfer

    def encode(self, split: str, teachers: Sequence[TeacherNetwork]) -> list[Mapping[str, np.ndarray]]:
        """For each teacher its inputs by column."""
        return [self._encode_for(split, teacher) for teacher in teachers]

    def _encode_for(self, split: str, teacher: TeacherNetwork) -> Mapping[str, np.ndarray]:
        if teacher.accepts_inputs_of(self._prepared.spec):
            return self._prepared.split(split).inputs
        encode = self._build_encoder(teacher)
        pieces = [encode(self._read_raw_rows(split))]
        if split == "train" and self._transfer.unlabelled is not None:
            pieces.append(encode(read_rows(self._transfer.unlabelled, skip_broken=False)))  # type: ignore[arg-type]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _build_encoder(self, teacher: TeacherNetwork) -> Callable[[SourceRows], Mapping[str, np.ndarray]]:
        spec = teacher.spec
        if spec is None:
            wanted = teacher.model.input
            return lambda rows: _served_inputs(rows, wanted)
        return lambda rows: preparation.encode_rows(rows, spec, with_targets=False).inputs

    def _read_raw_rows(self, split: str) -> SourceRows:
        """The rows of a split as the source holds them, in their order."""
        rows, indices = self._source
        places = indices[split]
        if split == "train":
            places = places[select_rows(self._transfer, replace(self._prepared, transfer=None))]
        return replace(picked(rows, places), split=None)

    @cached_property
    def _source(self) -> tuple[SourceRows, Mapping[str, np.ndarray]]:
        recipe = self._recipe
        return raw_rows.reread_rows(recipe.data, recipe.targets(), recipe.data_seed)


def _served_inputs(rows: SourceRows, wanted: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Rows as a served model takes them; a column that they lack, or a cell that is of another kind, is a fault."""
    faults = [columns.missing_column_fault(name, "", rows) for name in wanted if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    return {name: columns.read_column(rows, name, partial(_to_array, wanted=wanted[name])) for name in wanted}


def _to_array(column: RawColumn, wanted: Any) -> np.ndarray:
    """A raw column as an array of what a served model takes."""
    if wanted.dtype == "string":
        return np.array([text or "" for text in raw_columns.to_texts(column).to_pylist()], object)
    values = raw_columns.to_numbers(column) if raw_columns.is_text_column(column) else np.asarray(column)
    if values.ndim < len(wanted.shape):
        values = values.reshape(*values.shape, *(1,) * (len(wanted.shape) - values.ndim))
    return values.astype(wanted.dtype)
