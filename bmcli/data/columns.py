"""Which columns are inputs, targets, split names and weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from bmcli import dates, parts
from bmcli.data.sources import SourceRows
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import quoted
from bmcli.raw_columns import (
    RawColumn,
    RowFault,
    compute_numeric_share,
    format_cell,
    is_file_column,
    is_numeric,
    is_text_column,
    to_booleans,
    to_numbers,
    to_texts,
)
from bmcli.recipe.data import CrossOptions, DataOptions, SampleOptions, find_cross_problem, get_target_columns
from bmcli.recipe.fields import Kind, PartField
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_Result = TypeVar("_Result")
_SAMPLE = 2000  # cells whose words are counted
_MANY = 50  # different cells, from which on a column may be prose, or tell rows apart
_FEW_REPEATS = 1.05
_NUMBERS = 0.95  # of the cells, from which on others among them are mistakes
_WORDS_OF_NAMES, _WORDS_OF_SENTENCES = 1.5, 5.0  # mean words of a cell


def check_names(rows: SourceRows, options: DataOptions, targets: Mapping[str, Kind]) -> None:
    """Raises one BmcliError with every column that the recipe names and the source lacks."""
    named = {f"data.inputs.{name}": name for name in options.inputs or ()}
    for target, kind in targets.items():
        read = get_target_columns(target, kind)
        places = [f"data.targets.{target}.columns.{position}" for position in range(len(read))]
        named |= dict(zip(places, read, strict=True)) if len(read) > 1 else {f"data.targets.{target}": target}
    named |= {f"data.drop.{position}": name for position, name in enumerate(options.drop)}
    if options.weight is not None:
        named["data.weight"] = options.weight
    for way in ("column", "group", "time"):
        if (column := getattr(options.split, way)) is not None:
            named[f"data.split.{way}"] = column
    if isinstance(options.split.hash, tuple):
        named |= {f"data.split.hash.{position}": name for position, name in enumerate(options.split.hash)}
    if options.split.stratify not in ("auto", "none"):
        named["data.split.stratify"] = options.split.stratify
    if isinstance(options.sample, SampleOptions) and options.sample.balance is not None:
        named["data.sample.balance"] = options.sample.balance
    faults = [missing_column_fault(name, path, rows) for path, name in named.items() if name not in rows.columns]
    faults += [
        Fault(f"target {quoted(target)} is read from other columns, but the data has a column {quoted(target)}, too.",
              path=f"data.targets.{target}", suggestion="Give the target a name that no column has.")
        for target, kind in targets.items()
        if target in rows.columns and get_target_columns(target, kind) != (target,)
    ]  # fmt: skip
    if faults:
        raise BmcliError(*faults)


def join_columns(columns: Mapping[str, RawColumn], names: Sequence[str]) -> RawColumn:
    """The cells of a column, or those of several columns of single values as records with a field for each.

    Raises:
        BmcliError: One of several columns holds arrays or encoded files.
    """
    import pyarrow as pa

    if len(names) == 1:
        return columns[names[0]]
    fields = {name: columns[name] for name in names}
    for name, column in fields.items():
        if is_file_column(column) or getattr(column, "ndim", 1) != 1:
            received = "encoded files" if is_file_column(column) else f"arrays of shape {tuple(column.shape[1:])}"
            raise BmcliError(
                f"column {quoted(name)}: expected one value a row, received {received}.", path="data.targets"
            )
    return pa.table(fields).to_struct_array()


def missing_column_fault(name: str, path: str, rows: SourceRows) -> Fault:
    """The fault of a column that is not there."""
    hint = parts.did_you_mean(name, rows.columns)
    return Fault(f"no column {quoted(name)}.", path=path, suggestion=hint).of(rows.origin)


def read_column(rows: SourceRows, name: str, reader: Callable[[RawColumn], _Result]) -> _Result:
    """What `reader` makes of a column.

    Raises:
        BmcliError: A cell cannot be read; with its place.
    """
    try:
        return reader(rows.columns[name])
    except RowFault as fault:
        raise BmcliError(locate_fault(fault, name, rows)) from None


def locate_fault(fault: RowFault, name: str, rows: SourceRows) -> Fault:
    """The fault of a cell with its place and column, as a user is shown it."""
    place = rows.where(fault.row)
    return Fault(f"{place}  column {quoted(name)}: {fault.message}", suggestion=fault.suggestion, file=place)


def resolve_inputs(
    training: Mapping[str, RawColumn], options: DataOptions, targets: Mapping[str, Kind]
) -> Mapping[str, Kind]:
    """The recipe's inputs, or every column that serves nothing else, as what it looks like.

    Args:
        training: The training rows of all columns: others must not decide what the columns are.
    """
    if options.inputs is not None:
        return options.inputs
    split = options.split
    taken = {*options.drop, options.weight, split.column, split.group, split.time}
    taken |= {column for name, kind in targets.items() for column in get_target_columns(name, kind)}
    part = PartField("inputs")
    found = {name: part.check(_require_kind(name, training[name])) for name in training if name not in taken}
    if not found:
        raise BmcliError("no column is left to be an input.", path="data.source")
    return found


def build_crosses(options: DataOptions, inputs: Mapping[str, Kind], fitted: Mapping[str, Column]) -> tuple[Column, ...]:
    """Combinations of inputs, as columns that the network makes itself.

    Raises:
        BmcliError: An input cannot be crossed.
    """
    problem = find_cross_problem(options.crosses, inputs)
    if problem is not None:
        path = ".".join(str(key) for key in ("data", "crosses", *problem[0]))
        raise BmcliError(problem[1], path=path, suggestion=problem[2])
    return tuple(_build_cross(position, cross, fitted) for position, cross in enumerate(options.crosses))


def _build_cross(position: int, cross: CrossOptions, fitted: Mapping[str, Column]) -> Column:
    for name in cross.columns:
        if math.prod(fitted[name].shape) > 1 + bool(fitted[name].state.get("flag")):
            raise BmcliError(f"{quoted(name)} holds several values a row.", path=f"data.crosses.{position}.columns")
    state = {
        "columns": list(cross.columns),
        "kinds": [fitted[name].kind for name in cross.columns],
        "sizes": [_count_positions(fitted[name]) for name in cross.columns],
        "buckets": cross.buckets,
        "dimension": cross.dimension,
    }
    return Column(cross.name, "cross", (), "int32", state=state)


def _count_positions(column: Column) -> int:
    """Different positions of an encoded input, those of missing and unknown cells included."""
    if column.kind == "boolean":
        return 3
    if column.kind == "number":
        return 1 + len(column.state["edges"][0])
    return column.state.get("buckets", len(column.classes)) + 2


def read_weights(column: RawColumn) -> np.ndarray:
    """How much each row counts: the numbers as they are, float32 `(rows,)`.

    Raises:
        RowFault: A cell is missing, no number, infinite or below 0, or a row holds several.
    """
    import numpy as np

    values = to_numbers(column)
    if values.size != len(values):
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    values = values.reshape(-1)
    wrong = ~(values >= 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        received = "nothing" if np.isnan(values[row]) else f"{values[row]:g}"
        message = f"expected a number of at least 0, received {received}."
        raise RowFault(row, message, "Write 0 for a row that should not count.")
    large = values > np.finfo("float32").max
    if large.any():
        row = int(np.argmax(large))
        raise RowFault(row, f"{values[row]:g} is too large for a weight.")
    return values.astype("float32")


def guess_kind(column: RawColumn) -> str:
    """The kind of input that a column looks like."""
    if is_file_column(column):
        return "image"
    if is_text_column(column):
        return _guess_text_kind(column)
    if column.dtype.name == "bool" and column.ndim <= 2:
        return "boolean"
    byte_picture = column.dtype.name == "uint8" and column.ndim in (3, 4)
    with_channels = column.ndim == 4 and column.shape[-1] in (1, 3)
    return "image" if byte_picture or with_channels else "number"


def is_identifier(column: RawColumn) -> bool:
    """Whether a column of text has another single word in nearly every row, as names and identifiers are."""
    told = _drop_missing(column)
    count = _count_distinct(told)
    return count >= _MANY and len(told) < count * _FEW_REPEATS and _compute_mean_words(told) < _WORDS_OF_NAMES


def _require_kind(name: str, column: RawColumn) -> str:
    """What a column looks like.

    Raises:
        BmcliError: It looks like nothing that can be learned from.
    """
    kind = guess_kind(column)
    if kind == "category" and is_identifier(column):
        raise BmcliError(
            f"column {quoted(name)}: nearly every training row has a value of its own, as "
            f"{format_cell(column, 0)}, so nothing can "
            "be learned from which one it is.",
            path="data.source",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`. Or say in data.inputs what it is, as "
            f"`{write_scalar(name)}: {{kind: text, tokens: characters}}`.",
        )
    return kind


def _guess_text_kind(column: RawColumn) -> str:
    if is_numeric(column):
        return "number"
    told = _drop_missing(column)
    if _is_boolean(told):
        return "boolean"
    if dates.find_matching_formats(told) or dates.has_mixed_formats(told):
        return "date"
    if _is_mostly_numeric(told):
        return "number"
    return "text" if _is_prose(told) else "category"


def _drop_missing(column: RawColumn) -> pa.ChunkedArray:
    """The cells that are not missing."""
    import pyarrow.compute as pc

    return pc.drop_null(to_texts(column))


def _is_boolean(cells: pa.ChunkedArray) -> bool:
    """Whether there are two words, one for yes and one for no: of three some would fall together."""
    import pyarrow.compute as pc

    some = pc.unique(cells.slice(0, _SAMPLE))
    if len(some) > 8 or _count_distinct(pc.utf8_lower(pc.ascii_trim_whitespace(cells))) != 2:
        return False
    values, _ = to_booleans(pc.unique(cells))
    return sorted(set(values.tolist())) == [0.0, 1.0]


def _is_mostly_numeric(cells: pa.ChunkedArray) -> bool:
    """Whether many different cells are numbers, but for a few: these are then faults, rather than categories."""
    some = cells.slice(0, _SAMPLE)
    return compute_numeric_share(some) >= _NUMBERS and _count_distinct(some) >= _MANY


def _is_prose(cells: pa.ChunkedArray) -> bool:
    """Whether cells are sentences or phrases, most of which are different, rather than names of categories."""
    count, words = _count_distinct(cells), _compute_mean_words(cells)
    mostly_different = len(cells) < 2 * count
    return count >= _MANY and (words >= _WORDS_OF_SENTENCES or (words >= _WORDS_OF_NAMES and mostly_different))


def _count_distinct(cells: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    return int(pc.count_distinct(cells).as_py())


def _compute_mean_words(cells: pa.ChunkedArray) -> float:
    """Mean words of the first cells."""
    import pyarrow.compute as pc

    return float(pc.mean(pc.list_value_length(pc.utf8_split_whitespace(cells.slice(0, _SAMPLE)))).as_py() or 0)
