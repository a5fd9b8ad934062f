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
from bmcli.commands.evaluate import elsewhere, find_run
from bmcli.data import files
from bmcli.data.columns import missing
from bmcli.data.preparation import encode_rows, serve_rows
from bmcli.data.profiling import discovery
from bmcli.data.sources import Rows, read_rows
from bmcli.errors import BmcliError, Fault, naming
from bmcli.export import artefacts
from bmcli.pictures import SUFFIXES
from bmcli.quoting import quoted
from bmcli.raw_columns import Blobs, Raw, take
from bmcli.recipe.load import load
from bmcli.recipe.schema import Recipe
from bmcli.run_data import data_of
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows.prediction_table import Format, formats, opened, table

if TYPE_CHECKING:
    import numpy as np

    from bmcli.networks.network import Network

STANDARD = Path("-")
FILE = "file"
"""Column of the output that tells each picture of a folder."""

_STANDARD_INPUT = "standard input"
_MOST_ROWS = 8192  # encoded at a time
_MOST_BYTES = 2**26


@dataclass(frozen=True)
class Asked:
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
    format: Format | None
    keep: tuple[str, ...]
    skip_bad_rows: bool


@dataclass(frozen=True)
class Predicted:
    """How a prediction went.

    Args:
        by: What predicted: `run` or `artefact`, and its folder.
        columns: Of the output.
        skipped: Rows that could not be read.
        seconds: Of reading, predicting and writing, without starting TensorFlow.
    """

    by: tuple[str, Path]
    output: Path | None
    columns: tuple[str, ...]
    rows: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            self.by[0]: str(self.by[1]),
            "output": str(self.output),
            "columns": list(self.columns),
            "rows": self.rows,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Oracle:
    """What can be asked for predictions.

    Args:
        by: `run` or `artefact`, and its folder.
        source: How the source of the training rows was read, as a recipe writes it.
        quantiles: Of each target whose quantiles are predicted, which they are.
        started: Gives a function from rows to what is asked, and one from that to predictions by target.
    """

    by: tuple[str, Path]
    source: Mapping[str, Any]
    spec: DataSpec
    quantiles: Mapping[str, Sequence[float]]
    started: Callable[[], tuple[Callable[[Rows], Any], Callable[[Any], dict[str, np.ndarray]]]]


def predict(target: str, asked: Asked, root: Path, cache: Path, trusted: bool = False) -> Predicted:
    """Predicts every row of some data with a run or an artefact, in their order.

    Args:
        target: A run directory, a run's name, a recipe, whose latest run is taken, or the folder of an artefact.
        trusted: Load an artefact that is a program even if this user did not export it.

    Raises:
        BmcliError: The run has no model, the data cannot be read or lacks a column, or the output is there.
        ArtefactRejected: A file of the artefact is not what was written, or it is a program of somebody else.
    """
    chosen = _format(asked)
    is_artefact = artefacts.is_one(Path(target))
    if trusted and not is_artefact:
        raise BmcliError(f"--trust-artefact does nothing here: {target} is no artefact.", suggestion="Leave it out.")
    oracle = of_artefact(Path(target), trusted) if is_artefact else of_run(target, root, cache)
    spec = oracle.spec
    with _found_rows(asked, oracle.source, spec) as rows:
        keep = asked.keep or ((FILE,) if FILE in rows.columns and FILE not in _inputs(spec) else ())
        _check_columns(rows, spec, keep)
        return _predict(oracle, rows, replace(asked, keep=keep), chosen)


def of_run(target: str, root: Path, cache: Path) -> Oracle:
    """A run as what can be asked."""
    run = find_run(target, root)
    recipe = load(str(run.lock), elsewhere([])).recipe
    spec = data_of(run)

    def started() -> tuple[Callable[[Rows], Any], Callable[[Any], dict[str, np.ndarray]]]:
        network = load_network(recipe, spec, run, cache)
        from bmcli.training.predictor import Predictor

        return lambda rows: encode_rows(rows, spec, with_targets=False), Predictor(network)

    return Oracle(
        ("run", run.folder), recipe.data.source.model_dump(exclude_unset=True), spec, recipe.quantiles(), started
    )


def of_artefact(folder: Path, trusted: bool) -> Oracle:
    """An artefact as what can be asked."""
    artefact = artefacts.opened(folder, trusted)

    def started() -> tuple[Callable[[Rows], Any], Callable[[Any], dict[str, np.ndarray]]]:
        return lambda rows: serve_rows(rows, artefact.spec), artefact.start()

    return Oracle(("artefact", folder), artefact.source, artefact.spec, artefact.quantiles, started)


def _format(asked: Asked) -> Format:
    """The format of the output; refuses one that cannot be written there."""
    output = asked.output
    if output is None:
        if asked.format == "parquet":
            raise BmcliError("parquet cannot be written to standard output.", suggestion="Give --output FILE.")
        return asked.format or "csv"
    if output.exists():
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")
    if not output.absolute().parent.is_dir():
        raise BmcliError(f"{output.parent}: no such folder.")
    ending = formats().get(output.suffix.lower())
    if asked.format is None and ending is None:
        known = ", ".join(formats())
        raise BmcliError(f"{output}: its ending tells no format.", suggestion=f"Known: {known}; or give --format.")
    return asked.format or ending or "csv"


@contextlib.contextmanager
def _found_rows(asked: Asked, source: Mapping[str, Any], spec: DataSpec) -> Iterator[Rows]:
    """The rows to predict; those of standard input are kept in a file meanwhile."""
    skip = asked.skip_bad_rows
    if asked.data != STANDARD:
        yield _rows(asked.data.absolute(), source, spec, skip)
        return
    with tempfile.TemporaryDirectory(prefix="bmcli-") as folder:
        file = _from_standard_input(Path(folder))
        rows = _located(lambda: _rows(file, source, spec, skip), file)
        where = lambda row: rows.where(row).replace(str(file), _STANDARD_INPUT)  # noqa: E731
        yield replace(rows, where=where, origin=_STANDARD_INPUT)


def _from_standard_input(folder: Path) -> Path:
    """Standard input as a file, named after what it looks like: JSON lines begin with a brace."""
    stream = sys.stdin.buffer
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    file = folder / ("input.jsonl" if first == b"{" else "input.csv")
    with disk.writing(file), file.open("wb") as kept:
        kept.write(first)
        shutil.copyfileobj(stream, kept, 2**20)
    return file


def _located(read: Any, file: Path) -> Rows:
    """What `read` gives, its faults naming standard input in the place of a file."""
    try:
        rows: Rows = read()
    except BmcliError as error:
        told = (replace(each, message=each.message.replace(str(file), _STANDARD_INPUT)) for each in error.faults)
        raise BmcliError(*told) from None
    return rows


def _rows(data: Path, usual: Mapping[str, Any], spec: DataSpec, skip_broken: bool) -> Rows:
    """All rows of a file or folder, by the usual options of a source where it is of the same format."""
    pictures = _pictures(data)
    if pictures and len(spec.inputs) == 1 and spec.inputs[0].kind == "image":
        return _rows_of_pictures(data, pictures, spec.inputs[0].name)
    found = discovery.find(data)
    source = parts.load("data.sources", found.kind).Options
    if found.kind == usual["kind"] and "path" in source.model_fields:
        options = {**usual, **found.written()}
    else:
        options = found.written()
    try:
        return read_rows(source.model_validate(options), skip_broken)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None  # not the recipe's file


def _pictures(data: Path) -> list[Path]:
    """A picture, or those anywhere in a folder, by name."""
    if os.path.isfile(data):  # unlike pathlib's, false where this user must not know
        return [data] if data.suffix.lower() in SUFFIXES else []
    if not os.path.isdir(data):
        return []
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES and os.path.isfile(path))


def _rows_of_pictures(data: Path, pictures: Sequence[Path], name: str) -> Rows:
    import numpy as np
    import pyarrow as pa

    folder = data if data.is_dir() else data.parent
    names = pa.chunked_array([pa.array([str(path.relative_to(folder)) for path in pictures], pa.string())])
    return Rows(
        columns={FILE: names, name: Blobs(np.arange(len(pictures)), lambda row: pictures[row].read_bytes())},
        split=None,
        where=lambda row: files.shown(pictures[row]),
        origin=files.shown(data),
    )


def _inputs(spec: DataSpec) -> tuple[str, ...]:
    return tuple(column.name for column in spec.inputs)


def _check_columns(rows: Rows, spec: DataSpec, keep: Sequence[str]) -> None:
    """Refuses data that lacks a column, before TensorFlow is started."""
    faults = [missing(name, "", rows) for name in dict.fromkeys((*_inputs(spec), *keep)) if name not in rows.columns]
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
    placement = training.placed(recipe, cache)
    # Training rows decide weights of losses alone, which are not computed here.
    targets = {column.name: np.zeros((1, *column.shape), column.dtype) for column in spec.targets}
    return training.trained(recipe, spec, targets, run.kept_model(), placement)


def _predict(oracle: Oracle, rows: Rows, asked: Asked, chosen: Format) -> Predicted:
    read, say = oracle.started()
    start = time.perf_counter()
    written, columns, total = 0, (), 0
    with opened(asked.output, chosen, len(rows)) as write:
        for kept, some in _batches(rows, oracle.spec, asked.keep, asked.skip_bad_rows, read):
            made = table(kept, say(some), oracle.spec.targets, oracle.quantiles)
            write(made)
            written, columns = written + len(made), tuple(made.column_names)
        total = len(rows) + rows.broken
        if not written:
            message = "no row could be read." if total else "there are no rows to predict."
            raise BmcliError(f"{rows.origin}: {message}")
    return Predicted(oracle.by, asked.output, columns, written, total - written, time.perf_counter() - start)


def _batches(
    rows: Rows, spec: DataSpec, keep: Sequence[str], skip: bool, read: Callable[[Rows], Any]
) -> Iterator[tuple[Mapping[str, Raw], Any]]:
    """Kept columns and rows that are read, as many at a time as fit into little memory."""
    import numpy as np

    with naming(rows.origin):
        columns = {name: rows.columns[name] for name in dict.fromkeys((*_inputs(spec), *keep))}
    size = _batch_size(spec)
    for start in range(0, len(rows), size):
        every = np.arange(start, min(start + size, len(rows)))
        for indices, some in _read(columns, spec, rows, every, skip, read):
            yield {name: take(columns[name], indices) for name in keep}, some


def _read(
    columns: Mapping[str, Raw],
    spec: DataSpec,
    rows: Rows,
    indices: np.ndarray,
    skip: bool,
    read: Callable[[Rows], Any],
) -> Iterator[tuple[np.ndarray, Any]]:
    """Some rows that are read; where one cannot be and may be skipped, those before and after it."""
    some = Rows(
        {name: take(columns[name], indices) for name in _inputs(spec)},
        None,
        where=lambda row: rows.where(int(indices[row])),
        origin=rows.origin,
    )
    try:
        yield indices, read(some)
    except BmcliError:
        if not skip:
            raise
        middle = len(indices) // 2
        if middle:
            yield from _read(columns, spec, rows, indices[:middle], skip, read)
            yield from _read(columns, spec, rows, indices[middle:], skip, read)


def _batch_size(spec: DataSpec) -> int:
    """Rows that are encoded at a time."""
    import numpy as np

    row_bytes = sum(int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize for column in spec.inputs)
    return max(1, min(_MOST_ROWS, _MOST_BYTES // max(1, row_bytes)))
