"""Multi-label target: any number of labels a row, in one cell or in a column for each label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bmcli import parts, raw_columns
from bmcli.canonical import Spelling, canonicalize, choose_spelling
from bmcli.data.targets import (
    OR_SKIP,
    ClassState,
    LabelNames,
    Normalize,
    TargetGuess,
    check_names,
    get_spelling,
    names_to_text,
    parse_list,
    resolve_spelling,
    spelling_to_state,
)
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import fault
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "multi_label"
ONE_CLASS = False


class State(ClassState):
    """How the labels of a row are written."""

    separator: str
    columns: tuple[str, ...] = ()


_SEPARATORS = (";", "|")  # that are recognised; the first is the default
_MAX_LABEL, _MAX_WORDS = 40, 3  # characters of a label, and mean number of its words
_LIST, _LIST_START = r"^\s*\[.*\]\s*$", re.compile(r"""\[\s*(?:["'\]]|$)""")


class Options(TargetOptions):
    """Several labels per row, in one cell; an empty cell has no labels.

    A cell that is a list, such as `["a", "b"]`, `['a', 'b']` or a list of JSON lines and Parquet, needs no separator.
    Alternatives: one boolean column per label (`columns`), or an array `(rows, labels)` of 0 and 1.
    """

    kind: Literal["labels"] = "labels"
    separator: str = Field(
        default=_SEPARATORS[0], description="Separator of the labels of a cell; surrounding spaces are removed."
    )
    classes: LabelNames | None = Field(
        default=None,
        description="All labels in the order of their indices; by default the sorted labels of the training rows. "
        "For an array its label names, by default its column numbers.",
    )
    normalize: Normalize = True
    columns: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        default=None,
        description="Columns of the source, one per label and named like it, with values 1 or 0, yes or no, true or "
        "false. The target may then have any name; `separator` joins the labels that `predict` writes.",
    )

    def list_columns(self, name: str) -> tuple[str, ...]:
        return self.columns or (name,)

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, value: str) -> str:
        if not value.strip():
            raise fault("separator", "expected a character other than a space.", "Write separator: ';'.")
        return value

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("classes") is not None:
            raise fault("columns", "`classes` has no effect beside `columns`, whose names are those of the labels.",
                        "Leave one of them out.")  # fmt: skip
        return value


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise lists such as `['a', 'b']`, and cells such as `a;b` and `a|b` if their items repeat in other cells."""
    if profile.is_number or profile.is_array or profile.is_encoded or not profile.samples:
        return None
    if all(map(_LIST_START.match, profile.samples)):
        return TargetGuess("labels", 0.8, "its cells are lists of labels")
    for separator in _SEPARATORS:
        if _are_joined(profile.samples, separator):
            options = {} if separator == _SEPARATORS[0] else {"separator": separator}
            doubt = "if each cell is one class, write {kind: category}"
            return TargetGuess("labels", 0.7, f"labels with {quoted(separator)} between them", options, doubt=doubt)
    return None


def _are_joined(cells: Sequence[str], separator: str) -> bool:
    """Whether some cells join short items by a separator, and the items of all cells repeat."""
    joined = sum(separator in cell for cell in cells)
    items = [item.strip() for cell in cells for item in cell.split(separator)]
    # Prose with a semicolon has long items, and addresses or names have others in each cell.
    is_short = max(map(len, items)) <= _MAX_LABEL and sum(map(len, map(str.split, items))) <= _MAX_WORDS * len(items)
    return joined >= 2 and is_short and len(set(items)) < len(cells)


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the labels of the training rows, sorted: integers by value, text alphabetically; or those of the options."""
    rows = _to_indicators(rows)
    spelling: Spelling = "raw" if _is_matrix(rows) else _choose_spelling(rows, options)
    column = Column(
        name=name,
        kind="labels",
        shape=(),
        dtype="uint8",
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        state={
            "separator": options.separator,
            **({"columns": list(options.columns)} if options.columns else {}),
            **({} if _is_matrix(rows) else spelling_to_state(_split_to_labels(rows, options), spelling)),
        },
    )
    classes = options.columns or (
        _name_labels(name, rows, options) if _is_matrix(rows) else _find_labels(name, rows, options, spelling)
    )
    fitted = replace(column, shape=(len(classes),), classes=classes)
    counts = encode(rows, fitted).sum(axis=0, dtype="int64")
    # A label that every row has is accepted beside others; a label that no row has is a fault below.
    if ((counts == 0) | (counts == len(rows))).all():
        raise BmcliError(
            f"target {quoted(name)}: every label is in all training rows or in none, so there is nothing to learn.",
            path=f"data.targets.{name}",
            suggestion="" if _is_matrix(rows) else f"Check the separator of the labels, {quoted(options.separator)}.",
        )
    if (counts == 0).any():
        unseen = classes[int((counts == 0).argmax())]
        raise BmcliError(
            f"target {quoted(name)}: no training row has the label {quoted(unseen)}.",
            path=f"data.targets.{name}" + (".classes" if options.classes else ""),
        )
    return fitted


def check(rows: RawColumn, options: Options) -> None:
    """Refuse labels outside the classes of the options; in arrays and columns, other values than yes or no."""
    rows = _to_indicators(rows)
    if _is_matrix(rows):
        _check_indicators(rows, rows.shape[1])
    elif options.classes:
        spelling = _choose_spelling(rows, options)
        _locate_labels(rows, options.separator, names_to_text(options.classes, spelling) or (), spelling)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode rows as 1 for each of their labels and 0 elsewhere, uint8 `(rows, labels)`; unknown labels are faults."""
    import numpy as np

    rows = _to_indicators(rows)
    if _is_matrix(rows):
        return _check_indicators(rows, len(column.classes))
    label_rows, indices = _locate_labels(rows, column.state["separator"], column.classes, get_spelling(column))
    encoded = np.zeros((len(rows), len(column.classes)), "uint8")
    encoded[label_rows, indices] = 1
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return 0 and 1 by label unchanged."""
    return encoded


def index_classes(rows: RawColumn, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Find the labels of each row."""
    import numpy as np
    import pyarrow.compute as pc

    if _is_records(rows):
        rows = np.stack([_to_binary(field) for field in rows.flatten()], axis=1)
    if _is_matrix(rows):
        found = np.nonzero(rows == 1)
        return found[0], found[1]
    split = _split_labels(rows, options.separator)
    labels = _read_labels(split, _choose_spelling(rows, options)).dictionary_encode().indices
    present = np.asarray(pc.is_valid(labels), dtype=bool)
    return np.asarray(pc.list_parent_indices(split))[present], np.asarray(labels.fill_null(-1))[present]


def count_classes(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows with each label."""
    return truth.sum(axis=0, dtype="int64")


def _is_matrix(rows: RawColumn) -> bool:
    return getattr(rows, "ndim", 1) == 2


def _is_records(rows: Any) -> bool:
    import pyarrow as pa

    return raw_columns.is_text_column(rows) and pa.types.is_struct(rows.type)


def _to_indicators(rows: Any) -> RawColumn:
    """Convert records of several columns to 0 and 1, uint8 `(rows, labels)`; return other rows unchanged.

    Raises:
        RowFault: A cell of a record is missing, or neither yes nor no.
    """
    import numpy as np

    if not _is_records(rows):
        return rows
    names, fields = [field.name for field in rows.type], rows.flatten()
    values = np.stack([_to_binary(field) for field in fields], axis=1)
    if np.isnan(values).any():
        row, label = (int(index) for index in np.argwhere(np.isnan(values))[0])
        cell = fields[label][row].as_py()
        # NaN, a missing number, differs from itself.
        received = "nothing" if cell in (None, "") or cell != cell else raw_columns.format_cell(fields[label], row)
        raise RowFault(
            row,
            f"expected yes or no for {quoted(names[label])}, received {received}.",
            "Write 1 or 0, yes or no, true or false; or remove the row.",
        )
    return values.astype("uint8")


def _to_binary(column: pa.ChunkedArray) -> np.ndarray:
    """Convert cells to 1 and 0, NaN where a cell is neither yes nor no; `(rows,)`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        return raw_columns.to_booleans(column)[0]
    values = np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")))
    return np.where((values == 0) | (values == 1), values, np.nan)


def _split_labels(rows: RawColumn, separator: str) -> pa.ListArray:
    """Split the labels of every row; spaces and empty labels are not removed yet."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = raw_columns.to_texts(rows).combine_chunks()
    if not pc.any(pc.match_substring_regex(texts, _LIST)).as_py():
        return pc.split_pattern(texts, separator)
    encoded = texts.dictionary_encode()  # Each different list is parsed once.
    parsed = [parse_list(text) or text.split(separator) for text in encoded.dictionary.to_pylist()]
    return pa.array(parsed, pa.list_(pa.string())).take(encoded.indices)


def _read_labels(split: pa.ListArray, spelling: Spelling) -> pa.Array:
    """Return the labels of all rows in their canonical form, null where nothing is between two separators."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = canonicalize(pc.utf8_trim_whitespace(pc.list_flatten(split)), spelling)
    return pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels)


def _choose_spelling(rows: RawColumn, options: Options) -> Spelling:
    if options.classes is not None:
        return resolve_spelling(rows, options.classes, options.normalize)
    return choose_spelling(_split_to_labels(rows, options), options.normalize)


def _split_to_labels(rows: RawColumn, options: Options) -> pa.Array:
    """Return the labels of all rows as they are written."""
    return _read_labels(_split_labels(rows, options.separator), "raw")


def _locate_labels(
    rows: RawColumn, separator: str, classes: tuple[str, ...], spelling: Spelling
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of every label, and its index in `classes`.

    Raises:
        RowFault: A label is unknown.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    # Flattened, all labels of all rows are trimmed and looked up in one call of Arrow.
    split = _split_labels(rows, separator)
    labels, label_rows = _read_labels(split, spelling), np.asarray(pc.list_parent_indices(split))
    indices = np.asarray(pc.fill_null(pc.index_in(labels, value_set=pa.array(classes, pa.string())), -1))
    present = np.asarray(pc.is_valid(labels), dtype=bool)
    unknown = present & (indices < 0)
    if unknown.any():
        first = int(np.argmax(unknown))
        label = labels[first].as_py()
        hint = parts.did_you_mean(label, classes)
        message = f"expected labels of the training rows, received {quoted(label)}."
        option = f"Put a row with this label into the training rows{OR_SKIP}."
        raise RowFault(int(label_rows[first]), message, hint, option=option)
    return label_rows[present], indices[present]


def _find_labels(name: str, rows: RawColumn, options: Options, spelling: Spelling) -> tuple[str, ...]:
    """Return the labels of the options, or those of the rows."""
    import pyarrow as pa

    if classes := names_to_text(options.classes, spelling):
        check_names(name, classes)
        return classes
    labels = _read_labels(_split_labels(rows, options.separator), spelling)
    present = raw_columns.build_vocabulary(pa.chunked_array([labels]))
    if not present:
        raise BmcliError(f"target {quoted(name)}: no training row has a label.", path=f"data.targets.{name}")
    return present


def _name_labels(name: str, rows: np.ndarray, options: Options) -> tuple[str, ...]:
    """Return the names of an array's columns: those of the options, or their numbers."""
    width = rows.shape[1]
    names = names_to_text(options.classes, "raw") or tuple(map(str, range(width)))
    if len(names) != width:
        raise BmcliError(
            f"target {quoted(name)}: expected {width} names, one for each column of the array, received {len(names)}.",
            path=f"data.targets.{name}.classes",
        )
    return names


def _check_indicators(rows: np.ndarray, width: int) -> np.ndarray:
    import numpy as np

    if rows.shape[1] != width:
        raise RowFault(0, f"expected {width} labels a row, received {rows.shape[1]}.")
    wrong = ~np.isin(rows, (0, 1))
    if wrong.any():
        row, label = np.argwhere(wrong)[0]
        raise RowFault(int(row), f"expected 0 or 1 for each label, received {rows[row, label]}.")
    return rows.astype("uint8")
