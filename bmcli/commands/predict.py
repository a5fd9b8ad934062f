"""`bmcli predict`: predict new rows with a run or an artefact, and write a table."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bmcli import disk, training
from bmcli import inputs as input_kinds
from bmcli.data import files, picture_folders
from bmcli.data.columns import missing_column_fault
from bmcli.data.derivation import derive_columns, get_derivations
from bmcli.data.preparation import encode_rows, to_serving_arrays
from bmcli.data.sources import SourceRows
from bmcli.data.targets import get_source_columns
from bmcli.errors import ArtefactRejected, BmcliError, Fault, prefix_faults
from bmcli.export import artefacts
from bmcli.objectives import open_answers
from bmcli.quoting import listed, quoted
from bmcli.raw_columns import FileColumn, RawColumn, is_text_column, take_rows
from bmcli.run_data import read_data_spec
from bmcli.specs import DataSpec
from bmcli.workflows.new_rows import read_new_rows
from bmcli.workflows.opening import find_run, load_network, load_run_recipe
from bmcli.workflows.prediction_table import TableFormat, count_formulas, list_formats, make_table, open_writer
from bmcli.workflows.unseen import count_unseen, describe_unseen

if TYPE_CHECKING:
    import numpy as np


_Result = TypeVar("_Result")

STANDARD_INPUT = Path("-")
FILE_COLUMN = "file"
"""Column of the output with the file name of each picture of a folder."""

_STANDARD_INPUT = "standard input"
_SKIP = "leave out such rows with --skip-bad-rows"
# Limits of the encoded rows that are in memory at a time.
_MAX_BATCH_ROWS = 8192
_MAX_BATCH_BYTES = 2**26
_MAX_AHEAD_ROWS = 2**16  # rows that are encoded before the network is loaded


_EncodedBatch = tuple[Mapping[str, RawColumn], SourceRows, Any]
"""Kept columns, rows, and the rows as they are encoded."""


@dataclass(frozen=True)
class PredictionRequest:
    """Data to predict, and the table to write.

    Args:
        data: A table, an archive, a folder of pictures, a picture, or `-` for standard input.
        output: A new file; None for standard output.
        format: Format of the output; None to choose it by the file name.
        keep: Columns of the data to copy to the output, in this order.
        skip_bad_rows: Leave out rows that cannot be read, and count them; otherwise they are a fault.
        spreadsheet_safe: Put an apostrophe before texts that a spreadsheet would run as formulas, in CSV.
    """

    data: Path
    output: Path | None
    format: TableFormat | None
    keep: tuple[str, ...]
    skip_bad_rows: bool
    spreadsheet_safe: bool


@dataclass(frozen=True)
class PredictionResult:
    """Summary of a prediction.

    Args:
        origin: `run` or `artefact`, and its folder.
        columns: Columns of the output.
        rows: Number of predicted rows.
        lines: Number of rows of the output, of which a predicted row may have several, or none.
        skipped: Number of rows that could not be read.
        unseen: Number of cells unlike those of the training rows, by column; columns without are left out.
        warnings: Sentences about them.
        formulas: Number of texts in CSV that a spreadsheet would run as formulas.
        notes: Sentences about how the data was read, where that had to be guessed.
        seconds: Time to read, predict and write, without loading the model.
        left_out: Names of files and folders beside the data that hold no rows.
    """

    origin: tuple[str, Path]
    output: Path | None
    columns: tuple[str, ...]
    rows: int
    lines: int
    skipped: int
    unseen: Mapping[str, int]
    warnings: tuple[str, ...]
    formulas: int
    notes: tuple[str, ...]
    seconds: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowPredictor:
    """A run or an artefact that predicts rows.

    Args:
        origin: `run` or `artefact`, and its folder.
        source: Options of the source of the training rows, as in a recipe.
        encode: Encodes rows, or refuses a cell, without the network.
        load: Loads the network. Returns a function that turns encoded rows into predictions by target.
        count_unseen: Counts cells unlike those of the training rows, by column, in rows and the encoded ones.
    """

    origin: tuple[str, Path]
    source: Mapping[str, Any]
    spec: DataSpec
    encode: Callable[[SourceRows], Any]
    load: Callable[[], Callable[[Any], dict[str, np.ndarray]]]
    count_unseen: Callable[[SourceRows, Any], Mapping[str, int]]


def predict(
    target: str, request: PredictionRequest, root: Path, cache: Path, trust_artefact: bool = False
) -> PredictionResult:
    """Predict all rows of some data with a run or an artefact, in their order.

    Args:
        target: A run directory, a run's name, a recipe, whose latest run is taken, or the folder of an artefact.
        trust_artefact: Load an artefact that is a program even if another user exported it.

    Raises:
        BmcliError: The run has no model, the data cannot be read or lacks a column, or the output exists.
        ArtefactRejected: A file of the artefact was changed, or it is a program that another user exported.
    """
    table_format = _choose_format(request)
    if request.spreadsheet_safe and table_format != "csv":
        raise BmcliError(
            f"--spreadsheet-safe has no effect: the output is {table_format}, whose texts are never run.",
            suggestion="Leave it out.",
        )
    is_artefact = artefacts.is_artefact(Path(target))
    if trust_artefact and not is_artefact:
        raise BmcliError(f"--trust-artefact has no effect: {target} is no artefact.", suggestion="Leave it out.")
    predictor = (
        make_artefact_predictor(Path(target), trust_artefact)
        if is_artefact
        else make_run_predictor(target, root, cache)
    )
    spec = predictor.spec
    with _open_rows(request, predictor.source, spec) as (rows, written):
        rows = derive_columns(rows, get_derivations(spec), with_faults=not request.skip_bad_rows)
        keep = request.keep or (
            (FILE_COLUMN,) if FILE_COLUMN in rows.columns and FILE_COLUMN not in _list_inputs(spec) else ()
        )
        _check_columns(rows, spec, keep)
        with prefix_faults(rows.origin):
            kept = {name: (written if name in written else rows.columns)[name] for name in keep}
        return _write_predictions(predictor, rows, kept, request, table_format)


def make_run_predictor(target: str, root: Path, cache: Path) -> RowPredictor:
    """Make a predictor of a run."""
    run = find_run(target, root)
    recipe = load_run_recipe(run).recipe
    spec = read_data_spec(run)

    # TensorFlow reads them when it is imported, and encoding pictures imports it.
    training.set_environment_variables(recipe, cache)

    def load() -> Callable[[Any], dict[str, np.ndarray]]:
        network = load_network(recipe, spec, run, cache)
        from bmcli.training.predictor import Predictor

        return Predictor(network)

    return RowPredictor(
        ("run", run.folder),
        recipe.data.source.model_dump(exclude_unset=True),
        spec,
        lambda rows: encode_rows(rows, spec, with_targets=False, otherwise=_SKIP),
        load,
        lambda rows, encoded: count_unseen(spec, rows.columns, encoded.inputs),
    )


def make_artefact_predictor(folder: Path, trust_artefact: bool) -> RowPredictor:
    """Make a predictor of an artefact."""
    artefact = artefacts.open_artefact(folder, trust_artefact)

    def encode(rows: SourceRows) -> Mapping[str, np.ndarray]:
        with _reject_wrong_description(folder):
            return to_serving_arrays(rows, artefact.spec, _SKIP)

    def count(rows: SourceRows, _: Any) -> Mapping[str, int]:
        with _reject_wrong_description(folder):
            return count_unseen(artefact.spec, rows.columns, None)

    return RowPredictor(("artefact", folder), artefact.source, artefact.spec, encode, artefact.start, count)


@contextlib.contextmanager
def _reject_wrong_description(folder: Path) -> Iterator[None]:
    """Reject an artefact whose description of its columns fails in the body."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ArtefactRejected(f"{folder}: its preprocessing cannot be run: {error}.") from None


def _choose_format(request: PredictionRequest) -> TableFormat:
    """Choose the format of the output; refuse an output that cannot be written."""
    output = request.output
    if output is None:
        if request.format == "parquet":
            raise BmcliError("parquet cannot be written to standard output.", suggestion="Give --output FILE.")
        return request.format or "csv"
    if output.exists():
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")
    if not output.absolute().parent.is_dir():
        raise BmcliError(f"{output.parent}: no such folder.")
    ending = list_formats().get(output.suffix.lower())
    if request.format is None and ending is None:
        known = ", ".join(list_formats())
        raise BmcliError(f"{output}: unknown file ending.", suggestion=f"Known: {known}; or give --format.")
    return request.format or ending or "csv"


@contextlib.contextmanager
def _open_rows(
    request: PredictionRequest, source: Mapping[str, Any], spec: DataSpec
) -> Iterator[tuple[SourceRows, Mapping[str, RawColumn]]]:
    """Open the rows to predict; standard input is first copied to a temporary file.

    Yields:
        The rows, and columns of them whose cells are as the data has them, also where they mark a missing value.
    """

    def read(data: Path) -> tuple[SourceRows, Mapping[str, RawColumn]]:
        rows = _read_rows(data, source, spec, request.skip_bad_rows)
        if not any(name in rows.columns and is_text_column(rows.columns[name]) for name in request.keep):
            return rows, {}
        written = read_new_rows(data, source, _list_inputs(spec), request.skip_bad_rows, as_written=True)
        return rows, written.columns

    if request.data != STANDARD_INPUT:
        yield read(request.data.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="bmcli-") as folder:
        file = _save_standard_input(Path(folder))
        rows, written = _read_standard_input(lambda: read(file), file)

        def locate(row: int) -> str:
            return rows.describe_row(row).replace(str(file), _STANDARD_INPUT)

        notes = tuple(note.replace(str(file), _STANDARD_INPUT) for note in rows.notes)
        yield replace(rows, describe_row=locate, origin=_STANDARD_INPUT, notes=notes), written


def _save_standard_input(folder: Path) -> Path:
    """Copy standard input to a file, with the ending of its format: objects and lists of JSON begin with a bracket."""
    stream = sys.stdin.buffer
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    file = folder / ("input.jsonl" if first in (b"{", b"[") else "input.csv")
    with disk.convert_write_errors(file), file.open("wb") as copy:
        copy.write(first)
        shutil.copyfileobj(stream, copy, 2**20)
    return file


def _read_standard_input(read: Callable[[], _Result], file: Path) -> _Result:
    """Call `read`, whose faults name standard input instead of the temporary file."""
    try:
        return read()
    except BmcliError as error:
        faults = (replace(fault, message=fault.message.replace(str(file), _STANDARD_INPUT)) for fault in error.faults)
        raise BmcliError(*faults) from None


def _read_rows(data: Path, default_options: Mapping[str, Any], spec: DataSpec, skip_malformed: bool) -> SourceRows:
    """Read all rows of a file or folder, with the source options of the training rows if the format is the same."""
    takes_pictures = len(spec.inputs) == 1 and input_kinds.get_traits(spec.inputs[0]).display == "picture"
    if takes_pictures and (rows := _read_pictures(data, spec.inputs[0].name, skip_malformed)):
        return rows
    try:
        return read_new_rows(data, default_options, _list_inputs(spec), skip_malformed)
    except BmcliError as error:
        if not skip_malformed and _is_readable_in_part(data, default_options, spec):
            error.faults = tuple(map(_advise_skipping, error.faults))
        raise


def _is_readable_in_part(data: Path, default_options: Mapping[str, Any], spec: DataSpec) -> bool:
    """Whether a file can be read without its records that are no rows."""
    try:
        return bool(read_new_rows(data, default_options, _list_inputs(spec), skip_malformed=True).malformed_records)
    except BmcliError:
        return False


def _advise_skipping(fault: Fault) -> Fault:
    advice = f"{fault.suggestion} Or {_SKIP}." if fault.suggestion else f"{_SKIP.capitalize()}."
    return replace(fault, suggestion=advice)


def _read_pictures(data: Path, name: str, skip_others: bool) -> SourceRows | None:
    """Read a picture, or all pictures below a folder by the rules of training; None if there is none.

    Args:
        skip_others: Count files among the pictures that are none as rows that cannot be read; otherwise they are a
            fault.
    """
    # `Path.is_file` raises PermissionError below a folder that this user must not read; `os.path.isfile` is false.
    if os.path.isfile(data):
        return _make_picture_rows(data.parent, [data], name, data) if picture_folders.is_picture(data) else None
    if not os.path.isdir(data):
        return None
    contents = list(picture_folders.walk(data))
    pictures = sorted(path for content in contents for path in content.pictures)
    if not pictures:
        return None
    others = [path for content in contents if content.pictures for path in content.others]
    if others and not skip_others:
        raise picture_folders.make_other_file_error(others[0])
    rows = _make_picture_rows(data, pictures, name, data)
    return replace(rows, malformed_records=len(others), left_out=picture_folders.list_left_out(data))


def _make_picture_rows(folder: Path, pictures: Sequence[Path], name: str, data: Path) -> SourceRows:
    import numpy as np
    import pyarrow as pa

    names = pa.chunked_array([pa.array([str(path.relative_to(folder)) for path in pictures], pa.string())])
    return SourceRows(
        columns={
            FILE_COLUMN: names,
            name: FileColumn(np.arange(len(pictures)), lambda row: pictures[row].read_bytes()),
        },
        split=None,
        describe_row=lambda row: files.format_path(pictures[row]),
        origin=files.format_path(data),
    )


def _list_inputs(spec: DataSpec) -> tuple[str, ...]:
    return tuple(column.name for column in spec.inputs)


def _check_columns(rows: SourceRows, spec: DataSpec, keep: Sequence[str]) -> None:
    """Refuse data that lacks a column, before TensorFlow is started."""
    faults = [
        missing_column_fault(name, "", rows, {column.name for column in (*spec.inputs, *spec.targets)})
        for name in dict.fromkeys((*_list_inputs(spec), *keep))
        if name not in rows.columns
    ]
    shown = [_name_kept_column(name, spec) for name in keep]
    faults += [
        Fault(
            f"--keep {quoted(name)}: another kept column is named {quoted(as_name)} in the output.",
            suggestion="Rename it in the data.",
        )
        for name, as_name in zip(keep, shown, strict=True)
        if name != as_name and shown.count(as_name) > 1
    ]
    if faults:
        raise BmcliError(*faults)


def _name_kept_column(name: str, spec: DataSpec) -> str:
    """Return the name of a kept column in the output: that of a target stands beside its prediction."""
    return f"{name}_true" if name in {output.name for output in spec.outputs} else name


def _write_predictions(
    predictor: RowPredictor,
    rows: SourceRows,
    kept: Mapping[str, RawColumn],
    request: PredictionRequest,
    table_format: TableFormat,
) -> PredictionResult:
    start, answers = time.perf_counter(), open_answers(predictor.spec)
    predicted, lines, columns, formulas, unseen = 0, 0, (), 0, Counter[str]()
    unanswered = Counter[str]()
    is_plain = table_format == "csv" and not request.spreadsheet_safe
    total = len(rows) + rows.malformed_records
    batches = _read_ahead(
        _encode_batches(rows, predictor.spec, kept, request.skip_bad_rows, predictor.encode), predictor.spec
    )
    if batches is None:
        message = "no row could be read." if total else "there are no rows to predict."
        raise BmcliError(f"{rows.origin}: {message}")
    load_start = time.perf_counter()
    predict_encoded = predictor.load()
    start += time.perf_counter() - load_start
    with open_writer(request.output, table_format, len(rows), request.spreadsheet_safe) as write:
        for kept_columns, batch, encoded in batches:
            predictions = predict_encoded(encoded)
            unseen.update(predictor.count_unseen(batch, encoded))
            unanswered.update({name: each.count_unanswered(batch.columns) for name, each in answers.items()})
            predictions = {name: each.restrict(predictions[name], batch.columns) for name, each in answers.items()}
            named = {_name_kept_column(name, predictor.spec): cells for name, cells in kept_columns.items()}
            table = make_table(named, predictions, answers)
            formulas += count_formulas(table) if is_plain else 0
            write(table)
            predicted += len(next(iter(predictions.values())))
            lines, columns = lines + len(table), tuple(table.column_names)
    return PredictionResult(
        predictor.origin,
        request.output,
        columns,
        predicted,
        lines,
        total - predicted,
        {column.name: unseen[column.name] for column in predictor.spec.inputs if unseen[column.name]},
        tuple(describe_unseen(predictor.spec, unseen, predicted)),
        formulas,
        (*rows.notes, *_describe_unread(rows, predictor.spec, kept), *_describe_unanswered(unanswered, predicted)),
        time.perf_counter() - start,
        rows.left_out,
    )


def _describe_unread(rows: SourceRows, spec: DataSpec, kept: Iterable[str]) -> Iterator[str]:
    """Name the columns of the data of which the model reads nothing, such as one whose name is mistyped."""
    known: set[str | None] = {*_list_inputs(spec), *kept, FILE_COLUMN}
    known.update(name for target in spec.targets for name in get_source_columns(target))
    known.update(name for each in get_derivations(spec).values() for name in (*each.options.reads, each.time))
    if unread := [name for name in rows.columns if name not in known]:
        yield f"not read by the model: {listed(map(quoted, unread))}."


def _describe_unanswered(counts: Mapping[str, int], rows: int) -> Iterator[str]:
    for name, count in counts.items():
        if count:
            yield f"{count:,} of {rows:,} rows are longer than the model reads, so that {quoted(name)} is incomplete."


def _read_ahead(batches: Iterator[_EncodedBatch], spec: DataSpec) -> Iterator[_EncodedBatch] | None:
    """Encode the first rows at once, so that a bad cell is refused before TensorFlow starts; None if there are none."""
    ahead, rows, limit = [], 0, min(_MAX_AHEAD_ROWS, _MAX_BATCH_BYTES // _count_row_bytes(spec))
    for batch in batches:
        ahead.append(batch)
        rows += len(batch[1])
        if rows >= limit:
            break
    return itertools.chain(ahead, batches) if ahead else None


def _encode_batches(
    rows: SourceRows, spec: DataSpec, kept: Mapping[str, RawColumn], skip: bool, encode: Callable[[SourceRows], Any]
) -> Iterator[_EncodedBatch]:
    """Yield kept columns, rows and encoded rows, in batches of limited memory."""
    import numpy as np

    with prefix_faults(rows.origin):
        columns = {name: rows.columns[name] for name in _list_inputs(spec)}
    size = _choose_batch_size(spec)
    for start in range(0, len(rows), size):
        batch = np.arange(start, min(start + size, len(rows)))
        for indices, read, encoded in _encode_or_skip(columns, spec, rows, batch, skip, encode):
            yield {name: take_rows(column, indices) for name, column in kept.items()}, read, encoded


def _encode_or_skip(
    columns: Mapping[str, RawColumn],
    spec: DataSpec,
    rows: SourceRows,
    indices: np.ndarray,
    skip: bool,
    encode: Callable[[SourceRows], Any],
) -> Iterator[tuple[np.ndarray, SourceRows, Any]]:
    """Yield indices, rows and encoded rows; if some cannot be read and may be skipped, of those around them."""
    batch = SourceRows(
        {name: take_rows(columns[name], indices) for name in _list_inputs(spec)},
        None,
        describe_row=lambda row: rows.describe_row(int(indices[row])),
        origin=rows.origin,
        notes=rows.notes,
    )
    try:
        yield indices, batch, encode(batch)
    except BmcliError:
        if not skip:
            raise
        # Encoders stop at the first bad row, so it is found by halving.
        middle = len(indices) // 2
        if middle:
            yield from _encode_or_skip(columns, spec, rows, indices[:middle], skip, encode)
            yield from _encode_or_skip(columns, spec, rows, indices[middle:], skip, encode)


def _choose_batch_size(spec: DataSpec) -> int:
    """Return the number of rows to encode at a time."""
    return max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES // _count_row_bytes(spec)))


def _count_row_bytes(spec: DataSpec) -> int:
    """Count the bytes of an encoded row, at least 1."""
    import numpy as np

    return max(1, sum(int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize for column in spec.inputs))
