"""`bmcli predict`: what a run says of new rows, as a table."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import parts, training
from bmcli.cells import Blobs, Raw, take
from bmcli.commands.evaluate import elsewhere, find_run
from bmcli.commands.outputs import Format, formats, opened, table
from bmcli.data import discovery, files
from bmcli.data.columns import missing
from bmcli.data.preparation import encode_rows
from bmcli.data.sources import Rows, read_rows
from bmcli.errors import BmcliError, Fault
from bmcli.pictures import SUFFIXES
from bmcli.recipe.load import load
from bmcli.recipe.schema import Recipe
from bmcli.runs import Run
from bmcli.specs import DataSpec, Split
from bmcli.training.session import data_of

if TYPE_CHECKING:
    import numpy as np

    from bmcli.training.network import Network

STANDARD = Path("-")
FILE = "file"
"""Column of the output that tells each picture of a folder."""

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
        columns: Of the output.
        skipped: Rows that could not be read.
        seconds: Of reading, predicting and writing, without starting TensorFlow.
    """

    run: Run
    output: Path | None
    columns: tuple[str, ...]
    rows: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run.folder),
            "output": str(self.output),
            "columns": list(self.columns),
            "rows": self.rows,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


def predict(target: str, asked: Asked, root: Path, cache: Path) -> Predicted:
    """Predicts every row of some data with a run, in their order.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.

    Raises:
        BmcliError: The run has no model, the data cannot be read or lacks a column, or the output is there.
    """
    chosen = _format(asked)
    run = find_run(target, root)
    loaded = load(str(run.lock), elsewhere([]))
    spec = data_of(run)
    with _found_rows(asked, loaded.recipe, spec) as rows:
        keep = asked.keep or ((FILE,) if FILE in rows.columns and FILE not in _inputs(spec) else ())
        _check_columns(rows, spec, keep, asked.data)
        network = _network(loaded.recipe, spec, run, cache)
        return _predict(network, loaded.recipe, spec, rows, replace(asked, keep=keep), chosen, run)


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
def _found_rows(asked: Asked, recipe: Recipe, spec: DataSpec) -> Iterator[Rows]:
    """The rows to predict; those of standard input are kept in a file meanwhile."""
    skip = asked.skip_bad_rows
    if asked.data != STANDARD:
        yield _rows(asked.data.absolute(), recipe, spec, skip)
        return
    with tempfile.TemporaryDirectory(prefix="bmcli-") as folder:
        file = _from_standard_input(Path(folder))
        rows = _located(lambda: _rows(file, recipe, spec, skip), file)
        yield replace(rows, where=lambda row: rows.where(row).replace(str(file), "standard input"))


def _from_standard_input(folder: Path) -> Path:
    """Standard input as a file, named after what it looks like: JSON lines begin with a brace."""
    stream = sys.stdin.buffer
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    file = folder / ("input.jsonl" if first == b"{" else "input.csv")
    with file.open("wb") as kept:
        kept.write(first)
        shutil.copyfileobj(stream, kept, 2**20)
    return file


def _located(read: Any, file: Path) -> Rows:
    """What `read` gives, its faults naming standard input in the place of a file."""
    try:
        rows: Rows = read()
    except BmcliError as error:
        told = (replace(each, message=each.message.replace(str(file), "standard input")) for each in error.faults)
        raise BmcliError(*told) from None
    return rows


def _rows(data: Path, recipe: Recipe, spec: DataSpec, skip_broken: bool) -> Rows:
    """All rows of a file or folder, by the options of the recipe's source where it is of the same format."""
    pictures = _pictures(data)
    if pictures and len(spec.inputs) == 1 and spec.inputs[0].kind == "image":
        return _rows_of_pictures(data, pictures, spec.inputs[0].name)
    found = discovery.find(data)
    source = parts.load("data.sources", found.kind).Options
    if found.kind == recipe.data.source.kind and "path" in type(recipe.data.source).model_fields:
        options = recipe.data.source.model_dump(exclude_unset=True) | found.written()
    else:
        options = found.written()
    try:
        return read_rows(source.model_validate(options), skip_broken)
    except BmcliError as error:
        raise BmcliError(*(replace(fault, path="") for fault in error.faults)) from None  # not the recipe's file


def _pictures(data: Path) -> list[Path]:
    """A picture, or those anywhere in a folder, by name."""
    if data.is_file():
        return [data] if data.suffix.lower() in SUFFIXES else []
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _rows_of_pictures(data: Path, pictures: Sequence[Path], name: str) -> Rows:
    import numpy as np
    import pyarrow as pa

    folder = data if data.is_dir() else data.parent
    names = pa.chunked_array([pa.array([str(path.relative_to(folder)) for path in pictures], pa.string())])
    return Rows(
        columns={FILE: names, name: Blobs(np.arange(len(pictures)), lambda row: pictures[row].read_bytes())},
        split=None,
        where=lambda row: files.shown(pictures[row]),
    )


def _inputs(spec: DataSpec) -> tuple[str, ...]:
    return tuple(column.name for column in spec.inputs)


def _check_columns(rows: Rows, spec: DataSpec, keep: Sequence[str], data: Path) -> None:
    """Refuses data that lacks a column, before TensorFlow is started."""
    shown = "standard input" if data == STANDARD else files.shown(data.absolute())
    faults = [
        missing(name, "", rows, shown) for name in dict.fromkeys((*_inputs(spec), *keep)) if name not in rows.columns
    ]
    faults += [
        Fault(f"the predictions are a column '{name}', which --keep would write again.", suggestion="Rename it.")
        for name in keep
        if name in {column.name for column in spec.targets}
    ]
    if faults:
        raise BmcliError(*faults)


def _network(recipe: Recipe, spec: DataSpec, run: Run, cache: Path) -> Network:
    """The run's network with its selected weights, on one device."""
    import numpy as np

    recipe = recipe.on_one_device()
    placement = training.placed(recipe, cache)
    # Training rows decide weights of losses alone, which are not computed here.
    targets = {column.name: np.zeros((1, *column.shape), column.dtype) for column in spec.targets}
    return training.trained(recipe, spec, targets, run.model, placement)


def _predict(
    network: Network, recipe: Recipe, spec: DataSpec, rows: Rows, asked: Asked, chosen: Format, run: Run
) -> Predicted:
    from bmcli.training.predict import Predictor

    start = time.perf_counter()
    predictor, quantiles = Predictor(network), recipe.quantiles()
    written, columns, total = 0, (), 0
    with opened(asked.output, chosen) as write:
        for kept, encoded in _batches(rows, spec, asked.keep, asked.skip_bad_rows):
            made = table(kept, predictor(encoded), spec.targets, quantiles)
            write(made)
            written, columns = written + len(made), tuple(made.column_names)
        total = len(rows) + rows.broken
        if not written:
            raise BmcliError("no row could be read." if total else "there are no rows to predict.")
    return Predicted(run, asked.output, columns, written, total - written, time.perf_counter() - start)


def _batches(rows: Rows, spec: DataSpec, keep: Sequence[str], skip: bool) -> Iterator[tuple[Mapping[str, Raw], Split]]:
    """Kept columns and encoded rows, as many at a time as fit into little memory."""
    import numpy as np

    columns = {name: rows.columns[name] for name in dict.fromkeys((*_inputs(spec), *keep))}
    size = _batch_size(spec)
    for start in range(0, len(rows), size):
        for indices, encoded in _encoded(columns, spec, rows, np.arange(start, min(start + size, len(rows))), skip):
            yield {name: take(columns[name], indices) for name in keep}, encoded


def _encoded(
    columns: Mapping[str, Raw], spec: DataSpec, rows: Rows, indices: np.ndarray, skip: bool
) -> Iterator[tuple[np.ndarray, Split]]:
    """Some rows encoded; where one cannot be and may be skipped, those before and after it."""
    some = Rows(
        {name: take(columns[name], indices) for name in _inputs(spec)}, None, lambda row: rows.where(int(indices[row]))
    )
    try:
        yield indices, encode_rows(some, spec, with_targets=False)
    except BmcliError:
        if not skip:
            raise
        middle = len(indices) // 2
        if middle:
            yield from _encoded(columns, spec, rows, indices[:middle], skip)
            yield from _encoded(columns, spec, rows, indices[middle:], skip)


def _batch_size(spec: DataSpec) -> int:
    """Rows that are encoded at a time."""
    import numpy as np

    row_bytes = sum(int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize for column in spec.inputs)
    return max(1, min(_MOST_ROWS, _MOST_BYTES // max(1, row_bytes)))
