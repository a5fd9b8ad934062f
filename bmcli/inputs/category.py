"""Categories: text or whole numbers of which few are different; one in a cell, or several.

The categories are those of the training rows, in alphabetical order, or by size if all are whole numbers.
Cells are encoded as their position; a missing cell as the number of categories, and a category that the
training rows do not have, or too rarely, as one more. Hashed ones need no list: their position is a hash of
their text (Weinberger et al. 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import raw_columns
from bmcli.errors import BmcliError
from bmcli.inputs import Feature
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.fields import Kind, fault
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.category_encoder import CategoryEncoder

_LARGEST_ONE_HOT = 16
_LARGEST_EMBEDDING = 64
_BUCKETS = 1000
_BATCH = 65_536


class Options(Kind):
    """One category per row, or several with a separator."""

    kind: Literal["category"] = "category"
    encoding: Literal["auto", "one_hot", "embedding", "hash"] = Field(
        default="auto",
        description="Encoding of the categories: one-hot, embedding, or hash, an embedding of hash buckets without "
        "a vocabulary, in which categories may collide. `auto` embeds more than 16 categories.",
    )
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Width of the embedding; by default it grows with the number of categories."
    )
    buckets: Annotated[int, Field(ge=2, le=10_000_000)] | None = Field(
        default=None, description="Number of buckets of `encoding: hash`; by default 1,000."
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Minimum number of training rows of a category; rarer categories share one index with "
        "unknown ones.",
    )
    max_categories: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Maximum size of the vocabulary: the most frequent categories; all others share one index.",
    )
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description='Separator of several categories in a cell, such as ";"; they become a multi-hot vector or '
        "the mean of their embeddings.",
    )

    @model_validator(mode="after")
    def _options_fit(self) -> Options:
        if self.encoding == "one_hot" and self.dimension is not None:
            raise fault("dimension", "`dimension` goes with `encoding: embedding`.")
        if self.encoding != "hash" and self.buckets is not None:
            raise fault("buckets", "`buckets` goes with `encoding: hash`.")
        if self.encoding == "hash" and (self.min_count > 1 or self.max_categories is not None):
            raise fault("encoding", "hashed categories are not counted, so rare ones cannot be told.")
        return self


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """The categories of the training rows, and whether any cell is missing."""
    values, length = _split_values(name, rows, options)
    found = raw_columns.build_vocabulary(values)
    if not found:
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    classes = _select_frequent(name, values, found, options)
    buckets = (options.buckets or _BUCKETS) if options.encoding == "hash" else 0
    further = {"pooled": len(classes) < len(found), "buckets": buckets, "separator": options.separator}
    return Column(
        name=name,
        kind="category",
        shape=() if options.separator is None else (length,),
        dtype="int32",
        raw_shape=() if raw_columns.is_text_column(rows) else tuple(rows.shape[1:]),
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        classes=() if buckets else classes,
        state={
            "dimension": _dimension(buckets or len(classes), options),
            "has_missing": _has_missing(rows, options),
            **{key: value for key, value in further.items() if value},
        },
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuses a number that is not whole."""
    raw_columns.to_texts(rows)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Positions, int32 `(rows,)`, or `(rows, length)` with a separator.

    With n categories or buckets it is n where missing, one more where unknown or rare, and two more after the
    last category of a cell.
    """
    import numpy as np

    if "buckets" in column.state or "separator" in column.state:
        return _encode_by_layer(rows, column)
    found = raw_columns.lookup_indices(rows, column.classes)
    count = np.int32(len(column.classes))
    return np.select([found == raw_columns.MISSING, found == raw_columns.UNKNOWN], [count, count + np.int32(1)], found)


def build_encoder(column: Column) -> CategoryEncoder:
    from bmcli.layers.category_encoder import CategoryEncoder

    state = column.state
    length = column.shape[0] if column.shape else None
    return CategoryEncoder(column.classes, column.raw_dtype, state.get("buckets", 0), state.get("separator"), length)


def stack_key(column: Column) -> Any:
    """One category a row, one-hot, of one raw dtype."""
    special = column.shape or column.raw_shape or "buckets" in column.state or column.state["dimension"]
    return None if special else column.raw_dtype


def encoder_of(columns: Sequence[Column]) -> keras.layers.Layer:
    """One layer with a vocabulary for every column."""
    from bmcli.layers.categories_encoder import CategoriesEncoder

    return CategoriesEncoder([column.classes for column in columns], columns[0].raw_dtype)


def feature_of(columns: Sequence[Column], encoded: Sequence[Any]) -> Feature:
    """One-hot vectors side by side, as `build_feature` gives them."""
    from bmcli.layers.one_hot_columns import OneHotColumns

    widths = [_width(column) for column in columns]
    whole = replace(columns[0], name=f"{columns[0].name} and {len(columns) - 1} more")
    return Feature(whole, OneHotColumns(widths)(list(encoded)))


def _width(column: Column) -> int:
    """Of the one-hot vector: missing cells, and unknown ones where there are rare ones, have a place in it."""
    count = column.state.get("buckets", len(column.classes))
    return int(count + (2 if column.state.get("pooled") else column.state["has_missing"]))


def build_feature(column: Column, encoded: Any) -> Feature:
    """An embedding, or a one-hot vector in which cells unlike any training cell are all zeros."""
    import keras

    from bmcli.layers.step_pooling import StepPooling

    state = column.state
    count, several = state.get("buckets", len(column.classes)), "separator" in state
    if state["dimension"]:
        vectors = keras.layers.Embedding(count + (3 if several else 2), state["dimension"])(encoded)
        if several:
            vectors = StepPooling("mean")(vectors, mask=keras.ops.not_equal(encoded, count + 2))
        return Feature(column, vectors)
    chosen = keras.ops.one_hot(encoded, _width(column))
    return Feature(column, keras.ops.max(chosen, axis=1) if several else chosen)


def _split_values(name: str, rows: RawColumn, options: Options) -> tuple[RawColumn, int]:
    """All categories of the rows, missing ones aside, and how many a cell has at most."""
    import pyarrow.compute as pc

    if options.separator is None:
        return rows, 1
    if not raw_columns.is_text_column(rows):
        raise BmcliError(
            f"column {quoted(name)}: it holds numbers, in which no separator can be.",
            path=f"data.inputs.{name}.separator",
            suggestion="Leave it out.",
        )
    parts = pc.split_pattern(raw_columns.to_texts(rows), options.separator)
    values = pc.ascii_trim_whitespace(pc.list_flatten(parts))
    return values.filter(pc.not_equal(values, "")), max(pc.max(pc.list_value_length(parts)).as_py() or 1, 1)


def _select_frequent(name: str, values: RawColumn, found: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """The categories that are told apart, in the order in which they were found."""
    import pyarrow.compute as pc

    if options.min_count == 1 and (options.max_categories or len(found)) >= len(found):
        return found
    counted = {each["values"]: each["counts"] for each in pc.value_counts(raw_columns.to_texts(values)).to_pylist()}
    ranked = sorted(found, key=lambda category: -counted[category])  # Those alike keep their order.
    kept = {category for category in ranked[: options.max_categories] if counted[category] >= options.min_count}
    if not kept:
        raise BmcliError(
            f"column {quoted(name)}: no category is in {options.min_count} training rows.",
            path=f"data.inputs.{name}.min_count",
        )
    return tuple(category for category in found if category in kept)


def _has_missing(rows: RawColumn, options: Options) -> bool:
    import numpy as np
    import pyarrow.compute as pc

    texts = raw_columns.to_texts(rows)
    if options.separator is not None:
        texts = pc.replace_substring_regex(texts, r"^\s*$", "")
        return bool(pc.any(pc.fill_null(pc.equal(texts, ""), True)).as_py())
    return bool(np.asarray(texts.is_null()).any())


def _encode_by_layer(rows: RawColumn, column: Column) -> np.ndarray:
    import numpy as np

    layer = build_encoder(column)
    encoded = np.zeros((len(rows), *column.shape), column.dtype)
    for start, texts in _batches(raw_columns.to_texts(rows)):
        encoded[start : start + len(texts)] = layer.positions(texts).numpy()
    return encoded


def _batches(texts: pa.ChunkedArray) -> Iterator[tuple[int, np.ndarray]]:
    import numpy as np

    for start in range(0, len(texts), _BATCH):
        yield start, np.asarray(texts.slice(start, _BATCH).fill_null("").to_pylist(), object)


def _dimension(count: int, options: Options) -> int:
    """Width of the embedding, 0 for one-hot."""
    if options.encoding == "one_hot" or (
        options.encoding in ("auto", "hash") and options.dimension is None and count <= _LARGEST_ONE_HOT
    ):
        return 0
    # The fourth root would do for millions of categories; small tables want more, as fast.ai's rule gives.
    return options.dimension or min(_LARGEST_EMBEDDING, round(1.6 * count**0.56))
