"""Roles and kinds of columns: inputs, crosses, weights, and the kind that a column looks like."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from bmcli import inputs as input_kinds
from bmcli import parts
from bmcli.data.sources import SourceRows
from bmcli.dates import DATE_LIKE
from bmcli.errors import BmcliError, Fault
from bmcli.inputs import Guess
from bmcli.number_texts import write_number
from bmcli.quoting import listed, quoted
from bmcli.raw_columns import (
    UNNAMED,
    ColumnCells,
    RawColumn,
    RowFault,
    UnreadableColumn,
    format_cell,
    is_file_column,
    to_numbers,
)
from bmcli.recipe.data import (
    CrossOptions,
    DataOptions,
    SampleOptions,
    find_cross_problem,
)
from bmcli.recipe.fields import PartField
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import write_scalar
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

ROW_LABELS = "it has no name in the header and labels the rows, as the index of pandas and the row names of R do"
_Result = TypeVar("_Result")
MANY_DISTINCT = 50
"""Number of distinct cells from which on a column may be an identifier."""
_MAX_ROWS_PER_IDENTIFIER = 1.05
_MAX_WORDS_OF_IDENTIFIERS = 1.5  # mean number of words of a cell


def check_names(rows: SourceRows, options: DataOptions, targets: Mapping[str, TargetOptions]) -> None:
    """Raise one BmcliError with every column that the recipe names and the source lacks."""
    inputs = options.inputs or {}
    named = {f"data.inputs.{name}": name for name, kind in inputs.items() if not kind.reads}
    derived = {name: kind for name, kind in inputs.items() if kind.reads}
    for target, kind in targets.items():
        sources = kind.list_columns(target)
        places = [f"data.targets.{target}.columns.{position}" for position in range(len(sources))]
        named |= dict(zip(places, sources, strict=True)) if len(sources) > 1 else {f"data.targets.{target}": target}
        named |= {} if kind.words_of is None else {f"data.targets.{target}.input": kind.words_of}
    named |= {f"data.drop.{position}": name for position, name in enumerate(options.drop)}
    if options.weight is not None:
        named["data.weight"] = options.weight
    for key in ("column", "group", "time"):
        if (column := getattr(options.split, key)) is not None:
            named[f"data.split.{key}"] = column
    if isinstance(options.split.hash, tuple):
        named |= {f"data.split.hash.{position}": name for position, name in enumerate(options.split.hash)}
    if options.split.stratify not in ("auto", "none"):
        named["data.split.stratify"] = options.split.stratify
    if isinstance(options.sample, SampleOptions) and options.sample.balance is not None:
        named["data.sample.balance"] = options.sample.balance
    faults = [missing_column_fault(name, path, rows) for path, name in named.items() if name not in rows.columns]
    faults += [
        Fault(f"target {quoted(target)} has `columns`, but the data also has a column {quoted(target)}.",
              path=f"data.targets.{target}", suggestion="Give the target a name that no column has.")
        for target, kind in targets.items()
        if target in rows.columns and kind.list_columns(target) != (target,)
    ]  # fmt: skip
    faults += [
        Fault(f"target {quoted(target)} has a value for each word of {quoted(kind.words_of)}, which is a target and no "
              "input.", path=f"data.targets.{target}.input", suggestion="Name the input with the words.")
        for target, kind in targets.items() if kind.words_of in targets
    ]  # fmt: skip
    faults += [
        missing_column_fault(column, f"data.inputs.{name}", rows)
        for name, kind in derived.items() for column in kind.reads if column not in rows.columns
    ]  # fmt: skip
    faults += [
        Fault(f"input {quoted(name)} is made of {quoted(kind.reads[0])}, but the data has a column {quoted(name)}.",
              path=f"data.inputs.{name}", suggestion="Give the input a name that no column has.")
        for name, kind in derived.items() if name in rows.columns
    ]  # fmt: skip
    if faults:
        raise BmcliError(*faults)


def join_columns(columns: Mapping[str, RawColumn], names: Sequence[str]) -> RawColumn:
    """Return one column as it is; join several columns of single values to records with a field for each.

    Raises:
        BmcliError: One of several columns holds arrays or encoded files.
    """
    import pyarrow as pa

    if len(names) == 1:
        return columns[names[0]]
    fields = {name: columns[name] for name in names}
    for name, column in fields.items():
        if is_file_column(column) or getattr(column, "ndim", 1) != 1:  # Arrow columns have no `ndim`.
            received = "encoded files" if is_file_column(column) else f"arrays of shape {tuple(column.shape[1:])}"
            raise BmcliError(
                f"column {quoted(name)}: expected one value a row, received {received}.", path="data.targets"
            )
    return pa.table(fields).to_struct_array()


def missing_column_fault(name: str, path: str, rows: SourceRows, known: Collection[str] = ()) -> Fault:
    """Make the fault of a column that the source lacks, with the most similar name, or else with its other columns.

    Args:
        known: Columns that are used in any case, and are no other name of this one.
    """
    others = [each for each in rows.columns if each not in known]
    near = parts.did_you_mean(name, others or rows.columns)
    if known and others and not parts.nearest(name, others):
        near = f"Its other columns: {listed(others)}."
    hint = " ".join([near, *describe_notes(rows)]).strip()
    return Fault(f"no column {quoted(name)}.", path=path, suggestion=hint).in_file(rows.origin)


def describe_notes(rows: SourceRows) -> list[str]:
    """Describe how rows were read, as part of the suggestion of a fault, which may come from that."""
    return [f"Note: {note}" for note in rows.notes]


def read_column(rows: SourceRows, name: str, reader: Callable[[RawColumn], _Result]) -> _Result:
    """Read a column by a function that raises RowFault.

    Raises:
        BmcliError: A cell cannot be read; with its place in the source.
    """
    try:
        return reader(rows.columns[name])
    except RowFault as fault:
        raise BmcliError(locate_fault(fault, name, rows)) from None


def locate_fault(fault: RowFault, name: str, rows: SourceRows) -> Fault:
    """Add the place in the source and the column to the fault of a cell."""
    place = rows.describe_row(fault.row)
    return Fault(f"{place}  column {quoted(name)}: {fault.message}", suggestion=fault.advice, file=place)


def resolve_inputs(
    training: Mapping[str, RawColumn], options: DataOptions, targets: Mapping[str, TargetOptions]
) -> Mapping[str, InputOptions]:
    """Return the inputs of the recipe; by default every column without another role, with a guessed kind.

    Args:
        training: Training rows of all columns. The kinds are guessed from these alone, because validation and test
            rows must not influence preprocessing.
    """
    if options.inputs is not None:
        return options.inputs
    part = PartField("inputs")
    inputs: dict[str, Any] = {}
    for name in _list_free_columns(training, options, targets):
        try:
            cells = ColumnCells(name, training[name])
        except UnreadableColumn:  # described by `describe_left_out`
            continue
        if not is_row_label(cells):
            inputs[name] = part.check(_require_kind(cells))
    if not inputs:
        left_out = " ".join(describe_left_out(training, options, targets, inputs))
        raise BmcliError(
            f"no column is left to be an input. {left_out}".rstrip(),
            path="data.source",
            suggestion="Each is a target, a weight or a split column, or dropped: see data.drop.",
        )
    return inputs


def _list_free_columns(
    training: Mapping[str, RawColumn], options: DataOptions, targets: Mapping[str, TargetOptions]
) -> list[str]:
    """List the columns that have no role, so that they are inputs where the recipe does not list any."""
    split = options.split
    taken = {*options.drop, options.weight, split.column, split.group, split.time}
    taken |= {column for name, kind in targets.items() for column in kind.list_columns(name)}
    if not targets:
        # An objective that learns from inputs is not to see the labels of a source.
        taken |= set(options.source.default_targets())  # type: ignore[attr-defined]  # every source has it
    return [name for name in training if name not in taken]


def describe_left_out(
    training: Mapping[str, RawColumn],
    options: DataOptions,
    targets: Mapping[str, TargetOptions],
    inputs: Mapping[str, object],
) -> Iterator[str]:
    """Describe why columns without a role are no inputs, if the inputs are detected."""
    for name in _list_free_columns(training, options, targets) if options.inputs is None else ():
        if name in inputs:
            continue
        try:
            if is_row_label(ColumnCells(name, training[name])):
                yield f"column {quoted(name)} is no input: {ROW_LABELS}."
        except UnreadableColumn as error:
            yield f"column {quoted(name)} is no input: {error.faults[0].message}"


def list_readable(source_columns: Mapping[str, RawColumn], names: Iterable[str]) -> Iterator[tuple[str, RawColumn]]:
    """List columns with their names, without those that cannot be read."""
    for name in names:
        with contextlib.suppress(UnreadableColumn):
            yield name, source_columns[name]


def is_row_label(cells: ColumnCells) -> bool:
    """Whether a column without a name in the header only labels the rows, or is empty.

    pandas writes its index and R its row names so. Dates and numbers with decimals are values even without a name.
    """
    if not UNNAMED.fullmatch(cells.name) or cells.is_file or cells.shape:
        return False
    if cells.is_numeric:
        return bool((cells.numbers % 1 == 0).all())
    is_distinct = cells.distinct == len(cells.present)
    return is_distinct and not all(DATE_LIKE.fullmatch(text) for text in cells.samples)


def match_inputs(rows: SourceRows, options: DataOptions, fitted: Sequence[Column]) -> Mapping[str, InputOptions]:
    """Return the kinds of inputs that are fitted already.

    Raises:
        BmcliError: The recipe lists other inputs, or the source lacks one.
    """
    names = [column.name for column in fitted]
    if options.inputs is not None and list(options.inputs) != names:
        raise BmcliError(
            f"expected the inputs {', '.join(names)}, as the run of `model.from` was trained; received "
            f"{', '.join(options.inputs)}.",
            path="data.inputs",
            suggestion="List the same inputs in the same order.",
        )
    faults = [missing_column_fault(name, "model.from", rows) for name in names if name not in rows.columns]
    if faults:
        raise BmcliError(*faults)
    return options.inputs or describe_inputs(fitted)


def describe_inputs(fitted: Sequence[Column]) -> dict[str, InputOptions]:
    """Return the kind of each fitted input, with the options by which its cells are read."""
    part: Any = PartField("inputs")
    return {
        column.name: part.check({"kind": column.kind, **input_kinds.get_traits(column).reading_options})
        for column in fitted
    }


def build_crosses(
    options: DataOptions, inputs: Mapping[str, InputOptions], fitted: Mapping[str, Column]
) -> tuple[Column, ...]:
    """Build the crosses of inputs as columns that the network computes itself.

    Raises:
        BmcliError: An input cannot be crossed.
    """
    problem = find_cross_problem(options.crosses, inputs)
    if problem is not None:
        path = ".".join(str(key) for key in ("data", "crosses", *problem[0]))
        raise BmcliError(problem[1], path=path, suggestion=problem[2])
    return tuple(_build_cross(position, cross, fitted) for position, cross in enumerate(options.crosses))


def _build_cross(position: int, cross: CrossOptions, fitted: Mapping[str, Column]) -> Column:
    columns, sizes = [fitted[name] for name in cross.columns], []
    for column in columns:
        traits = input_kinds.get_traits(column)
        size = traits.count_positions()
        if size is None or math.prod(column.shape) - traits.flags > 1:
            raise BmcliError(
                f"expected inputs of one value a row, but {quoted(column.name)} has several.",
                path=f"data.crosses.{position}.of",
            )
        sizes.append(size)
    return input_kinds.build_cross(cross.name, columns, sizes, cross.buckets, cross.dimension)


def read_weights(column: RawColumn) -> np.ndarray:
    """Read the weight of each row, float32 `(rows,)`.

    Raises:
        RowFault: A cell is missing, not a number, infinite, negative or too large for float32, or a row holds several
            numbers.
    """
    import numpy as np

    values = to_numbers(column)
    if values.size != len(values):
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    values = values.reshape(-1)
    wrong = ~(values >= 0)  # Not `values < 0`: NaN, a missing weight, compares false with everything.
    if wrong.any():
        row = int(np.argmax(wrong))
        received = "nothing" if np.isnan(values[row]) else write_number(values[row])
        message = f"expected a number of at least 0, received {received}."
        raise RowFault(row, message, "Write 0 to exclude a row from the loss.")
    large = values > np.finfo("float32").max
    if large.any():
        row = int(np.argmax(large))
        limit = np.finfo("float32").max
        raise RowFault(
            row, f"expected a weight of at most {write_number(float(limit))}, received {write_number(values[row])}."
        )
    return values.astype("float32")


def detect_kind(cells: ColumnCells) -> Guess:
    """Detect the kind of an input that a recipe does not name: the most certain guess of the built-in kinds.

    Kinds of plug-ins take no part, so that a recipe means the same wherever it is used. Of its options, such a recipe
    takes those that it needs.
    """
    guesses = input_kinds.guess_kinds(cells, parts.list_built_in("inputs"))
    return next(guess for guess in guesses if not (guess.needs_options and guess.obstacle))


def _is_identifier(cells: ColumnCells) -> bool:
    """Whether a column of text has a different word in nearly every row, such as a name or an identifier."""
    return (
        cells.distinct >= MANY_DISTINCT
        and len(cells.present) < cells.distinct * _MAX_ROWS_PER_IDENTIFIER
        and cells.mean_words < _MAX_WORDS_OF_IDENTIFIERS
    )


def _require_kind(cells: ColumnCells) -> dict[str, Any]:
    """Detect the kind of an input, with the options that it needs.

    Raises:
        BmcliError: The column looks like an identifier, from which nothing can be learned.
    """
    detected = detect_kind(cells)
    if cells.is_text and detected.is_categorical and _is_identifier(cells):
        name = write_scalar(cells.name)
        raise BmcliError(
            f"column {quoted(cells.name)}: nearly every training row has a different value, such as "
            f"{format_cell(cells.rows, 0)}, so it is useless as a category.",
            path="data.source",
            suggestion=f"Leave it out: `drop: [{name}]`. Or set its kind in data.inputs, for example "
            f"`{name}: {{kind: text, tokens: characters}}`.",
        )
    return {"kind": detected.kind, **(detected.options if detected.needs_options else {})}
