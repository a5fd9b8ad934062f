"""Labels: any number of them a row, none included, in one cell or in a column each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bmcli import parts, raw_columns
from bmcli.data.targets import LabelNames, names_to_text
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Options(Kind):
    """Several labels per row, in one cell; an empty cell has no labels.

    Alternatives: one boolean column per label (`columns`), or an array `(rows, labels)` of 0 and 1.
    """

    kind: Literal["labels"] = "labels"
    separator: str = Field(
        default=";", description="Separator of the labels of a cell; surrounding spaces are removed."
    )
    classes: LabelNames | None = Field(
        default=None,
        description="All labels in the order of their indices; by default the sorted labels of the training rows. "
        "For an array its label names, by default its column numbers.",
    )
    columns: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        default=None,
        description="Columns of the source, one per label and named like it, with values 1 or 0, yes or no, true or "
        "false. The target may then have any name; `separator` joins the labels that `predict` writes.",
    )

    @field_validator("separator")
    @classmethod
    def _something_separates(cls, value: str) -> str:
        if not value.strip():
            raise fault("separator", "expected a character that is no space.", "Write separator: ';'.")
        return value

    @field_validator("columns")
    @classmethod
    def _columns_are_the_classes(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("classes") is not None:
            raise fault("columns", "`classes` does nothing beside `columns`, whose names the labels have.",
                        "Leave one of them out.")  # fmt: skip
        return value


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """The labels of the training rows: whole numbers by size, text by letters; `state` keeps the separator."""
    rows = _to_indicators(rows)
    column = Column(
        name=name,
        kind="labels",
        shape=(),
        dtype="uint8",
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        state={"separator": options.separator, **({"columns": list(options.columns)} if options.columns else {})},
    )
    classes = options.columns or (_name_labels if _is_matrix(rows) else _find_labels)(name, rows, options)
    fitted = replace(column, shape=(len(classes),), classes=classes)
    counts = encode(rows, fitted).sum(axis=0, dtype="int64")
    if ((counts == 0) | (counts == len(rows))).all():
        raise BmcliError(
            f"target {quoted(name)}: every label is in all training rows or in none, so there is nothing to learn.",
            path=f"data.targets.{name}",
            suggestion="" if _is_matrix(rows) else f"Is {quoted(options.separator)} what separates labels?",
        )
    if (counts == 0).any():
        unseen = classes[int((counts == 0).argmax())]
        raise BmcliError(
            f"target {quoted(name)}: no training row has the label {quoted(unseen)}.",
            path=f"data.targets.{name}" + (".classes" if options.classes else ""),
        )
    return fitted


def check(rows: RawColumn, options: Options) -> None:
    """Refuses a label that is not among those that are told, and in arrays and columns what is neither yes nor no."""
    rows = _to_indicators(rows)
    if _is_matrix(rows):
        _check_indicators(rows, rows.shape[1])
    elif told := names_to_text(options.classes):
        _locate_labels(rows, options.separator, told)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """1 where a row has a label and 0 elsewhere, uint8 `(rows, labels)`; an unknown label is a fault."""
    import numpy as np

    rows = _to_indicators(rows)
    if _is_matrix(rows):
        return _check_indicators(rows, len(column.classes))
    owners, places = _locate_labels(rows, column.state["separator"], column.classes)
    encoded = np.zeros((len(rows), len(column.classes)), "uint8")
    encoded[owners, places] = 1
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """0 and 1 by label, as they are."""
    return encoded


def predict_point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """1 for each label that is more probable than not."""
    return (predictions > 0.5).astype("uint8")


def _is_matrix(rows: RawColumn) -> bool:
    return getattr(rows, "ndim", 1) == 2


def _to_indicators(rows: Any) -> RawColumn:
    """The rows as they are, but records of several columns as an array of 0 and 1, uint8 `(rows, labels)`.

    Raises:
        RowFault: A cell of a record is missing, or neither yes nor no.
    """
    import numpy as np
    import pyarrow as pa

    if not (raw_columns.is_text_column(rows) and pa.types.is_struct(rows.type)):
        return rows
    names, fields = [field.name for field in rows.type], rows.flatten()
    values = np.stack([_to_binary(field) for field in fields], axis=1)
    if np.isnan(values).any():
        row, label = (int(place) for place in np.argwhere(np.isnan(values))[0])
        cell = fields[label][row].as_py()
        received = "nothing" if cell in (None, "") or cell != cell else raw_columns.format_cell(fields[label], row)
        raise RowFault(
            row,
            f"expected yes or no for {quoted(names[label])}, received {received}.",
            "Write 1 or 0, yes or no, true or false; or remove the row.",
        )
    return values.astype("uint8")


def _to_binary(column: pa.ChunkedArray) -> np.ndarray:
    """1, 0, or NaN where a cell is neither; `(rows,)`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        return raw_columns.to_booleans(column)[0]
    values = np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")))
    return np.where((values == 0) | (values == 1), values, np.nan)


def _split_labels(rows: RawColumn, separator: str) -> pa.ListArray:
    """The labels of every row, spaces and empty ones not yet removed."""
    import pyarrow.compute as pc

    texts = raw_columns.to_texts(rows).combine_chunks()
    return pc.split_pattern(texts, separator)


def _locate_labels(rows: RawColumn, separator: str, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and position in `classes` of every label.

    Raises:
        RowFault: A label is unknown.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    split = _split_labels(rows, separator)
    labels, owners = pc.list_flatten(split), np.asarray(pc.list_parent_indices(split))
    labels = pc.utf8_trim_whitespace(labels)
    places = np.asarray(pc.fill_null(pc.index_in(labels, value_set=pa.array(classes, pa.string())), -1))
    told = np.asarray(pc.not_equal(labels, ""), dtype=bool)
    unknown = told & (places < 0)
    if unknown.any():
        at = int(np.argmax(unknown))
        label = labels[at].as_py()
        known = parts.did_you_mean(label, classes)
        raise RowFault(int(owners[at]), f"{quoted(label)} is a label absent from training.", known)
    return owners[told], places[told]


def _find_labels(name: str, rows: RawColumn, options: Options) -> tuple[str, ...]:
    """The labels asked for, or those of the rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if told := names_to_text(options.classes):
        return told
    labels = pc.utf8_trim_whitespace(pc.list_flatten(_split_labels(rows, options.separator)))
    found = raw_columns.build_vocabulary(pa.chunked_array([labels]))
    if not found:
        raise BmcliError(f"target {quoted(name)}: no training row has a label.", path=f"data.targets.{name}")
    return found


def _name_labels(name: str, rows: np.ndarray, options: Options) -> tuple[str, ...]:
    """The names of an array's columns."""
    width = rows.shape[1]
    names = names_to_text(options.classes) or tuple(map(str, range(width)))
    if len(names) != width:
        raise BmcliError(
            f"target {quoted(name)} has {width} labels a row, but {len(names)} are named.",
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
