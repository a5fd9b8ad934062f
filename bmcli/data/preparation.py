"""Preparation: read a source, split it, fit on the training rows, encode all rows and write them to the cache."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bmcli import inputs as input_kinds
from bmcli import parts, plugins
from bmcli.data import columns, derivation, files, foreign_cells, invalid, store
from bmcli.data import targets as target_kinds
from bmcli.data.raw_rows import read_valid_rows, reread_rows
from bmcli.data.sources import SourceOptions, SourceRows, describe_left_out, get_source
from bmcli.data.splitting import splits
from bmcli.errors import BmcliError, Fault, prefix_faults
from bmcli.messages import write_message
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault, take_rows
from bmcli.recipe.data import DataOptions
from bmcli.recipe.fields import Kind
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import MANY_COLUMNS, SPLITS, Column, DataSpec, PreparedData, Split, get_stack_name
from bmcli.windows import EncodedRows, WindowedArray

if TYPE_CHECKING:
    import numpy as np

_ColumnKey = tuple[str, str]  # the role of a column, `inputs` or `targets`, and its name
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_PIECE_BYTES = 2**26  # encoded bytes that are held in memory at once

LEAVE_OUT = "leave out the row"
PREPARATION_VERSION = 9
"""Part of every key. Raise it whenever the same source and options give other arrays, or their description changes."""


def prepare(
    options: DataOptions, targets: Mapping[str, TargetOptions], seed: int, cache: Path, fitted: Sequence[Column] = ()
) -> PreparedData:
    """Return the encoded splits of a source, from the cache if the same bytes were prepared with the same options.

    A damaged entry of the cache is made again, with a warning.

    Args:
        targets: Target options by name.
        seed: Seed of the split and the sample.
        cache: Folder of the cache, with one folder for each key; created if necessary.
        fitted: All inputs as another training fitted them; by default they are fitted on the training rows.

    Raises:
        BmcliError: The source, a column or a cell is at fault, or the cache cannot be written.
    """
    source = get_source(options)
    # Fingerprint and rows are read one after the other: if a file changes in between, the key would name other data.
    stamps = _read_stamps(source)
    fingerprint = source.fingerprint()
    key = _compute_key(options, targets, seed, fingerprint, fitted)

    def make(folder: Path) -> None:
        draft = store.PreparedDataWriter(folder)
        spec = _prepare_source(options, targets, seed, fitted, draft)
        changed = {file for file, _ in _read_stamps(source).items() ^ stamps.items()}
        if changed:
            first = min(map(files.format_path, changed))
            raise BmcliError(
                f"{first}: changed while it was read.", path="data.source", suggestion="Run the command again."
            )
        draft.finish(replace(spec, fingerprint=fingerprint, key=key))

    store.ensure_entry(cache / key, make)
    return PreparedData.open(cache / key)


def encode_rows(rows: SourceRows, spec: DataSpec, with_targets: bool, otherwise: str = LEAVE_OUT) -> Split:
    """Encode rows of another file with the columns fitted on the training rows of a run; they have no weights.

    Args:
        otherwise: What else can be done about a cell that cannot be read than to correct it, for its fault.

    Raises:
        BmcliError: A column is missing, or a cell cannot be read.
    """
    fitted = {("inputs", column.name): column for column in spec.inputs}
    if with_targets:
        fitted |= {("targets", column.name): column for column in spec.targets}
    sources = {key: target_kinds.get_source_columns(column) for key, column in fitted.items() if key[0] == "targets"}
    sources |= {key: (key[1],) for key in fitted if key[0] == "inputs"}
    names = [name for each in sources.values() for name in each]
    faults = [columns.missing_column_fault(name, "", rows, names) for name in names if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)

    def encode(key: _ColumnKey, column: Column) -> EncodedRows:
        return _encode(key[0], columns.join_columns(rows.columns, sources[key]), column)

    explain = _explain_later_fault(rows, lambda key, column, cells: _encode(key[0], cells, column), otherwise)
    encoded = _apply_to_columns(fitted, encode, rows, explain)
    return Split(
        inputs={name: array for (role, name), array in encoded.items() if role == "inputs"},
        targets={name: array for (role, name), array in encoded.items() if role == "targets"},
    )


def to_serving_arrays(rows: SourceRows, spec: DataSpec, otherwise: str = LEAVE_OUT) -> dict[str, np.ndarray]:
    """Convert rows of another file to the inputs of a served model, by column; raise as `encode_rows` does."""
    fitted = {("inputs", column.name): column for column in spec.inputs}
    names = [name for _, name in fitted]
    faults = [columns.missing_column_fault(name, "", rows, names) for name in names if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    arrays = _apply_to_columns(
        fitted,
        lambda key, column: input_kinds.to_serving_array(rows.columns[key[1]], column),
        rows,
        _explain_later_fault(rows, lambda _, column, cells: input_kinds.to_serving_array(cells, column), otherwise),
    )
    return {name: array for (_, name), array in arrays.items()}


def read_serving_arrays(
    options: DataOptions,
    targets: Mapping[str, TargetOptions],
    seed: int,
    spec: DataSpec,
    positions: Mapping[str, np.ndarray],
) -> dict[str, dict[str, np.ndarray]]:
    """Read rows of the splits again as inputs of a served model, by split and column.

    Args:
        positions: Positions of the rows in the prepared arrays of each split.

    Raises:
        BmcliError: The source is at fault.
    """
    rows, indices = reread_rows(options, targets, seed)
    arrays: dict[str, dict[str, np.ndarray]] = {split: {} for split in positions}
    with prefix_faults(rows.origin):
        for column in spec.inputs:
            cells = rows.columns[column.name]
            for split, places in positions.items():
                selected = take_rows(cells, indices[split][places])
                arrays[split][column.name] = input_kinds.to_serving_array(selected, column)
    return arrays


def _prepare_source(
    options: DataOptions,
    targets: Mapping[str, TargetOptions],
    seed: int,
    fitted_inputs: Sequence[Column],
    draft: store.PreparedDataWriter,
) -> DataSpec:
    """Read and split a source, write its encoded columns to the draft one at a time, and return their description."""
    rows, invalid_cells, skipped_rows = read_valid_rows(options, targets)
    if rows.left_out:
        write_message(f"note: {describe_left_out(rows.left_out)}")
    with prefix_faults(rows.origin):
        spec = _encode_source(rows, options, targets, seed, fitted_inputs, draft)
    return replace(spec, invalid_cells=invalid_cells, skipped_rows=skipped_rows)


def _encode_source(
    rows: SourceRows,
    options: DataOptions,
    targets: Mapping[str, TargetOptions],
    seed: int,
    fitted_inputs: Sequence[Column],
    draft: store.PreparedDataWriter,
) -> DataSpec:
    assignment = splits.split_rows(rows, options, targets, seed)
    indices = assignment.indices
    weights = _read_split_weights(rows, options.weight, indices)
    for split, values in weights.items():
        draft.write(split, "weights", values.shape, "float32", [values])
    known = {column.name: column for column in fitted_inputs}
    inputs = (
        columns.match_inputs(rows, options, fitted_inputs)
        if known
        else columns.resolve_inputs(invalid.RowSubset(rows.columns, indices["train"]), options, targets)
    )
    source = get_source(options)
    training_files = source.describe_files("train")
    derived = derivation.list_derivations(options)
    # Files are numbered, never named after columns: a column's name is foreign text and could name any path.
    items: dict[_ColumnKey, tuple[str, Kind]] = {
        ("inputs", name): (f"inputs-{i}", kind) for i, (name, kind) in enumerate(inputs.items())
    }
    items |= {("targets", name): (f"targets-{i}", kind) for i, (name, kind) in enumerate(targets.items())}

    def fit_and_encode(key: _ColumnKey, item: tuple[str, Kind]) -> Column:
        (role, name), (file, kind) = key, item
        raw = columns.join_columns(
            rows.columns, kind.list_read_columns(name) if isinstance(kind, TargetOptions) else (name,)
        )
        with prefix_faults(training_files):
            is_known = role == "inputs" and name in known
            column = known[name] if is_known else _fit_column(role, name, kind, raw, indices["train"])
            if name in derived and not is_known:
                column = derivation.add_derivation(column, derived[name])
        is_stacked = role == "inputs" and len(inputs) >= MANY_COLUMNS
        _write_column(role, raw, column, indices, draft, file, is_stacked)
        return column

    def explain(key: _ColumnKey, item: tuple[str, Kind], fault: RowFault) -> Fault:
        (role, name), kind = key, item[1]
        listed = (options.inputs or {}).get(name)
        cure = foreign_cells.make_input_cure(listed, getattr(source, "missing", ()))
        check = foreign_cells.check_kind(role, kind)
        return foreign_cells.explain_fault(
            fault, name, rows, check, cure if role == "inputs" else foreign_cells.advise_targets
        )

    fitted = _apply_to_columns(items, fit_and_encode, rows, explain)
    _check_words(targets, fitted)
    return DataSpec(
        inputs=tuple(fitted["inputs", name] for name in inputs),
        targets=tuple(fitted["targets", name] for name in targets),
        counts={name: len(indices[name]) for name in SPLITS},
        fingerprint="",
        key="",
        stratified_by=assignment.stratified_by,
        groups=assignment.groups,
        moved_rows=assignment.moved_rows,
        weight=options.weight,
        source=rows.detected_options,
        malformed_records=rows.malformed_records,
        notes=(
            *rows.notes,
            *columns.describe_left_out(rows.columns, options, targets, inputs),
            *_describe_cut_words(targets, fitted),
        ),
        crosses=columns.build_crosses(options, inputs, {name: fitted["inputs", name] for name in inputs}),
    )


def _check_words(targets: Mapping[str, TargetOptions], fitted: Mapping[_ColumnKey, Column]) -> None:
    """Require that the steps of a text for whose words a target has values are its words.

    Raises:
        BmcliError: It is no input, or is encoded in another way.
    """
    for name, kind in targets.items():
        if (text := kind.words_of) is None:
            continue
        column = fitted.get(("inputs", text))
        if column is None or not input_kinds.get_traits(column).has_words:
            state = "is no input" if column is None else "is not encoded as the sequence of its words"
            raise BmcliError(
                f"target {quoted(name)} has a value for each word of {quoted(text)}, which {state}.",
                path=f"data.inputs.{text}" if column else "data.inputs",
                suggestion="Write {kind: text, encoding: sequence, tokens: {kind: words, punctuation: keep}}.",
            )


def _describe_cut_words(targets: Mapping[str, TargetOptions], fitted: Mapping[_ColumnKey, Column]) -> Iterator[str]:
    """Describe the words behind the length of an input, for which a target has values that are not read either."""
    for name, kind in targets.items():
        if (text := kind.words_of) is None:
            continue
        column = fitted["inputs", text]
        if share := input_kinds.get_traits(column).cut_share:
            yield (
                f"{share:.2%} of the words of {quoted(text)} are behind the first {column.shape[0]} of their rows: "
                f"{quoted(name)} of these is neither learned, measured nor predicted; `length` of both limits it."
            )


def _fit_column(role: str, name: str, options: Kind, raw: RawColumn, train: np.ndarray) -> Column:
    """Fit a column on its training rows."""
    room = "inputs" if role == "inputs" else "data.targets"
    with _translate_source_rows(train):
        column: Column = parts.load(room, options.kind).fit(name, take_rows(raw, train), options)
    return column


def _write_column(
    role: str,
    raw: RawColumn,
    column: Column,
    indices: Mapping[str, np.ndarray],
    draft: store.PreparedDataWriter,
    file: str,
    is_stacked: bool,
) -> None:
    """Encode a column, and write it to the draft.

    Args:
        is_stacked: Whether columns of the same shape and dtype share a file, unless they are windows.
    """
    import numpy as np

    train = _encode_in_pieces(role, raw, column, indices["train"])
    first = next(train, None)
    if isinstance(first, WindowedArray):
        # At once, because windows are small, and share a base only if they are made together.
        rows = np.concatenate([indices[split] for split in SPLITS])
        with _translate_source_rows(rows):
            windows = _encode(role, take_rows(raw, rows), column)
        assert isinstance(windows, WindowedArray), f"{column.kind} encodes some rows as windows, others as an array"
        draft.write_windows(file, windows, {split: len(indices[split]) for split in SPLITS})
        return
    for split in SPLITS:
        shape = (len(indices[split]), *column.shape)
        pieces = _encode_in_pieces(role, raw, column, indices[split])
        if split == "train":
            pieces = itertools.chain([] if first is None else [first], train)
        write, path = (draft.append, get_stack_name(column)) if is_stacked else (draft.write, file)
        write(split, path, shape, column.dtype, pieces)


def _encode_in_pieces(role: str, raw: RawColumn, column: Column, indices: np.ndarray) -> Iterator[EncodedRows]:
    """Encode the rows at `indices` in pieces: rows of large cells, such as pictures, may not fit into memory."""
    import numpy as np

    row_bytes = int(np.prod(column.shape, dtype="int64")) * np.dtype(column.dtype).itemsize or 1
    piece_rows = max(1, _PIECE_BYTES // row_bytes)
    for start in range(0, len(indices), piece_rows):
        piece = indices[start : start + piece_rows]
        with _translate_source_rows(piece):
            yield _encode(role, take_rows(raw, piece), column)


@contextmanager
def _translate_source_rows(indices: np.ndarray) -> Iterator[None]:
    """Translate the row of a RowFault among selected rows to the row of the source."""
    try:
        yield
    except RowFault as fault:
        raise fault.at(int(indices[fault.row])) from None


def _read_split_weights(
    rows: SourceRows, column: str | None, indices: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Read the weights of the rows of each split; empty if the recipe names no column of weights."""
    if column is None:
        return {}
    # A weight must not be missing, so a fault does not suggest to declare its text as missing.
    weights = columns.read_column(rows, column, columns.read_weights)
    if not weights[indices["train"]].any():
        message = f"column {quoted(column)}: every training row has the weight 0, so there is nothing to learn."
        raise BmcliError(message, path="data.weight", suggestion="Give rows that should count a weight above 0.")
    return {name: weights[indices[name]] for name in SPLITS}


def _encode(role: str, raw: RawColumn, column: Column) -> EncodedRows:
    kind = input_kinds.kind_of(column) if role == "inputs" else target_kinds.kind_of(column)
    return kind.encode(raw, column)


def _apply_to_columns(
    items: Mapping[_ColumnKey, _Item],
    work: Callable[[_ColumnKey, _Item], _Result],
    rows: SourceRows,
    explain: Callable[[_ColumnKey, _Item, RowFault], Fault],
) -> dict[_ColumnKey, _Result]:
    """Apply a function to every column; raise one BmcliError with the faults of all of them.

    Args:
        explain: Makes the fault of a column from that of a cell.
    """
    results: dict[_ColumnKey, _Result] = {}
    faults: list[Fault] = []
    for key, item in items.items():
        try:
            results[key] = work(key, item)
        except RowFault as fault:
            faults.append(explain(key, item, fault))
        except BmcliError as error:
            faults += (fault.in_file(rows.origin) for fault in error.faults)
    if faults:
        raise BmcliError(*faults)
    return results


def _explain_later_fault(
    rows: SourceRows, read: Callable[[_ColumnKey, Column, RawColumn], object], otherwise: str
) -> Callable[[_ColumnKey, Column, RowFault], Fault]:
    """Make the function that explains the fault of a cell that a fitted column cannot read."""

    def explain(key: _ColumnKey, column: Column, fault: RowFault) -> Fault:
        example = input_kinds.get_traits(column).example if key[0] == "inputs" else ""
        return foreign_cells.explain_later_fault(
            fault, key[1], rows, lambda cells: read(key, column, cells), example, otherwise
        )

    return explain


def _compute_key(
    options: DataOptions, targets: Mapping[str, TargetOptions], seed: int, fingerprint: str, fitted: Sequence[Column]
) -> str:
    """Compute the SHA-256 of everything that determines the arrays; the paths of the files do not."""
    values = options.model_dump()
    values.pop("augment")  # applied in each training step, not in preparation
    values.pop("seed")  # The resolved seed is the argument `seed`.
    values["source"].pop("path", None)
    values["source"]["splits"] = get_source(options).splits()
    values["targets"] = {name: target.model_dump() for name, target in targets.items()}
    if fitted:
        values["fitted"] = [vars(column) for column in fitted]
    values["plugins"] = _hash_plugins(options, targets)
    return hashlib.sha256(json.dumps([PREPARATION_VERSION, fingerprint, seed, values]).encode()).hexdigest()


def _hash_plugins(options: DataOptions, targets: Mapping[str, TargetOptions]) -> dict[str, str]:
    """Return the SHA-256 of the code of each plug-in that reads or encodes the data."""
    used: Mapping[str, Sequence[Kind]] = {
        "data.sources": [options.source], "inputs": [*(options.inputs or {}).values()],
        "data.targets": [*targets.values()],
    }  # fmt: skip
    names = {
        f"{room}.{each.kind}"
        for room, kinds in used.items()
        for each in kinds
        if each.kind not in parts.list_built_in(room)
    }
    return {name: plugins.describe(name).sha256 for name in sorted(names)}


def _read_stamps(source: SourceOptions) -> dict[files.File, tuple[int, int, int]]:
    """Read size, modification time and inode of every file, by which a change while reading is noticed."""
    return {path: files.read_stamp(path) for path in source.files()}
