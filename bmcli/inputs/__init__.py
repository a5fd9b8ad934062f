"""Kinds of inputs: each is fitted on the training rows, encodes rows to arrays, and does the same inside a model.

A kind has three functions on the same fitted state, which must agree:

- `encode` turns raw rows into an array on disk (NumPy, once per data set);
- `build_encoder` makes a Keras layer with the same result on raw inputs, for serving;
- `build_feature` turns encoded tensors into features inside the model (casting, scaling, one-hot, embedding).

Beside these it has a function that recognises columns of its kind, for `bmcli init`, and one that returns the traits
of a fitted column. Other rooms never compare kinds: whatever depends on a kind is in its traits.

The inputs of a served model are strings for text, and for categories, dates and booleans that are text in the source;
"" is a missing cell. The other inputs are numbers; NaN is a missing cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from bmcli import parts
from bmcli.column_records import ColumnRecord, validate_record
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.raw_columns import ColumnCells, RawColumn, is_file_column, is_text_column, to_numbers, to_texts
from bmcli.recipe.inputs import InputOptions
from bmcli.specs import MANY_COLUMNS, Column, DataSpec
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bmcli.tokenization.base import Tokenizer

Form = Literal["vector", "steps", "map"]
"""Form of a feature: `(batch, width)`, `(batch, steps, width)` or `(batch, height, width, channels)`."""

Preprocessing = Literal["arithmetic", "picture", "lookup", "tensorflow"]
"""Operations from raw cells to encoded ones: float32 arithmetic, which every format has; resizing of arrays of pixels;
the lookup of texts or integers among `InputTraits.lookup_keys`; or any others of TensorFlow."""

ENCODERS = Path(__file__).parents[1] / "encoder"
"""Folder of the encoders of built-in kinds; see `InputTraits.encoder_file`."""

Baseline = Literal["mean", "zero_feature", "zero_cell"]
"""Baseline of integrated gradients: the mean feature, a feature of zeros, or that of an encoded cell of zeros."""


@dataclass(frozen=True)
class Feature:
    """An input as features inside a model.

    Args:
        tensor: Floating point, `(batch, ...)`: vectors `(batch, features)`, sequences
            `(batch, steps, channels)`, images `(batch, height, width, channels)`.
        mask: Boolean `(batch, steps)`, false where a step is padding; None if there is no padding.
        embedding: For a sequence of tokens that can be written, the matrix by which they are embedded,
            `(tokens, channels)`.
    """

    column: Column
    tensor: Any
    mask: Any = None
    embedding: Any = None


@dataclass(frozen=True)
class Guess:
    """A kind of input that a column may be.

    Args:
        certainty: From 0 to 1. Built-in kinds are at most 0.9 certain, so that a plug-in can be preferred to them.
        why: Description of the cells, for the comments of `bmcli init`.
        options: Options of the kind that `bmcli init` writes.
        needs_options: Whether the column is of the kind with these options only; a recipe that does not name its inputs
            takes them with the kind.
        obstacle: Reason for which `bmcli init` drops the column all the same; empty if there is none.
        form: Form of the features, by which `bmcli init` chooses a family.
        is_wide: Whether the features are wide vectors.
        is_categorical: Whether each cell is one of few values, which must repeat to be useful.
        time_formats: Date formats of the cells, if each cell is a day or a time by which rows can be split.
        foreign: Counts of the few distinct cells that the kind cannot read, which `bmcli init` writes as the option
            `missing_cells`. A recipe that does not name them refuses them.
        warning: What a person should look at before training, in one sentence; empty if there is nothing.
        doubt: What else the cells may mean, for the user to decide; empty if nothing else.
    """

    kind: str
    certainty: float
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_options: bool = False
    obstacle: str = ""
    form: Form = "vector"
    is_wide: bool = False
    is_categorical: bool = False
    time_formats: tuple[str, ...] = ()
    foreign: Mapping[str, int] = field(default_factory=dict)
    warning: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class TokenSummary:
    """How texts are read as tokens, for a plan.

    Args:
        tokens: Description of the tokens, such as `8,000 words`.
        length: Number of tokens of a text that are read.
        unknown_share: Share of the tokens of the training rows that are unknown.
        cut_share: Share of their tokens behind `length`.
        samples: Tokens of some training rows, as a person reads them.
    """

    tokens: str
    length: int
    unknown_share: float
    cut_share: float
    samples: tuple[tuple[str, ...], ...]


class EdgeCell(NamedTuple):
    """An unusual cell, by which exported models are verified.

    Args:
        description: As in `a missing value`.
        cell: Input of a served model, `(1, ...)`.
        is_resized: Whether it is a picture of another size than those of the data.
    """

    description: str
    cell: np.ndarray
    is_resized: bool = False


class InputTraits:
    """Properties of a fitted column, by which other rooms treat it; a kind overrides those that differ.

    The defaults suit numbers or texts, one a row, whose preprocessing needs TensorFlow.
    """

    display: ClassVar[Literal["value", "picture", "text"]] = "value"
    """How a cell is shown to a person: as its raw value, as a picture by `draw`, or as a text by `attribute_terms`."""

    noun: ClassVar[str] = ""
    """Description of a cell, such as `a number`; by default the kind."""

    baseline: ClassVar[Baseline] = "mean"

    record: ClassVar[type[ColumnRecord]] = ColumnRecord
    """Fields of a column, which alone are accepted of an artefact."""

    derived_state: ClassVar[tuple[str, ...]] = ()
    """Names of all that `derive_state` may return."""

    def __init__(self, column: Column) -> None:
        self.column = column

    @property
    def form(self) -> Form:
        """Form of its feature."""
        forms: tuple[Form, ...] = ("vector", "vector", "steps", "map")
        return forms[min(len(self.column.shape), 3)]

    @property
    def is_number(self) -> bool:
        """Whether its features are numbers on a scale, to which noise can be added: no bins, dates or categories."""
        return False

    @property
    def flags(self) -> int:
        """Number of its last channels that only flag missing cells."""
        return 0

    @property
    def passes_missing(self) -> bool:
        """Whether missing cells reach the network as NaN."""
        return False

    @property
    def sequence_option(self) -> str:
        """Option by which its feature would become a sequence, such as `encoding: sequence`; empty if none."""
        return ""

    @property
    def written_tokens(self) -> Tokenizer | None:
        """Tokenizer of a text that a model can write, whose ids have a token before the first one; None for others."""
        return None

    @property
    def masked_tokens(self) -> Tokenizer | None:
        """Tokenizer of a text whose ids may be replaced by its `mask`; None for other inputs."""
        return None

    @property
    def cut_share(self) -> float:
        """Share of the steps of the training rows that are cut off, since they are longer than what is read."""
        return 0.0

    @property
    def has_words(self) -> bool:
        """Whether its steps are the words of a text, which are what is between blanks."""
        return False

    @property
    def reading_options(self) -> Mapping[str, Any]:
        """Options of a recipe by which cells are read as those of the training rows were."""
        return {}

    @property
    def marked_cells(self) -> Mapping[str, int]:
        """Counts of the training cells with a text that marks a missing value, such as NULL."""
        marked: Mapping[str, int] = self.column.state.get("marked", {})
        return marked

    # Descriptions.

    def describe_cells(self) -> str:
        """Describe the cells that a served model takes, for its card."""
        missing = '"" is missing' if self.column.raw_dtype == "string" else "NaN is missing"
        return f"{self.noun or self.column.kind}; {missing}"

    @property
    def example(self) -> str:
        """A value as the training rows write it, for a person who corrects a cell; empty if that is of no help."""
        return ""

    def describe_outside_cells(self) -> str:
        """Describe the cells that `bmcli.encoder` takes, where the preprocessing is outside of a model."""
        return self.describe_cells()

    def summarize(self) -> str | None:
        """Summarise the content of the training rows, for the report; None for the range of its numbers."""
        return None

    def describe_flaw(self, encoded: np.ndarray) -> str:
        """Describe what hinders learning in encoded cells of training rows, in one sentence; empty if nothing does.

        Args:
            encoded: Some rows, `(rows, ...)`.
        """
        return ""

    def count_categories(self) -> int:
        """Count the categories of which each cell is one; 0 for a column without."""
        return 0

    def describe_spellings(self) -> tuple[str, ...]:
        """Describe categories that the training rows write in several ways, or that differ only by case."""
        return ()

    # Cells that the training rows do not prepare a model for.

    @property
    def unseen_share(self) -> float:
        """Share of the training rows that `count_unseen` counts, such as those of categories that are too rare."""
        return float(self.column.state.get("unseen_share", 0.0))

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        """Count the rows whose cells are unlike those of the training rows; 0 for a kind that does not know.

        These are unknown categories, texts without a known term, numbers and dates far outside of the range of the
        training rows, and cells that a served model cannot read and takes as missing.

        Args:
            rows: Cells that can be read by `encode`, or by `to_serving_array`.
            encoded: The result of `encode`; None where a served model encodes the cells itself.
        """
        return 0

    # Display of a cell.

    def draw(self, encoded: np.ndarray) -> np.ndarray:
        """Draw an encoded cell as pixels `(height, width, 1 or 3)` from 0 to 1, where `display` is `picture`."""
        raise NotImplementedError

    def attribute_terms(self, encoded: np.ndarray, contributions: np.ndarray) -> Sequence[tuple[str, float]]:
        """Pair the terms of an encoded cell with their contributions, where `display` is `text`; empty if it has none.

        Args:
            contributions: Of the feature of the cell, in its shape.
        """
        return ()

    def summarize_tokens(self, encoded: np.ndarray) -> TokenSummary | None:
        """Summarise how texts are read as tokens; None for cells that are no texts.

        Args:
            encoded: Some training rows, which become the samples.
        """
        return None

    # Augmentation and distillation.

    def to_unit_range(self, encoded: Any) -> Any:
        """Convert encoded cells `(examples, ...)` to the values that augmentations change."""
        return encoded

    def from_unit_range(self, values: Any) -> Any:
        """Undo `to_unit_range`."""
        return values

    def build_conversion(self, other: Column) -> Callable[[Any], Any] | None:
        """Build the conversion of encoded cells to those of another column of the same raw cells; None if none."""
        return None

    # Crosses.

    def count_positions(self) -> int | None:
        """Count the values of an encoded cell, including those of missing and unknown cells; None if not countable."""
        return None

    def to_positions(self, encoded: Any) -> Any:
        """Convert encoded cells of one value to integers from 0, `(batch,)`."""
        # A flag of missing cells is in the second channel.
        return encoded if len(encoded.shape) == 1 else encoded[:, 0]

    # Columns that are computed together: see `StackableKind`.

    @property
    def stack_key(self) -> Any:
        """Key of the columns that one layer can encode together; None for a column that is encoded alone."""
        return None

    @property
    def feature_stack_key(self) -> Any:
        """Key of the columns that can become one feature, where separate ones need an operation each; None if none."""
        return None

    # Raw cells of served models.

    def to_serving_array(self, rows: RawColumn) -> np.ndarray:
        """Convert cells to the input of a served model; see `bmcli.inputs.to_serving_array`."""
        import numpy as np

        column = self.column
        if is_file_column(rows):
            is_missing = rows.missing()
            return np.array([b"" if is_missing[row] else rows.read(row) for row in range(len(rows))], object)
        if column.raw_dtype == "string":
            cells: Any = rows if is_text_column(rows) else to_texts(rows)
            # Objects and not NumPy strings, whose width would be that of the longest text for every row.
            return np.array(cells.fill_null("").to_pylist(), object)
        values = self.read_array(rows)
        if tuple(values.shape[1:]) != column.raw_shape:
            check_shape(values, column)
        return values.astype(column.raw_dtype)

    def read_array(self, rows: RawColumn) -> np.ndarray:
        """Read cells that a served model takes as an array; raise RowFault for one that is not a number."""
        return to_numbers(rows)

    def make_missing_cell(self, cell: np.ndarray) -> np.ndarray | None:
        """Make a missing cell, `(1, ...)`; None if the column has no missing value.

        Args:
            cell: Another cell.
        """
        if self.column.raw_dtype == "string":
            return make_object_array([""])
        return cell * float("nan") if self.column.raw_dtype.startswith("float") else None

    def make_edge_cells(self, cell: np.ndarray) -> Iterator[EdgeCell]:
        """Make further unusual cells, by which exported models are verified.

        Args:
            cell: A usual cell, `(1, ...)`.
        """
        yield from ()

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Make random cells that resemble the training rows, `(count, ...)`, for benchmarks."""
        if self.column.raw_dtype == "string":
            return make_object_array([""] * count)
        shape = (count, *(size or 1 for size in self.column.raw_shape))
        return generator.normal(size=shape).astype(self.column.raw_dtype)

    def make_example_cell(self) -> Any:
        """Make a cell that a served model takes, as a person may write it, for the example of a card.

        It is a text, bytes, a number or an array, and is not taken from the data.
        """
        import numpy as np

        cells = self.make_random_cells(1, np.random.default_rng(0))
        return cells[0]

    # Exported models.

    @property
    def encoder_file(self) -> Path | None:
        """Python file that encodes its cells beside an artefact of a format that lacks its preprocessing.

        It imports NumPy alone, and is copied. Its function `encode(column, cells)` takes the column as in
        `preprocessing.json`, and the cells of a served model. None, the default, without such a file.
        """
        return None

    @property
    def modules(self) -> tuple[str, ...]:
        """Python modules beside TensorFlow whose operations its encoder has in a graph."""
        return ()

    @property
    def preprocessing(self) -> Preprocessing:
        """Operations that a format needs to hold its preprocessing."""
        return "tensorflow"

    @property
    def lookup_keys(self) -> tuple[str, ...]:
        """Texts or integers whose index is the encoded cell; with n keys, n is a missing cell, n + 1 an unknown one."""
        return ()

    @property
    def open_shape(self) -> tuple[int | None, ...]:
        """Shape of a raw cell, with None for the sizes that its preprocessing adapts."""
        return self.column.raw_shape

    @property
    def file_formats(self) -> str:
        """Formats of the files that its cells are, such as `JPEG or PNG`; empty for cells that are values."""
        return ""

    @property
    def accepts_files(self) -> bool:
        """Whether a served model can take files by `build_file_encoder` instead of its arrays."""
        return False

    def build_file_encoder(self) -> keras.layers.Layer:
        """Build the layer from the bytes of files, `(batch,)`, to encoded cells, where `accepts_files` is true."""
        raise NotImplementedError

    def check_state(self) -> None:
        """Require a state that `fit` can make; that of an artefact may come from anywhere.

        By default by `record`.

        Raises:
            ValueError: A value is missing, or of another type; the message begins with its path in the column.
        """
        validate_record(self.record, asdict(self.column))

    def derive_state(self) -> Mapping[str, Any]:
        """Derive what `bmcli.encoder` needs beside the state of the column, as plain JSON values."""
        return {}


def widen_range(low: Any, high: Any) -> tuple[Any, Any]:
    """Widen the range of the training rows by its own width on both sides: what lies outside counts as unseen."""
    return low - (high - low), high + (high - low)


def make_object_array(cells: Sequence[str | bytes]) -> np.ndarray:
    """Make an array of texts or bytes as a served model takes them, dtype object."""
    import numpy as np

    return np.array(cells, object)


class InputKind(Protocol):
    """Interface of the modules of this folder."""

    Options: type[InputOptions]

    def guess(self, cells: ColumnCells) -> Guess | None:
        """Return how certain it is that a column is of this kind, and with which options; None if it cannot be."""

    def fit(self, name: str, rows: RawColumn, options: Any) -> Column:
        """Fit a column on the training rows.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column cannot be used, e.g. it has no values.
        """

    def check(self, rows: RawColumn, options: Any) -> None:
        """Raise RowFault for a cell that cannot be read as this kind, independently of other rows."""

    def encode(self, rows: RawColumn, column: Column) -> EncodedRows:
        """Encode rows to an array `(rows, *column.shape)` of `column.dtype`; raise as `fit` does.

        A kind whose rows overlap, such as those of a series, returns a WindowedArray of the same shape and dtype.
        """

    def build_encoder(self, column: Column) -> keras.layers.Layer:
        """Build the layer from raw rows, `(batch, *raw_shape)` of `raw_dtype`, to the result of `encode`."""

    def build_feature(self, column: Column, encoded: Any) -> Feature:
        """Turn the encoded tensor into floating-point features, inside the trained model."""

    def get_traits(self, column: Column) -> InputTraits:
        """Return the properties of a fitted column by which other rooms treat it."""


class DerivedKind(InputKind, Protocol):
    """Interface of a module whose cells are made of all rows of a source, such as the past values of a column.

    `Options.reads` names the columns. The name of the input is no column; `fit`, `encode` and a served model take what
    `derive` returns. `check` takes the cells of the first column.
    """

    def derive(self, columns: Sequence[RawColumn], options: Any, times: np.ndarray | None) -> RawColumn:
        """Make the cells of all rows from columns in the order of the source: an array `(rows, ...)`, or windows.

        Splits are cut out of the result, so that the past of their first rows is in other splits. A row must not hold
        what is known only after its answer.

        Args:
            columns: Those that `Options.reads` names, of all rows.
            times: Of the rows, `(rows,)`, if the recipe splits by time: rows in another order are to be refused.

        Raises:
            RowFault: A cell cannot be read, or the order of the rows is wrong.
        """


def kind_of(column: Column) -> InputKind:
    """Return the module that fitted a column."""
    part: InputKind = parts.load("inputs", column.kind)
    return part


_CROSS = "cross"  # not the kind of an input: a cross is computed from inputs inside the network


def get_traits(column: Column) -> InputTraits:
    """Return the traits of an input, or of one of `DataSpec.crosses`, which has those of any vector."""
    return InputTraits(column) if column.kind == _CROSS else kind_of(column).get_traits(column)


def guess_kinds(cells: ColumnCells, kinds: Iterable[str]) -> tuple[Guess, ...]:
    """Return the guesses of some kinds about a column, the most certain first."""
    found = [parts.load("inputs", kind).guess(cells) for kind in kinds]
    return tuple(sorted((guess for guess in found if guess is not None), key=lambda guess: -guess.certainty))


def build_cross(
    name: str, columns: Sequence[Column], sizes: Sequence[int], buckets: int, dimension: int | None
) -> Column:
    """Build the column of a cross.

    Args:
        sizes: Number of positions of each column.
        buckets: Number of hash buckets of the combinations.
        dimension: Width of their embedding; None for one-hot vectors.
    """
    state = {
        "columns": [column.name for column in columns], "sizes": list(sizes), "buckets": buckets, "dimension": dimension
    }  # fmt: skip
    return Column(name, _CROSS, (), "int32", state=state)


def build_cross_feature(cross: Column, spec: DataSpec, encoded: Mapping[str, Any]) -> Feature:
    """Build the feature of a cross, one-hot or as an embedding of the combination of categories.

    Args:
        cross: One of `DataSpec.crosses`.
        encoded: Encoded tensors by column.
    """
    import keras

    from bmcli.layers.cross import Cross

    state = cross.state
    layer = Cross(state["sizes"], state["buckets"])
    combined = layer([get_traits(spec.input(name)).to_positions(encoded[name]) for name in state["columns"]])
    if state["dimension"]:
        return Feature(cross, keras.layers.Embedding(layer.width, state["dimension"])(combined))
    return Feature(cross, keras.ops.one_hot(combined, layer.width))


NETWORK_NAME = "network"
"""Name of the trained network inside a served one. No input has it: Keras cannot save a model that contains another one
with the name of an input."""


BACKBONE_NAME = "backbone"
"""Name of the part of a saved network before its heads. No input has it, for the same reason."""


def make_tensor_names(columns: Iterable[Column]) -> dict[str, str]:
    """Make unique names of Keras inputs by column, with the characters that a SavedModel's signature allows."""
    return make_unique_names((column.name for column in columns), (NETWORK_NAME, BACKBONE_NAME))


def make_unique_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Make names that are allowed in TensorFlow, of which none is another or a taken one."""
    unique: dict[str, str] = {}
    taken = set(taken)
    for original in names:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", original)
        name = plain if plain[:1].isalnum() else f"column_{plain}"  # Names in TensorFlow begin with a letter or digit.
        while name in taken:
            name += "_"
        unique[original] = name
        taken.add(name)
    return unique


def build_serving_inputs(spec: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build Keras inputs of raw rows, and from them the encoded inputs of a network, both by column.

    `keras.Model(raw, network(encoded))` is the served model. Keras warns if an input's name differs from its column's.
    """
    import keras

    names = make_tensor_names(spec.inputs)
    raw = {
        column.name: keras.Input(column.raw_shape, dtype=column.raw_dtype, name=names[column.name])
        for column in spec.inputs
    }
    return raw, {name: tensor for each in build_encoders(spec.inputs) for name, tensor in each(raw).items()}


@dataclass(frozen=True)
class Encoder:
    """A layer that encodes one column, or several stacked columns at once."""

    columns: tuple[Column, ...]
    layer: Any

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Encode raw tensors; both are by column."""
        if len(self.columns) == 1:
            return {self.columns[0].name: self.layer(raw[self.columns[0].name])}
        encoded = self.layer([raw[column.name] for column in self.columns])
        return {column.name: tensor for column, tensor in zip(self.columns, encoded, strict=True)}


def build_encoders(columns: Sequence[Column]) -> list[Encoder]:
    """Build the layers that encode columns.

    From `MANY_COLUMNS` on, stackable columns share a layer, because each layer takes time whenever a model is built.
    """
    return [
        Encoder(
            tuple(group),
            kind_of(group[0]).build_encoder(group[0])
            if len(group) == 1
            else _load_stackable(group).build_stacked_encoder(group),
        )
        for group in _group_stackable(columns, lambda traits: traits.stack_key)
    ]


def build_features(columns: Sequence[Column], encoded: Mapping[str, Any], stacked: bool) -> list[Feature]:
    """Build the features of columns.

    Args:
        encoded: Encoded tensors by column.
        stacked: Join stackable columns to one feature, from `MANY_COLUMNS` on.
    """
    features = []
    groups = _group_stackable(columns, lambda traits: traits.feature_stack_key) if stacked else [[c] for c in columns]
    for group in groups:
        tensors = [encoded[column.name] for column in group]
        if len(group) == 1:
            features.append(kind_of(group[0]).build_feature(group[0], tensors[0]))
        else:
            features.append(_load_stackable(group).build_stacked_feature(group, tensors))
    return features


def _group_stackable(columns: Sequence[Column], get_key: Callable[[InputTraits], Any]) -> list[list[Column]]:
    """Group columns that are computed together, in the order of their first column.

    Args:
        get_key: Returns the key of the columns of one group; None for a column that is computed alone.
    """
    groups: dict[Any, list[Column]] = {}
    for position, column in enumerate(columns):
        key = get_key(get_traits(column)) if len(columns) >= MANY_COLUMNS else None
        groups.setdefault(position if key is None else (column.kind, key), []).append(column)
    return list(groups.values())


class StackableKind(Protocol):
    """Additional functions of a kind whose traits have a `stack_key` or a `feature_stack_key`."""

    def build_stacked_encoder(self, columns: Sequence[Column]) -> keras.layers.Layer:
        """Build a layer from the list of raw tensors to the list of the results of `encode`."""

    def build_stacked_feature(self, columns: Sequence[Column], encoded: Sequence[Any]) -> Feature:
        """Build one feature of all columns."""


def _load_stackable(columns: Sequence[Column]) -> StackableKind:
    part: StackableKind = parts.load("inputs", columns[0].kind)
    return part


def to_serving_array(rows: RawColumn, column: Column) -> np.ndarray:
    """Convert cells to the input of a served model, `(rows, *raw_shape)` of `raw_dtype`.

    Text and bytes of files have dtype object, `""` where missing.

    Raises:
        RowFault: A cell is not a number, or a file cannot be read.
        BmcliError: The cells have another shape than those on which the column was fitted.
    """
    return get_traits(column).to_serving_array(rows)


def check_shape(rows: np.ndarray, column: Column) -> None:
    """Raise BmcliError unless the rows have the shape on which the column was fitted."""
    received = tuple(rows.shape[1:])
    if received != column.raw_shape:
        raise BmcliError(
            f"column {quoted(column.name)}: expected rows of shape {column.raw_shape}, received {received}."
        )
