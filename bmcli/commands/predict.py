"""`bmcli predict`: what a run says of new rows, as a table."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import disk, parts, training
from bmcli.commands.evaluate import add_device_defaults, find_run
from bmcli.data import files
from bmcli.data.columns import missing_column_fault
from bmcli.data.preparation import encode_rows, to_serving_arrays
from bmcli.data.profiling import discovery
from bmcli.data.sources import SourceRows, read_rows
from bmcli.errors import BmcliError, Fault, naming
from bmcli.export import artefacts
from bmcli.pictures import IMAGE_SUFFIXES
from bmcli.quoting import quoted
from bmcli.raw_columns import FileColumn, RawColumn, take_rows
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows.prediction_table import TableFormat, list_formats, make_table, open_writer

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

STANDARD_INPUT = Path("-")
FILE_COLUMN = "file"
"""Column of the output that tells each picture of a folder."""

_STANDARD_INPUT = "standard input"
_MAX_BATCH_ROWS = 8192  # encoded at a time
_MAX_BATCH_BYTES = 2**26


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict, and how to write it.

    Args:
        data: A table, an archive, a folder of pictures, a picture, or `-` for standard input.
        output: A file that is not there yet; None for standard output.
        format: Of the output; None to follow from its name.
        keep: Columns of the data to pass on, in this order.
        skip_bad_rows: Leave out rows that cannot be read, and count them; otherwise they are a fault.
    """

    data: Path
    output: Path | None
    format: TableFormat | None
    keep: tuple[str, ...]
    skip_bad_rows: bool


@dataclass(frozen=True)
class PredictionResult:
    """How a prediction went.

    Args:
        origin: What predicted: `run` or `artefact`, and its folder.
        columns: Of the output.
        skipped: Rows that could not be read.
        seconds: Of reading, predicting and writing, without starting TensorFlow.
    """

    origin: tuple[str, Path]
    output: Path | None
    columns: tuple[str, ...]
    rows: int
    skipped: int
    seconds: float


@dataclass(frozen=True)
class RowPredictor:
    """What can be asked for predictions.

    Args:
        origin: `run` or `artefact`, and its folder.
        source: How the source of the training rows was read, as a recipe writes it.
        quantiles: Of each target whose quantiles are predicted, which they are.
        load: Gives a function from rows to what is asked, and one from that to predictions by target.
    """

    origin: tuple[str, Path]
    source: Mapping[str, Any]
    spec: DataSpec
    quantiles: Mapping[str, Sequence[float]]
    load: Callable[[], tuple[Callable[[SourceRows], Any], Callable[[Any], dict[str, np.ndarray]]]]


def predict(
    target: str, request: PredictionRequest, root: Path, cache: Path, trust_artefact: bool = False
) -> PredictionResult:
    """Predicts every row of some data with a run or an artefact, in their order.

    Args:
        target: A run directory, a run's name, a recipe, whose latest run is taken, or the folder of an artefact.
        trust_artefact: Load an artefact that is a program even if this user did not export it.

    Raises:
        BmcliError: The run has no model, the data cannot be read or lacks a column, or the output is there.
        ArtefactRejected: A file of the artefact is not what was written, or it is a program of somebody else.
    """
    chosen = _choose_format(request)
    is_artefact = artefacts.is_artefact(Path(target))
    if trust_artefact and not is_artefact:
        raise BmcliError(f"--trust-artefact does nothing here: {target} is no artefact.", suggestion="Leave it out.")
    oracle = (
        make_artefact_predictor(Path(target), trust_artefact)
        if is_artefact
        else make_run_predictor(target, root, cache)
    )
    spec = oracle.spec
    with _open_rows(request, oracle.source, spec) as rows:
        keep = request.keep or (
            (FILE_COLUMN,) if FILE_COLUMN in rows.columns and FILE_COLUMN not in _list_inputs(spec) else ()
        )
        _check_columns(rows, spec, keep)
        return _write_predictions(oracle, rows, replace(request, keep=keep), chosen)


def make_run_predictor(target: str, root: Path, cache: Path) -> RowPredictor:
    """A run as what can be asked."""
    run = find_run(target, root)
    recipe = load_recipe(str(run.lock), add_device_defaults([])).recipe
    spec = read_data_spec(run)

    def started() -> tuple[Callable[[SourceRows], Any], Callable[[Any], dict[str, np.ndarray]]]:
        network = load_network(recipe, spec, run, cache)
        from bmcli.training.predictor import Predictor

        return lambda rows: encode_rows(rows, spec, with_targets=False), Predictor(network)

    return RowPredictor(
        ("run", run.folder), recipe.data.source.model_dump(exclude_unset=True), spec, recipe.quantiles(), started
    )


def make_artefact_predictor(folder: Path, trust_artefact: bool) -> RowPredictor:
    """An artefact as what can be asked."""
    artefact = artefacts.open_artefact(folder, trust_artefact)

    def started() -> tuple[Callable[[SourceRows], Any], Callable[[Any], dict[str, np.ndarray]]]:
        return lambda rows: to_serving_arrays(rows, artefact.spec), artefact.start()

    return RowPredictor(("artefact", folder), artefact.source, artefact.spec, artefact.quantiles, started)


def _choose_format(request: PredictionRequest) -> TableFormat:
    """The format of the output; refuses one that cannot be written there."""
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
        raise BmcliError(f"{output}: its ending tells no format.", suggestion=f"Known: {known}; or give --format.")
    return request.format or ending or "csv"


@contextlib.contextmanager
def _open_rows(request: PredictionRequest, source: Mapping[str, Any], spec: DataSpec) -> Iterator[SourceRows]:
    """The rows to predict; those of standard input are kept in a file meanwhile."""
    skip = request.skip_bad_rows
    if request.data != STANDARD_INPUT:
        yield _read_rows(request.data.absolute(), source, spec, skip)
        return
    with tempfile.TemporaryDirectory(prefix="bmcli-") as folder:
        file = _save_standard_input(Path(folder))
        rows = _read_standard_input(lambda: _read_rows(file, source, spec, skip), file)
        where = lambda row: rows.where(row).replace(str(file), _STANDARD_INPUT)  # noqa: E731
        yield replace(rows, where=where, origin=_STANDARD_INPUT)


def _save_standard_input(folder: Path) -> Path:
    """Standard input as a file, named after what it looks like: JSON lines begin with a brace."""
    stream = sys.stdin.buffer
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    file = folder / ("input.jsonl" if first == b"{" else "input.csv")
    with disk.convert_write_errors(file), file.open("wb") as kept:
        kept.write(first)
        shutil.copyfileobj(stream, kept, 2**20)
    return file


def _read_standard_input(read: Any, file: Path) -> SourceRows:
    """What `read` gives, its faults naming standard input in the place of a file."""
    try:
        rows: SourceRows = read()
    except BmcliError as error:
        told = (replace(each, message=each.message.replace(str(file), _STANDARD_INPUT)) for each in error.faults)
        raise BmcliError(*told) from None
    return rows


def _read_rows(data: Path, default_options: Mapping[str, Any], spec: DataSpec, skip_broken: bool) -> SourceRows:
    """All rows of a file or folder, by the usual options of a source where it is of the same format."""
    pictures = _list_pictures(data)
    if pictures and len(spec.inputs) == 1 and spec.inputs[0].kind == "image":
        return _make_picture_rows(data, pictures, spec.inputs[0].name)
    found = discovery.detect_source(data)
    source = parts.load("data.sources", found.kind).Options
    if found.kind == default_options["kind"] and "path" in source.model_fields:
        options = {**default_options, **found.to_options()}
    else:
        options = found.to_options()
    try:
        return read_rows(source.model_validate(options), skip_broken)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None  # not the recipe's file


def _list_pictures(data: Path) -> list[Path]:
    """A picture, or those anywhere in a folder, by name."""
    if os.path.isfile(data):  # unlike pathlib's, false where this user must not know
        return [data] if data.suffix.lower() in IMAGE_SUFFIXES else []
    if not os.path.isdir(data):
        return []
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path))


def _make_picture_rows(data: Path, pictures: Sequence[Path], name: str) -> SourceRows:
    import numpy as np
    import pyarrow as pa

    folder = data if data.is_dir() else data.parent
    names = pa.chunked_array([pa.array([str(path.relative_to(folder)) for path in pictures], pa.string())])
    return SourceRows(
        columns={
            FILE_COLUMN: names,
            name: FileColumn(np.arange(len(pictures)), lambda row: pictures[row].read_bytes()),
        },
        split=None,
        where=lambda row: files.format_path(pictures[row]),
        origin=files.format_path(data),
    )


def _list_inputs(spec: DataSpec) -> tuple[str, ...]:
    return tuple(column.name for column in spec.inputs)


def _check_columns(rows: SourceRows, spec: DataSpec, keep: Sequence[str]) -> None:
    """Refuses data that lacks a column, before TensorFlow is started."""
    faults = [
        missing_column_fault(name, "", rows)
        for name in dict.fromkeys((*_list_inputs(spec), *keep))
        if name not in rows.columns
    ]
    faults += [
        Fault(f"the predictions are a column {quoted(name)}, which --keep would write again.", suggestion="Rename it.")
        for name in keep
        if name in {column.name for column in spec.targets}
    ]
    if faults:
        raise BmcliError(*faults)


def load_network(recipe: Recipe, spec: DataSpec, run: Run, cache: Path) -> Network:
    """The run's network with its selected weights, on one device."""
    import numpy as np

    recipe = recipe.on_one_device()
    placement = training.place_on_devices(recipe, cache)
    # Training rows decide weights of losses alone, which are not computed here.
    targets = {column.name: np.zeros((1, *column.shape), column.dtype) for column in spec.targets}
    return training.load_trained_network(recipe, spec, targets, run.kept_model(), placement)


def _write_predictions(
    predictor: RowPredictor, rows: SourceRows, request: PredictionRequest, table_format: TableFormat
) -> PredictionResult:
    read, say = predictor.load()
    start = time.perf_counter()
    written, columns, total = 0, (), 0
    with open_writer(request.output, table_format, len(rows)) as write:
        for kept, some in _encode_batches(rows, predictor.spec, request.keep, request.skip_bad_rows, read):
            made = make_table(kept, say(some), predictor.spec.targets, predictor.quantiles)
            write(made)
            written, columns = written + len(made), tuple(made.column_names)
        total = len(rows) + rows.broken
        if not written:
            message = "no row could be read." if total else "there are no rows to predict."
            raise BmcliError(f"{rows.origin}: {message}")
    return PredictionResult(
        predictor.origin, request.output, columns, written, total - written, time.perf_counter() - start
    )


def _encode_batches(
    rows: SourceRows, spec: DataSpec, keep: Sequence[str], skip: bool, encode: Callable[[SourceRows], Any]
) -> Iterator[tuple[Mapping[str, RawColumn], Any]]:
    """Kept columns and rows that are read, as many at a time as fit into little memory."""
    import numpy as np

    with naming(rows.origin):
        columns = {name: rows.columns[name] for name in dict.fromkeys((*_list_inputs(spec), *keep))}
    size = _choose_batch_size(spec)
    for start in range(0, len(rows), size):
        every = np.arange(start, min(start + size, len(rows)))
        for indices, some in _encode_or_skip(columns, spec, rows, every, skip, encode):
            yield {name: take_rows(columns[name], indices) for name in keep}, some


def _encode_or_skip(
    columns: Mapping[str, RawColumn],
    spec: DataSpec,
    rows: SourceRows,
    indices: np.ndarray,
    skip: bool,
    encode: Callable[[SourceRows], Any],
) -> Iterator[tuple[np.ndarray, Any]]:
    """Some rows that are read; where one cannot be and may be skipped, those before and after it."""
    some = SourceRows(
        {name: take_rows(columns[name], indices) for name in _list_inputs(spec)},
        None,
        where=lambda row: rows.where(int(indices[row])),
        origin=rows.origin,
    )
    try:
        yield indices, encode(some)
    except BmcliError:
        if not skip:
            raise
        middle = len(indices) // 2
        if middle:
            yield from _encode_or_skip(columns, spec, rows, indices[:middle], skip, encode)
            yield from _encode_or_skip(columns, spec, rows, indices[middle:], skip, encode)


def _choose_batch_size(spec: DataSpec) -> int:
    """Rows that are encoded at a time."""
    import numpy as np

    row_bytes = sum(int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize for column in spec.inputs)
    return max(1, min(_MAX_BATCH_ROWS, _MAX_BATCH_BYTES // max(1, row_bytes)))
