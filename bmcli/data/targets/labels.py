"""Labels: any number of them a row, none included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from bmcli import cells, parts
from bmcli.cells import Raw, RowFault
from bmcli.data.targets import Names
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind, fault
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Options(Kind):
    """Several labels a row, in one cell; an empty cell is a row without any.

    An array `(rows, labels)` of 0 and 1 tells them, too.
    """

    kind: Literal["labels"] = "labels"
    separator: str = Field(default=";", description="Text between two labels of a cell; spaces around it are dropped.")
    classes: Names | None = Field(
        default=None,
        description="All labels in the order of their indices; by default the training rows', sorted. Of an array "
        "their names, by default the numbers of its columns.",
    )

    @field_validator("separator")
    @classmethod
    def _something_separates(cls, value: str) -> str:
        if not value.strip():
            raise fault("separator", "expected a character that is no space.", "Write separator: ';'.")
        return value


def fit(name: str, rows: Raw, options: Options) -> Column:
    """The labels of the training rows: whole numbers by size, text by letters; `state` keeps the separator."""
    column = Column(
        name=name,
        kind="labels",
        shape=(),
        dtype="uint8",
        raw_dtype="string" if cells.is_text(rows) else "int64",
        state={"separator": options.separator},
    )
    classes = _named(name, rows, options) if _is_table(rows) else _found(name, rows, options)
    fitted = replace(column, shape=(len(classes),), classes=classes)
    counts = encode(rows, fitted).sum(axis=0, dtype="int64")
    if ((counts == 0) | (counts == len(rows))).all():
        raise BmcliError(
            f"target '{name}': every label is in all training rows or in none, so there is nothing to learn.",
            path=f"data.targets.{name}",
            suggestion=f"Is '{options.separator}' what separates labels?",
        )
    if (counts == 0).any():
        unseen = classes[int((counts == 0).argmax())]
        raise BmcliError(
            f"target '{name}': no training row has the label '{unseen}'.",
            path=f"data.targets.{name}" + (".classes" if options.classes else ""),
        )
    return fitted


def check(rows: Raw, options: Options) -> None:
    """Refuses a label that is not among those that are told, and in an array what is neither 0 nor 1."""
    if _is_table(rows):
        _checked(rows, rows.shape[1])
    elif options.classes is not None:
        _places(rows, options.separator, tuple(str(each) for each in options.classes))


def encode(rows: Raw, column: Column) -> np.ndarray:
    """1 where a row has a label and 0 elsewhere, uint8 `(rows, labels)`; an unknown label is a fault."""
    import numpy as np

    if _is_table(rows):
        return _checked(rows, len(column.classes))
    owners, places = _places(rows, column.state["separator"], column.classes)
    encoded = np.zeros((len(rows), len(column.classes)), "uint8")
    encoded[owners, places] = 1
    return encoded


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """0 and 1 by label, as they are."""
    return encoded


def point(predictions: np.ndarray, column: Column) -> np.ndarray:
    """1 for each label that is more probable than not."""
    return (predictions > 0.5).astype("uint8")


def _is_table(rows: Raw) -> bool:
    return getattr(rows, "ndim", 1) == 2


def _split(rows: Raw, separator: str) -> pa.ListArray:
    """The labels of every row, spaces and empty ones not yet removed."""
    import pyarrow.compute as pc

    texts = cells.texts(rows).combine_chunks()
    return pc.split_pattern(texts, separator)


def _places(rows: Raw, separator: str, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and position in `classes` of every label.

    Raises:
        RowFault: A label is unknown.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    split = _split(rows, separator)
    labels, owners = pc.list_flatten(split), np.asarray(pc.list_parent_indices(split))
    labels = pc.utf8_trim_whitespace(labels)
    places = np.asarray(pc.fill_null(pc.index_in(labels, value_set=pa.array(classes, pa.string())), -1))
    told = np.asarray(pc.not_equal(labels, ""), dtype=bool)
    unknown = told & (places < 0)
    if unknown.any():
        at = int(np.argmax(unknown))
        label = labels[at].as_py()
        known = parts.did_you_mean(label, classes)
        raise RowFault(int(owners[at]), f"'{label[:60]}' is a label absent from training.", known)
    return owners[told], places[told]


def _found(name: str, rows: Raw, options: Options) -> tuple[str, ...]:
    """The labels asked for, or those of the rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if options.classes is not None:
        return tuple(str(each) for each in options.classes)
    labels = pc.utf8_trim_whitespace(pc.list_flatten(_split(rows, options.separator)))
    found = cells.vocabulary(pa.chunked_array([labels]))
    if not found:
        raise BmcliError(f"target '{name}': no training row has a label.", path=f"data.targets.{name}")
    return found


def _named(name: str, rows: np.ndarray, options: Options) -> tuple[str, ...]:
    """The names of an array's columns."""
    width = rows.shape[1]
    names = tuple(str(each) for each in options.classes or range(width))
    if len(names) != width:
        raise BmcliError(
            f"target '{name}' has {width} labels a row, but {len(names)} are named.",
            path=f"data.targets.{name}.classes",
        )
    return names


def _checked(rows: np.ndarray, width: int) -> np.ndarray:
    import numpy as np

    if rows.shape[1] != width:
        raise RowFault(0, f"expected {width} labels a row, received {rows.shape[1]}.")
    wrong = ~np.isin(rows, (0, 1))
    if wrong.any():
        row, label = np.argwhere(wrong)[0]
        raise RowFault(int(row), f"expected 0 or 1 for each label, received {rows[row, label]}.")
    return rows.astype("uint8")
