"""From a source to encoded splits on disk: read, split, fit on the training rows, encode, keep."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bmcli import inputs as input_kinds
from bmcli import parts
from bmcli.cells import RowFault, take
from bmcli.data import columns, files, splits, store
from bmcli.data import targets as target_kinds
from bmcli.data.sources import Rows, SourceOptions
from bmcli.errors import BmcliError, Fault
from bmcli.recipe.fields import Kind
from bmcli.recipe.schema import DataOptions
from bmcli.specs import SPLITS, Column, DataSpec, Prepared, Split

if TYPE_CHECKING:
    import numpy as np

_Name = tuple[str, str]  # the role of a column, `inputs` or `targets`, and its name
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

PREPARATION_VERSION = 1
"""Part of every key: to be raised whenever the same source and options would give other arrays."""


def prepare(options: DataOptions, targets: Mapping[str, Kind], seed: int, cache: Path) -> Prepared:
    """Encoded splits of a source, from the cache if the same bytes were prepared in the same way before.

    Args:
        targets: Target options by name.
        seed: Decides the split.
        cache: Folder that holds a folder for each key; made if it is not there.

    Raises:
        BmcliError: The source, a column or a cell is at fault, or the cache cannot be written.
    """
    source: SourceOptions = options.source  # type: ignore[assignment]
    stamps = _stamps(source)
    fingerprint = source.fingerprint()
    key = _key(options, targets, seed, fingerprint)
    folder = cache / key
    if known := store.reopened(folder, key):
        return known
    with store.writing(cache), store.locked(folder):
        if known := store.reopened(folder, key):
            return known
        spec, encoded = _from_source(options, targets, seed, fingerprint, key)
        if _stamps(source) != stamps:
            raise BmcliError("the source changed while it was read.", path="data.source", suggestion="Start again.")
        return store.write(folder, spec, encoded)


def encode_rows(rows: Rows, spec: DataSpec, with_targets: bool) -> Split:
    """Rows of another file, encoded by what was fitted on the training rows of a run; they have no weights.

    Raises:
        BmcliError: A column is missing, or a cell cannot be read.
    """
    wanted = {("inputs", column.name): column for column in spec.inputs}
    if with_targets:
        wanted |= {("targets", column.name): column for column in spec.targets}
    faults = [columns.missing(name, "", rows) for _, name in wanted if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    return _encode(rows, wanted, missing=())


def _from_source(
    options: DataOptions, targets: Mapping[str, Kind], seed: int, fingerprint: str, key: str
) -> tuple[DataSpec, dict[str, Split]]:
    """Everything that is kept: what was fitted, and the encoded rows of every split."""
    rows: Rows = parts.load("data.sources", options.source.kind).read(options.source)
    columns.check_names(rows, options, targets)
    missing = getattr(options.source, "missing", ())
    indices, stratified = _split_rows(rows, options, targets, seed)
    weights = _weights(rows, options.weight, indices)
    training = _subset(rows, indices["train"])
    inputs = columns.inputs(training.columns, options, targets)
    fitted = _fit(training, inputs, targets, missing)
    splits_of_rows = {name: _subset(rows, indices[name], [name for _, name in fitted]) for name in SPLITS}
    spec = DataSpec(
        inputs=tuple(fitted["inputs", name] for name in inputs),
        targets=tuple(fitted["targets", name] for name in targets),
        counts={name: len(indices[name]) for name in SPLITS},
        fingerprint=fingerprint,
        key=key,
        stratified=stratified,
        weight=options.weight,
    )
    encoded = {name: _encode(part, fitted, missing) for name, part in splits_of_rows.items()}
    return spec, {name: replace(split, weights=weights.get(name)) for name, split in encoded.items()}


def _split_rows(
    rows: Rows, options: DataOptions, targets: Mapping[str, Kind], seed: int
) -> tuple[dict[str, np.ndarray], str | None]:
    """Indices of the rows of each split, and the column whose proportions they keep."""
    given, column = rows.split, options.split.column
    if column is not None and given is not None:
        raise BmcliError("the files tell the splits already.", path="data.split.column", suggestion="Leave it out.")
    if column is not None:
        given = _each({("", column): rows.columns[column]}, lambda _, cells: splits.named(cells), rows, ())["", column]
    stratify = _stratified(options, targets)
    groups = None
    if stratify is not None:
        told = _each({("", stratify): rows.columns[stratify]}, lambda _, cells: splits.groups_of(cells), rows, ())
        groups = told["", stratify]
        if options.split.stratify == "auto" and not splits.in_every_split(options.split, given, groups):
            groups, stratify = None, None
    return splits.assign(options.split, len(rows), seed, given, groups), stratify


def _stratified(options: DataOptions, targets: Mapping[str, Kind]) -> str | None:
    """The column whose proportions the splits should keep."""
    chosen = options.split.stratify
    if chosen == "auto":
        return next(iter(targets)) if [target.kind for target in targets.values()] == ["category"] else None
    return None if chosen == "none" else chosen


def _weights(rows: Rows, column: str | None, indices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How much each row of each split counts; empty without a column that tells it."""
    if column is None:
        return {}
    # No text may stand for a missing weight, so a fault does not offer to declare one.
    told = _each({("", column): rows.columns[column]}, lambda _, cells: columns.weights(cells), rows, ())["", column]
    if not told[indices["train"]].any():
        message = f"column '{column}': every training row has the weight 0, so there is nothing to learn."
        raise BmcliError(message, path="data.weight", suggestion="Give the rows that should count a larger number.")
    return {name: told[indices[name]] for name in SPLITS}


def _fit(
    training: Rows, inputs: Mapping[str, Kind], targets: Mapping[str, Kind], missing: Sequence[str]
) -> dict[_Name, Column]:
    asked = {("inputs", name): options for name, options in inputs.items()}
    asked |= {("targets", name): options for name, options in targets.items()}

    def fit(name: _Name, options: Kind) -> Column:
        room = "inputs" if name[0] == "inputs" else "data.targets"
        return parts.load(room, options.kind).fit(name[1], training.columns[name[1]], options)

    return _each(asked, fit, training, missing)


def _encode(rows: Rows, wanted: Mapping[_Name, Column], missing: Sequence[str]) -> Split:
    def encode(name: _Name, column: Column) -> np.ndarray:
        kind = input_kinds.kind_of(column) if name[0] == "inputs" else target_kinds.kind_of(column)
        return kind.encode(rows.columns[column.name], column)

    encoded = _each(wanted, encode, rows, missing)
    return Split(
        inputs={name: array for (role, name), array in encoded.items() if role == "inputs"},
        targets={name: array for (role, name), array in encoded.items() if role == "targets"},
    )


def _each(
    items: Mapping[_Name, _Item], work: Callable[[_Name, _Item], _Result], rows: Rows, missing: Sequence[str]
) -> dict[_Name, _Result]:
    """The work done on every column, or one BmcliError with the faults of all of them.

    Args:
        missing: Texts that the source takes for a missing cell, if it can be told more of them.
    """
    done: dict[_Name, _Result] = {}
    faults: list[Fault] = []
    for name, item in items.items():
        try:
            done[name] = work(name, item)
        except RowFault as fault:
            message = f"{rows.where(fault.row)}  column '{name[1]}': {fault.message}"
            faults.append(Fault(message, suggestion=fault.suggestion or _as_missing(fault.cell, missing)))
        except BmcliError as error:
            faults += error.faults
    if faults:
        raise BmcliError(*faults)
    return done


def _as_missing(cell: str | None, missing: Sequence[str]) -> str:
    """How to declare a cell as missing: the whole list, since the recipe's replaces the default."""
    if cell is None or not missing:
        return ""
    return f"Add it to `missing: {json.dumps([text for text in (*missing, cell) if text], ensure_ascii=False)}`."


def _subset(rows: Rows, indices: np.ndarray, names: Iterable[str] | None = None) -> Rows:
    """Some rows of some columns, which still know where they come from."""
    chosen = {name: take(rows.columns[name], indices) for name in (rows.columns if names is None else names)}
    return Rows(chosen, split=None, where=lambda row: rows.where(int(indices[row])))


def _key(options: DataOptions, targets: Mapping[str, Kind], seed: int, fingerprint: str) -> str:
    """SHA-256 of all that decides the arrays. Where the files lie does not."""
    asked = options.model_dump()
    path = asked["source"].pop("path", None)
    asked["source"]["splits"] = [name for name in SPLITS if name in path] if isinstance(path, dict) else None
    asked["targets"] = {name: target.model_dump() for name, target in targets.items()}
    words = [PREPARATION_VERSION, fingerprint, seed, asked]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _stamps(source: SourceOptions) -> list[tuple[int, int, int]]:
    """Size, time and identity of every file, to notice a change while reading."""
    stamps = []
    for path in source.files():
        with files.opened(path) as file:
            status = os.fstat(file.fileno())
        stamps.append((status.st_size, status.st_mtime_ns, status.st_ino))
    return stamps
