"""Boolean input: words for yes and no, or arrays of 0 and 1.

Cells are encoded as 1 and 0. A missing cell becomes the share of yes in the training rows; it is flagged if these have
missing cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from bmcli import raw_columns
from bmcli.column_records import ColumnRecord, Count, StrictRecord
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, Feature, Guess, InputTraits, Preprocessing, check_shape, make_object_array
from bmcli.notation import MAX_FOREIGN, count_markers, list_counts, order_counts
from bmcli.quoting import quoted
from bmcli.raw_columns import ColumnCells, RawColumn, RowFault
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions, MissingCells
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import keras
    import numpy as np

_SAMPLE = 2000  # cells whose spellings are counted first
_MAX_SPELLINGS = 100  # distinct cells
_WORD_SHARE = 0.95  # share of two words among the cells that are not missing, from which on the others are mistakes
_MANY_ROWS = 50  # cells without which a third word is a category


class Options(InputOptions):
    """One boolean per row, or an array of booleans."""

    kind: Literal["boolean"] = "boolean"
    yes: tuple[str, ...] = Field(
        default=raw_columns.YES_WORDS, min_length=1, description="Words for true, in any case."
    )
    no: tuple[str, ...] = Field(default=raw_columns.NO_WORDS, min_length=1, description="Words for false, in any case.")
    missing_cells: MissingCells = ()

    @field_validator("yes", "no")
    @classmethod
    def _check_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        words = tuple(word.strip().lower() for word in value)
        if not all(words):
            raise fault("words", "expected words, received an empty one: an empty cell is always missing.")
        return words

    @model_validator(mode="after")
    def _check_difference(self) -> Options:
        both = sorted(set(self.yes) & set(self.no))
        if both:
            raise fault("words", f"{quoted(both[0])} means both yes and no.", "Remove it from one of the lists.")
        named = {text.strip().lower() for text in self.missing_cells} & {*self.yes, *self.no}
        if named:
            word = quoted(min(named))
            raise fault("missing_cells", f"{word} is a word for yes or no.", "Set `yes` or `no` without it.")
        return self

    @property
    def can_be_crossed(self) -> bool:
        return True


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise arrays of booleans, and texts of one word for yes and one for no, but for a few cells."""
    if cells.dtype == "bool" and len(cells.shape) <= 1:
        return Guess("boolean", 0.9, "yes or no", is_categorical=cells.shape in ((), (1,)))
    if not cells.is_text or cells.is_numeric:  # a column of 0 and 1 is a number
        return None
    counts = _count_words(cells)
    if counts is None:
        return None
    words, markers, foreign = counts
    missing = {**markers, **foreign}
    has_spellings = len(words) > 2
    why = f"yes or no, in several spellings: {list_counts(words)}" if has_spellings else "yes or no"
    why += f"; missing: {list_counts(missing)}" if missing else ""
    doubt = "if its words are more than yes and no, write {kind: category}" if has_spellings else ""
    # A recipe that does not name the kind takes the others for missing, too: the flag of these keeps them apart.
    options = {"missing_cells": tuple(foreign)} if foreign else {}
    return Guess("boolean", 0.9, why, options, bool(foreign), is_categorical=True, foreign=foreign, doubt=doubt)


def _count_words(cells: ColumnCells) -> tuple[dict[str, int], dict[str, int], dict[str, int]] | None:
    """Count the words for yes and no in lower case, the markers of missing cells, and the few other texts.

    Returns:
        None if the cells are not such words.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    # A quick test on few cells, which excludes most columns; two words may be spelled in several cases.
    if len(pc.unique(cells.present.slice(0, _SAMPLE))) > _MAX_SPELLINGS:
        return None
    counted = pc.value_counts(pc.utf8_trim_whitespace(cells.present))
    texts, counts = counted.field("values"), np.asarray(counted.field("counts"))
    values, is_marker = raw_columns.to_booleans(texts)
    is_word = ~np.isnan(values)
    words: Counter[str] = Counter()
    for word, count in zip(pc.utf8_lower(texts.filter(pa.array(is_word))).to_pylist(), counts[is_word], strict=True):
        words[word] += int(count)
    if not raw_columns.are_boolean_words(words):
        return None
    is_foreign = ~is_word & ~is_marker
    total = int(counts[~is_marker].sum())
    if is_foreign.any() and (total < _MANY_ROWS or counts[is_word].sum() < _WORD_SHARE * total):
        return None
    markers, foreign = (order_counts(texts.filter(pa.array(each)), counts[each]) for each in (is_marker, is_foreign))
    markers.pop("", None)
    return None if len(foreign) > MAX_FOREIGN else (dict(words.most_common()), markers, foreign)


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the share of yes, and whether any cell is missing."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    values = _read_values(rows, options.yes, options.no, options.missing_cells)
    present = values[~np.isnan(values)]
    if not present.size:
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    flag = bool(np.isnan(values).any())
    width = values.shape[1]
    return Column(
        name=name,
        kind="boolean",
        shape=(width * (2 if flag else 1),),
        dtype="float32",
        raw_shape=() if raw_columns.is_text_column(rows) else tuple(rows.shape[1:]),
        raw_dtype="string" if raw_columns.is_text_column(rows) else "float32",
        state={
            "yes": list(options.yes),
            "no": list(options.no),
            "fill": float(present.mean()),
            "flag": flag,
            **({"missing_cells": list(options.missing_cells)} if options.missing_cells else {}),
            **_count_marked(rows, options),
        },
    )


def _count_marked(rows: Any, options: Options) -> dict[str, Any]:
    """Count the texts that marked a missing cell, if there are any."""
    import pyarrow as pa

    if not raw_columns.is_text_column(rows):
        return {}
    is_missing = raw_columns.to_booleans(rows, options.yes, options.no, options.missing_cells)[1]
    marked = count_markers(rows.filter(pa.array(is_missing)), options.missing_cells)
    return {"marked": marked} if marked else {}


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a cell that is neither yes nor no."""
    _read_values(rows, options.yes, options.no, options.missing_cells)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode cells as 1, 0 or the share of yes, followed by the flags of missing cells; float32 `(rows, channels)`."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    if not raw_columns.is_text_column(rows):
        check_shape(rows, column)
    values = _read_values(rows, column.state["yes"], column.state["no"], column.state.get("missing_cells", ()))
    missing = np.isnan(values)
    encoded = np.where(missing, np.float32(column.state["fill"]), values)  # float32 as in the layer, for equal bits
    return np.concatenate([encoded, missing.astype("float32")], axis=1) if column.state["flag"] else encoded


def build_encoder(column: Column) -> keras.layers.Layer:
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = column.state
    return BooleanEncoder(state["yes"], state["no"], state["fill"], state["flag"])


def build_stacked_encoder(columns: Sequence[Column]) -> keras.layers.Layer:
    """Build one layer that encodes the columns as the channels of one array."""
    from bmcli.layers.boolean_encoder import BooleanEncoder

    state = columns[0].state
    return BooleanEncoder(state["yes"], state["no"], [column.state["fill"] for column in columns])


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded)


def get_traits(column: Column) -> InputTraits:
    return BooleanTraits(column)


class BooleanState(StrictRecord):
    """What is fitted to a column of booleans."""

    yes: tuple[str, ...]
    no: tuple[str, ...]
    fill: float
    flag: bool
    missing_cells: tuple[str, ...] = ()
    marked: dict[str, Count] = Field(default={})


class BooleanRecord(ColumnRecord):
    """A column of booleans."""

    kind: Literal["boolean"]
    dtype: Literal["float32"]
    raw_dtype: Literal["string", "float32"]
    state: BooleanState  # type: ignore[assignment]  # of this kind


class BooleanTraits(InputTraits):
    """Traits of a boolean column."""

    noun = "yes or no"
    record = BooleanRecord
    encoder_file = ENCODERS / "boolean.py"

    @property
    def flags(self) -> int:
        return self.column.shape[0] // 2 if self.column.state["flag"] else 0

    @property
    def stack_key(self) -> Any:
        # Single values without a flag, with the same words.
        state, column = self.column.state, self.column
        return None if state["flag"] or column.raw_shape else (column.raw_dtype, *state["yes"], "", *state["no"])

    @property
    def reading_options(self) -> Mapping[str, Any]:
        named = self.column.state.get("missing_cells")
        return {"missing_cells": tuple(named)} if named else {}

    @property
    def preprocessing(self) -> Preprocessing:
        return "arithmetic" if self.column.raw_dtype == "float32" else "tensorflow"

    @property
    def example(self) -> str:
        return f"{self.column.state['yes'][0]} or {self.column.state['no'][0]}"

    def summarize(self) -> str:
        return f"true in {100 * self.column.state['fill']:.1f} % of the training rows"

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np

        if encoded is not None:
            return 0  # `encode` refuses what is neither yes nor no
        state = self.column.state
        if raw_columns.is_text_column(rows):
            values, missing = raw_columns.to_booleans(rows, state["yes"], state["no"])
            return int(np.count_nonzero(np.isnan(values) & ~missing))
        numbers = np.asarray(rows, "float32").reshape(len(rows), -1)
        is_other = (numbers != 0) & (numbers != 1) & ~np.isnan(numbers)
        return int(np.count_nonzero(is_other.any(axis=1)))

    def count_positions(self) -> int:
        return 3

    def to_positions(self, encoded: Any) -> Any:
        import keras

        # A missing cell is the share of yes, which is neither 0 nor 1.
        first = super().to_positions(encoded)
        missing = keras.ops.logical_and(keras.ops.not_equal(first, 0), keras.ops.not_equal(first, 1))
        return keras.ops.where(missing, 2, keras.ops.cast(first, "int32"))

    def make_example_cell(self) -> Any:
        # One of the random words may be of any language.
        return self.column.state["yes"][0] if self.column.raw_dtype == "string" else super().make_example_cell()

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        state, column = self.column.state, self.column
        if column.raw_dtype == "string":
            return make_object_array(generator.choice([*state["yes"], *state["no"]], count).tolist())
        shape = (count, *(size or 1 for size in column.raw_shape))
        return generator.integers(0, 2, shape).astype(column.raw_dtype)


def _read_values(rows: RawColumn, yes: Any, no: Any, missing_cells: Any) -> np.ndarray:
    """Read cells as 1, 0, or NaN where missing; float32 `(rows, values of a row)`.

    Raises:
        RowFault: A cell is neither yes nor no.
    """
    import numpy as np

    if raw_columns.is_text_column(rows):
        return _read_words(rows, yes, no, missing_cells)
    values = np.asarray(rows, "float32").reshape(len(rows), -1)
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise RowFault(
            row, f"expected 0 or 1, received {raw_columns.format_cell(rows, row)}.", option="Read it as `kind: number`."
        )
    return values


def _read_words(rows: RawColumn, yes: Any, no: Any, missing_cells: Any) -> np.ndarray:
    import numpy as np

    values, missing = raw_columns.to_booleans(rows, yes, no, missing_cells)
    wrong = np.isnan(values) & ~missing
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowFault(
            row,
            f"expected yes or no, received {raw_columns.format_cell(rows, row)}.",
            cell=rows[row].as_py(),
            option="List the words as `yes: [...]` and `no: [...]`.",
        )
    return values[:, np.newaxis]
