"""Categorical input: text or integers with few distinct values; one category a cell, or several.

Categories are compared in their canonical form, which `bmcli.canonical` defines: `Boots ` is `Boots`, `3.0` is `3`. The
vocabulary is that of the training rows, sorted: integers by value, text alphabetically. A cell is encoded as the
index of its category. With n categories, a missing cell is n, and a category that is unknown or too rare is n + 1.
Hashed categories need no vocabulary: their index is a hash of their text (Weinberger et al. 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bmcli import raw_columns
from bmcli.canonical import Spelling, canonicalize, choose_spelling, describe_spellings, find_spellings
from bmcli.column_records import ColumnRecord, Count, Fraction, StrictRecord
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, EdgeCell, Feature, Guess, InputTraits, Preprocessing, make_object_array
from bmcli.quoting import listed, quoted
from bmcli.raw_columns import (
    MISSING_INTEGER,
    UNKNOWN,
    UNKNOWN_INTEGER,
    UNKNOWN_TEXT,
    ColumnCells,
    RawColumn,
)
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.category_encoder import CategoryEncoder

_MAX_ONE_HOT = 16  # categories that `auto` encodes one-hot
_MAX_EMBEDDING = 64  # default width of an embedding at most
_DEFAULT_BUCKETS = 1000
_BATCH_ROWS = 65_536


class Options(InputOptions):
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
    normalize: bool = Field(
        default=True,
        description="Read spellings of one category as one: without blanks around it, in Unicode normal form C, and "
        "3.0 or +3 as 3, also 003 unless training rows have codes such as 01234. `false` compares cells as they are.",
    )

    @model_validator(mode="after")
    def _check_encoding(self) -> Options:
        if self.encoding == "one_hot" and self.dimension is not None:
            raise fault("dimension", "`dimension` has no effect with `encoding: one_hot`.")
        if self.encoding != "hash" and self.buckets is not None:
            raise fault("buckets", "`buckets` has no effect without `encoding: hash`.")
        if self.encoding == "hash" and (self.min_count > 1 or self.max_categories is not None):
            raise fault(
                "encoding",
                "`min_count` and `max_categories` have no effect with `encoding: hash`, which counts no categories.",
            )
        return self

    @property
    def can_be_crossed(self) -> bool:
        return self.separator is None


def guess(cells: ColumnCells) -> Guess | None:
    """Accept every column of text that does not consist of numbers, for want of a kind that recognises it.

    Integers of 16 digits and more are codes.
    """
    if cells.has_long_codes:
        return Guess("category", 0.5, "codes of many digits", is_categorical=True)
    if not cells.is_text or cells.is_numeric:
        return None
    return Guess("category", 0.3, f"{cells.distinct:,} categories", is_categorical=True)


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the categories of the training rows, and whether any cell is missing."""
    import pyarrow.compute as pc

    values, length = _split_values(name, rows, options)
    distinct = pc.unique(values)
    spelling = choose_spelling(distinct, options.normalize)
    canonical = canonicalize(distinct, spelling)
    vocabulary = raw_columns.build_vocabulary(canonical)
    if not vocabulary:
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    classes = _select_frequent(name, values, spelling, vocabulary, options)
    buckets = (options.buckets or _DEFAULT_BUCKETS) if options.encoding == "hash" else 0
    optional = {
        "pooled": len(classes) < len(vocabulary), "buckets": buckets, "separator": options.separator,
        "spelling": spelling if spelling != "raw" else "", "spellings": find_spellings(distinct, spelling),
        "unseen_share": _compute_share_of_rare(values, classes, spelling) if len(classes) < len(vocabulary) else 0.0,
    }  # fmt: skip
    return Column(
        name=name,
        kind="category",
        shape=() if options.separator is None else (length,),
        dtype="int32",
        raw_shape=() if raw_columns.is_text_column(rows) else tuple(rows.shape[1:]),
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        classes=() if buckets else classes,
        state={
            "dimension": _choose_dimension(buckets or len(classes), options),
            "has_missing": canonical.null_count > 0 if options.separator is None else _has_empty_cells(rows),
            **{key: value for key, value in optional.items() if value},
        },
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a number that is not an integer."""
    raw_columns.to_texts(rows)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode cells as indices, int32 `(rows,)`, or `(rows, length)` with a separator.

    With n categories or buckets, n is a missing cell, n + 1 an unknown or rare category, and n + 2 the padding after
    the last category of a cell.
    """
    import numpy as np

    if "buckets" in column.state or "separator" in column.state:
        return _encode_by_layer(rows, column)
    indices = raw_columns.lookup_indices(rows, column.classes, _get_spelling(column))
    count = np.int32(len(column.classes))
    special = [indices == raw_columns.MISSING, indices == raw_columns.UNKNOWN]
    return np.select(special, [count, count + np.int32(1)], indices)


def build_encoder(column: Column) -> CategoryEncoder:
    from bmcli.layers.category_encoder import CategoryEncoder

    state = column.state
    length = column.shape[0] if column.shape else None
    return CategoryEncoder(
        column.classes, column.raw_dtype, state.get("buckets", 0), state.get("separator"), length, _get_spelling(column)
    )


def build_stacked_encoder(columns: Sequence[Column]) -> keras.layers.Layer:
    """Build one layer with a vocabulary for every column."""
    from bmcli.layers.categories_encoder import CategoriesEncoder

    return CategoriesEncoder([column.classes for column in columns], columns[0].raw_dtype, _get_spelling(columns[0]))


def _get_spelling(column: Column) -> Spelling:
    spelling: Spelling = column.state.get("spelling", "raw")
    return spelling


def build_stacked_feature(columns: Sequence[Column], encoded: Sequence[Any]) -> Feature:
    """Concatenate the one-hot vectors that `build_feature` makes of each column."""
    from bmcli.layers.one_hot_columns import OneHotColumns

    widths = [_count_one_hot(column) for column in columns]
    stacked = replace(columns[0], name=f"{columns[0].name} and {len(columns) - 1} more")
    return Feature(stacked, OneHotColumns(widths)(list(encoded)))


def _count_one_hot(column: Column) -> int:
    """Return the width of the one-hot vector.

    It has an element for missing cells if the training rows have any, and one for unknown categories if rare ones were
    pooled.
    """
    count = column.state.get("buckets", len(column.classes))
    return int(count + (2 if column.state.get("pooled") else column.state["has_missing"]))


def build_feature(column: Column, encoded: Any) -> Feature:
    """Build an embedding, or a one-hot vector that is zero for categories without an element."""
    import keras

    from bmcli.layers.step_pooling import StepPooling

    state = column.state
    count, has_separator = state.get("buckets", len(column.classes)), "separator" in state
    if state["dimension"]:
        vectors = keras.layers.Embedding(count + (3 if has_separator else 2), state["dimension"])(encoded)
        if has_separator:
            vectors = StepPooling("mean")(vectors, mask=keras.ops.not_equal(encoded, count + 2))
        return Feature(column, vectors)
    one_hot = keras.ops.one_hot(encoded, _count_one_hot(column))
    return Feature(column, keras.ops.max(one_hot, axis=1) if has_separator else one_hot)


def get_traits(column: Column) -> InputTraits:
    return CategoryTraits(column)


class CategoryState(StrictRecord):
    """What is fitted to a column of categories."""

    dimension: Count
    has_missing: bool
    pooled: bool = False
    buckets: Annotated[int, Field(ge=1, lt=2**31)] = 1
    separator: Annotated[str, Field(min_length=1)] = ";"
    spelling: Spelling = "raw"
    spellings: dict[str, tuple[str, ...]] = Field(default={})
    unseen_share: Fraction = 0.0


class CategoryRecord(ColumnRecord):
    """A column of categories."""

    kind: Literal["category"]
    dtype: Literal["int32"]
    raw_shape: tuple[()] | tuple[Literal[1]]
    raw_dtype: Literal["string", "int64"]
    state: CategoryState  # type: ignore[assignment]  # of this kind


class CategoryTraits(InputTraits):
    """Traits of a column of categories."""

    record = CategoryRecord
    encoder_file = ENCODERS / "category.py"

    @property
    def stack_key(self) -> Any:
        # One category a row, one-hot: embeddings of different columns have separate weights, so one operation cannot
        # compute them together.
        column = self.column
        special = column.shape or column.raw_shape or "buckets" in column.state or column.state["dimension"]
        return None if special else (column.raw_dtype, _get_spelling(column))

    @property
    def feature_stack_key(self) -> Any:
        return self.stack_key

    @property
    def preprocessing(self) -> Preprocessing:
        return "lookup" if self.lookup_keys else "tensorflow"

    @property
    def lookup_keys(self) -> tuple[str, ...]:
        # A table of texts knows one spelling of each category, unless the cells are compared as they are.
        has_spellings = self.column.raw_dtype == "string" and "spelling" in self.column.state
        return () if has_spellings or {"buckets", "separator"} & set(self.column.state) else self.column.classes

    def describe_cells(self) -> str:
        missing = '"" is missing' if self.column.raw_dtype == "string" else f"{MISSING_INTEGER} is missing"
        if not self.column.classes:
            return f"a category; {missing}"
        return f"one of {len(self.column.classes)} categories ({listed(self.column.classes)}); {missing}"

    def summarize(self) -> str:
        classes = self.column.classes
        return f"{len(classes)} classes: {listed(classes, 6)}" if classes else ""

    def count_categories(self) -> int:
        return len(self.column.classes)

    def describe_spellings(self) -> tuple[str, ...]:
        return tuple(describe_spellings(self.column.state.get("spellings", {}), self.column.classes))

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np

        column = self.column
        if "buckets" in column.state:
            return 0  # a hash knows no vocabulary
        if "separator" in column.state:
            return _count_unknown_parts(rows, column)  # also those behind the longest cell of the training rows
        if encoded is not None:
            return int(np.count_nonzero(np.asarray(encoded) == len(column.classes) + 1))
        return int(np.count_nonzero(raw_columns.lookup_indices(rows, column.classes, _get_spelling(column)) == UNKNOWN))

    def count_positions(self) -> int | None:
        state = self.column.state
        return None if "separator" in state else int(state.get("buckets", len(self.column.classes))) + 2

    def read_array(self, rows: RawColumn) -> np.ndarray:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        shape = (len(rows), *(size or 1 for size in self.column.raw_shape))
        if not raw_columns.is_text_column(rows) and rows.dtype.kind in "iu":
            return np.asarray(rows).reshape(shape)
        texts = raw_columns.to_texts(rows, _get_spelling(self.column))
        is_integer = pc.match_substring_regex(texts, "^-?[0-9]{1,18}$")
        integers = pc.cast(pc.if_else(is_integer, texts, pa.scalar(None, pa.string())), pa.int64())
        values = np.where(
            np.asarray(pc.is_null(texts)), MISSING_INTEGER, np.asarray(pc.fill_null(integers, UNKNOWN_INTEGER))
        )
        return values.reshape(len(rows), *(size or 1 for size in self.column.raw_shape))

    def make_missing_cell(self, cell: np.ndarray) -> np.ndarray | None:
        return super().make_missing_cell(cell) if self.column.raw_dtype == "string" else cell * 0 + MISSING_INTEGER

    def make_edge_cells(self, cell: np.ndarray) -> Iterator[EdgeCell]:
        if self.column.raw_dtype == "string":
            yield EdgeCell("an unknown text", make_object_array([UNKNOWN_TEXT]))
        else:
            yield EdgeCell("an unknown number", cell * 0 + 2**40 + 1)

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        column, buckets = self.column, self.column.state.get("buckets", 1)
        if column.raw_dtype == "string":
            words = column.classes or [f"value {number}" for number in range(min(buckets, 1000))]
            return make_object_array(generator.choice(words, count).tolist())
        keys = [int(name) for name in column.classes] or list(range(buckets))
        shape = (count, *(size or 1 for size in column.raw_shape))
        return generator.choice(keys, shape).astype(column.raw_dtype)


def _split_values(name: str, rows: RawColumn, options: Options) -> tuple[pa.ChunkedArray, int]:
    """Return all categories of the rows, null where missing, and the largest number of categories in a cell."""
    import pyarrow.compute as pc

    if options.separator is None:
        return raw_columns.to_texts(rows), 1
    if not raw_columns.is_text_column(rows):
        raise BmcliError(
            f"column {quoted(name)}: expected text, because `separator` is set; received numbers.",
            path=f"data.inputs.{name}.separator",
            suggestion="Leave it out.",
        )
    parts = pc.split_pattern(raw_columns.to_texts(rows), options.separator)
    values = pc.ascii_trim_whitespace(pc.list_flatten(parts))  # ASCII only, as TensorFlow strips in the layer
    return values.filter(pc.not_equal(values, "")), max(pc.max(pc.list_value_length(parts)).as_py() or 1, 1)


def _select_frequent(
    name: str, values: pa.ChunkedArray, spelling: Spelling, vocabulary: tuple[str, ...], options: Options
) -> tuple[str, ...]:
    """Select the categories that are frequent enough for the options, in the order of the vocabulary."""
    import pyarrow.compute as pc

    if options.min_count == 1 and (options.max_categories or len(vocabulary)) >= len(vocabulary):
        return vocabulary
    counts = {each["values"]: each["counts"] for each in pc.value_counts(canonicalize(values, spelling)).to_pylist()}
    ranked = sorted(vocabulary, key=lambda category: -counts[category])  # stable for equal counts
    kept = {category for category in ranked[: options.max_categories] if counts[category] >= options.min_count}
    if not kept:
        raise BmcliError(
            f"column {quoted(name)}: no category occurs in {options.min_count} training rows.",
            path=f"data.inputs.{name}.min_count",
            suggestion="Write a smaller `min_count`.",
        )
    return tuple(category for category in vocabulary if category in kept)


def _compute_share_of_rare(values: pa.ChunkedArray, classes: tuple[str, ...], spelling: Spelling) -> float:
    """Compute the share of the cells whose category is too rare for the vocabulary."""
    indices = raw_columns.lookup_indices(values, classes, spelling)
    return float((indices == UNKNOWN).sum() / len(values))


def _count_unknown_parts(rows: RawColumn, column: Column) -> int:
    """Count the cells of several categories that have an unknown one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = raw_columns.to_texts(rows)
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    split = pc.split_pattern(texts, column.state["separator"])
    values = canonicalize(pc.ascii_trim_whitespace(pc.list_flatten(split)), _get_spelling(column))
    parents = np.asarray(pc.list_parent_indices(split))
    is_unknown = raw_columns.lookup_indices(pa.chunked_array([values]), column.classes) == UNKNOWN
    return len(np.unique(parents[is_unknown]))


def _has_empty_cells(rows: RawColumn) -> bool:
    """Whether a cell of several categories is missing or blank."""
    import pyarrow.compute as pc

    texts = pc.replace_substring_regex(raw_columns.to_texts(rows), r"^\s*$", "")
    return bool(pc.any(pc.fill_null(pc.equal(texts, ""), True)).as_py())


def _encode_by_layer(rows: RawColumn, column: Column) -> np.ndarray:
    import numpy as np

    layer = build_encoder(column)
    encoded = np.zeros((len(rows), *column.shape), column.dtype)
    for start, texts in _split_batches(raw_columns.to_texts(rows)):
        encoded[start : start + len(texts)] = layer.positions(texts).numpy()
    return encoded


def _split_batches(texts: pa.ChunkedArray) -> Iterator[tuple[int, np.ndarray]]:
    import numpy as np

    for start in range(0, len(texts), _BATCH_ROWS):
        yield start, np.asarray(texts.slice(start, _BATCH_ROWS).fill_null("").to_pylist(), object)


def _choose_dimension(count: int, options: Options) -> int:
    """Return the width of the embedding, 0 for one-hot."""
    if options.encoding == "one_hot" or (
        options.encoding in ("auto", "hash") and options.dimension is None and count <= _MAX_ONE_HOT
    ):
        return 0
    # The fourth root suffices for millions of categories; small tables need wider embeddings, as in fast.ai's rule.
    return options.dimension or min(_MAX_EMBEDDING, round(1.6 * count**0.56))
