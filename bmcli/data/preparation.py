"""From a source to encoded splits on disk: read, split, fit on the training rows, encode, keep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bmcli import inputs as input_kinds
from bmcli import parts
from bmcli.data import columns, files, invalid, store
from bmcli.data import targets as target_kinds
from bmcli.data.raw_rows import reread_rows
from bmcli.data.sources import SourceOptions, SourceRows, read_rows
from bmcli.data.splitting import splits
from bmcli.errors import BmcliError, Fault, naming
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, take_rows
from bmcli.recipe.data import DataOptions, get_target_columns
from bmcli.recipe.fields import Kind
from bmcli.specs import MANY_COLUMNS, SPLITS, Column, DataSpec, PreparedData, Split, stack_of

if TYPE_CHECKING:
    import numpy as np

_ColumnKey = tuple[str, str]  # the role of a column, `resolve_inputs` or `targets`, and its name
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_PIECE_BYTES = 2**26
_LONGEST_LIST = 500  # characters of texts that can be typed

PREPARATION_VERSION = 4
"""Part of every key: to be raised whenever the same source and options would give other arrays."""


def prepare(options: DataOptions, targets: Mapping[str, Kind], seed: int, cache: Path) -> PreparedData:
    """Encoded splits of a source, from the cache if the same bytes were prepared in the same way before.

    What is damaged there is prepared again, with a word about it.

    Args:
        targets: Target options by name.
        seed: Decides the split and the sample.
        cache: Folder that holds a folder for each key; made if it is not there.

    Raises:
        BmcliError: The source, a column or a cell is at fault, or the cache cannot be written.
    """
    source: SourceOptions = options.source  # type: ignore[assignment]
    stamps = _stamps(source)
    fingerprint = source.fingerprint()
    key = _key(options, targets, seed, fingerprint)

    def make(folder: Path) -> None:
        draft = store.PreparedDataWriter(folder)
        spec = _prepare_source(options, targets, seed, draft)
        changed = {file for file, _ in _stamps(source).items() ^ stamps.items()}
        if changed:
            first = min(map(files.format_path, changed))
            raise BmcliError(f"{first}: changed while it was read.", path="data.source", suggestion="Start again.")
        draft.finish(replace(spec, fingerprint=fingerprint, key=key))

    store.ensure_entry(cache / key, make)
    return PreparedData.open(cache / key)


def encode_rows(rows: SourceRows, spec: DataSpec, with_targets: bool) -> Split:
    """Rows of another file, encoded by what was fitted on the training rows of a run; they have no weights.

    Raises:
        BmcliError: A column is missing, or a cell cannot be read.
    """
    wanted = {("inputs", column.name): column for column in spec.inputs}
    if with_targets:
        wanted |= {("targets", column.name): column for column in spec.targets}
    read_from = {
        name: target_kinds.get_source_columns(column) for name, column in wanted.items() if name[0] == "targets"
    }
    read_from |= {name: (name[1],) for name in wanted if name[0] == "inputs"}
    needed = [name for names in read_from.values() for name in names]
    faults = [columns.missing_column_fault(name, "", rows) for name in needed if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)

    def work(name: _ColumnKey, column: Column) -> np.ndarray:
        return _encode(name[0], columns.join_columns(rows.columns, read_from[name]), column)

    encoded = _apply_to_columns(wanted, work, rows, missing=())
    return Split(
        inputs={name: array for (role, name), array in encoded.items() if role == "inputs"},
        targets={name: array for (role, name), array in encoded.items() if role == "targets"},
    )


def to_serving_arrays(rows: SourceRows, spec: DataSpec) -> dict[str, np.ndarray]:
    """Rows of another file as a served model takes them, by column; raises as `encode_rows` does."""
    wanted = {("inputs", column.name): column for column in spec.inputs}
    faults = [columns.missing_column_fault(name, "", rows) for _, name in wanted if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    found = _apply_to_columns(
        wanted, lambda name, column: input_kinds.to_serving_array(rows.columns[name[1]], column), rows, missing=()
    )
    return {name: array for (_, name), array in found.items()}


def read_serving_arrays(
    options: DataOptions, targets: Mapping[str, Kind], seed: int, spec: DataSpec, wanted: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Some rows of the splits as a served model takes them, by split and column.

    Args:
        wanted: Positions in each split, whose rows are in the order of its prepared arrays.

    Raises:
        BmcliError: The source is at fault.
    """
    rows, indices = reread_rows(options, targets, seed)
    found: dict[str, dict[str, np.ndarray]] = {split: {} for split in wanted}
    with naming(rows.origin):
        for column in spec.inputs:
            cells = rows.columns[column.name]
            for split, positions in wanted.items():
                found[split][column.name] = input_kinds.to_serving_array(
                    take_rows(cells, indices[split][positions]), column
                )
    return found


def _prepare_source(
    options: DataOptions, targets: Mapping[str, Kind], seed: int, draft: store.PreparedDataWriter
) -> DataSpec:
    """What the data is; its encoded rows go into the draft, a column at a time."""
    rows = read_rows(options.source, skip_broken=options.invalid != "error")  # type: ignore[arg-type]
    with naming(rows.origin):
        return _encoded_source(rows, options, targets, seed, draft)


def _encoded_source(
    rows: SourceRows, options: DataOptions, targets: Mapping[str, Kind], seed: int, draft: store.PreparedDataWriter
) -> DataSpec:
    broken = rows.broken
    columns.check_names(rows, options, targets)
    rows, cells, skipped = invalid.apply_invalid_policy(rows, options, targets)
    indices, stratified = splits.split_rows(rows, options, targets, seed)
    weights = _weights(rows, options.weight, indices)
    for split, values in weights.items():
        draft.write(split, "weights", values.shape, "float32", [values])
    inputs = columns.resolve_inputs(invalid.RowSubset(rows.columns, indices["train"]), options, targets)
    learned_from = options.source.shown("train")  # type: ignore[attr-defined]
    # Files are numbered, never named after columns: a column's name is foreign text. Of many, those alike share one.
    many = len(inputs) >= MANY_COLUMNS
    asked = {("inputs", name): ("" if many else f"inputs-{i}", kind) for i, (name, kind) in enumerate(inputs.items())}
    asked |= {("targets", name): (f"targets-{i}", kind) for i, (name, kind) in enumerate(targets.items())}

    def work(name: _ColumnKey, item: tuple[str, Kind]) -> Column:
        read_from = get_target_columns(name[1], item[1]) if name[0] == "targets" else (name[1],)
        raw = columns.join_columns(rows.columns, read_from)
        with naming(learned_from):
            column = _fitted(*name, item[1], raw, indices["train"])
        for split in SPLITS:
            shape = (len(indices[split]), *column.shape)
            write, file = (draft.write, item[0]) if item[0] else (draft.append, stack_of(column))
            write(split, file, shape, column.dtype, _encode_in_pieces(name[0], raw, column, indices[split]))
        return column

    fitted = _apply_to_columns(asked, work, rows, getattr(options.source, "missing", ()))
    return DataSpec(
        inputs=tuple(fitted["inputs", name] for name in inputs),
        targets=tuple(fitted["targets", name] for name in targets),
        counts={name: len(indices[name]) for name in SPLITS},
        fingerprint="",
        key="",
        stratified=stratified,
        weight=options.weight,
        source=rows.found,
        invalid=cells,
        skipped=skipped,
        broken=broken,
        crosses=columns.build_crosses(options, inputs, {name: fitted["inputs", name] for name in inputs}),
    )


def _fitted(role: str, name: str, options: Kind, raw: RawColumn, train: np.ndarray) -> Column:
    """A column fitted on its training rows."""
    room = "inputs" if role == "inputs" else "data.targets"
    with _translate_source_rows(train):
        column: Column = parts.load(room, options.kind).fit(name, take_rows(raw, train), options)
    return column


def _encode_in_pieces(role: str, raw: RawColumn, column: Column, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The encoded rows at `indices`, so many at a time that those of large cells need not fit into memory."""
    import numpy as np

    size = max(1, _PIECE_BYTES // (int(np.prod(column.shape, dtype="int64")) * np.dtype(column.dtype).itemsize or 1))
    for start in range(0, len(indices), size):
        some = indices[start : start + size]
        with _translate_source_rows(some):
            yield _encode(role, take_rows(raw, some), column)


@contextmanager
def _translate_source_rows(indices: np.ndarray) -> Iterator[None]:
    """Turns the row of a fault among some rows into the row of the source."""
    try:
        yield
    except RowFault as fault:
        raise RowFault(int(indices[fault.row]), fault.message, fault.suggestion, fault.cell) from None


def _weights(rows: SourceRows, column: str | None, indices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How much each row of each split counts; empty without a column that tells it."""
    if column is None:
        return {}
    # No text may stand for a missing weight, so a fault does not offer to declare one.
    told = columns.read_column(rows, column, columns.read_weights)
    if not told[indices["train"]].any():
        message = f"column {quoted(column)}: every training row has the weight 0, so there is nothing to learn."
        raise BmcliError(message, path="data.weight", suggestion="Give the rows that should count a larger number.")
    return {name: told[indices[name]] for name in SPLITS}


def _encode(role: str, raw: RawColumn, column: Column) -> np.ndarray:
    kind = input_kinds.kind_of(column) if role == "inputs" else target_kinds.kind_of(column)
    return kind.encode(raw, column)


def _apply_to_columns(
    items: Mapping[_ColumnKey, _Item],
    work: Callable[[_ColumnKey, _Item], _Result],
    rows: SourceRows,
    missing: Sequence[str],
) -> dict[_ColumnKey, _Result]:
    """The work done on every column, or one BmcliError with the faults of all of them.

    Args:
        missing: Texts that the source takes for a missing cell, if it can be told more of them.
    """
    done: dict[_ColumnKey, _Result] = {}
    faults: list[Fault] = []
    for name, item in items.items():
        try:
            done[name] = work(name, item)
        except RowFault as fault:
            told = columns.locate_fault(fault, name[1], rows)
            faults.append(replace(told, suggestion=told.suggestion or _suggest_missing(fault.cell, missing)))
        except BmcliError as error:
            faults += (fault.of(rows.origin) for fault in error.faults)
    if faults:
        raise BmcliError(*faults)
    return done


def _suggest_missing(cell: str | None, missing: Sequence[str]) -> str:
    """How to declare a cell as missing: the whole list, since the recipe's replaces the default."""
    if cell is None or not missing or sum(map(len, (*missing, cell))) > _LONGEST_LIST:
        return ""
    return f"Add it to `missing: {json.dumps([text for text in (*missing, cell) if text], ensure_ascii=False)}`."


def _key(options: DataOptions, targets: Mapping[str, Kind], seed: int, fingerprint: str) -> str:
    """SHA-256 of all that decides the arrays. Where the files lie does not."""
    asked = options.model_dump()
    asked.pop("augment")  # decided anew in every step
    asked.pop("seed")  # is in `seed`
    asked["source"].pop("path", None)
    asked["source"]["splits"] = options.source.splits()  # type: ignore[attr-defined]
    asked["targets"] = {name: target.model_dump() for name, target in targets.items()}
    words = [PREPARATION_VERSION, fingerprint, seed, asked]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _stamps(source: SourceOptions) -> dict[files.File, tuple[int, int, int]]:
    """Size, time and identity of every file, to notice a change while reading."""
    return {path: files.read_stamp(path) for path in source.files()}
