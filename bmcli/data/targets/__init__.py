"""Kinds of targets: each is fitted on the training rows, encodes rows, and decodes encoded rows and predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import AfterValidator, Field

from bmcli import canonical, parts, raw_columns
from bmcli.canonical import Spelling, canonicalize, choose_spelling, find_spellings
from bmcli.column_records import StrictRecord, validate_record
from bmcli.errors import BmcliError
from bmcli.inputs import Guess
from bmcli.notation import PLAIN, NumberNotation
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn, RowFault
from bmcli.recipe.fields import fault
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
"""A class that is a number, by which classes are sorted."""

OR_SKIP = ", or list those to learn in `classes` and write `invalid: skip` to leave out the rows of others"
FEW_CLASSES = 20
_MIN_ROWS_PER_CODE = 10
# Items of a list in double quotes, in single quotes, or without; NumPy writes blanks instead of commas.
_LIST_ITEM = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)'|([^\s,'"\[\]][^,'"\[\]]*+))\s*,?\s*""")
_MANY_CLASSES, _MAX_ROWS_PER_CLASS = 50, 1.05  # A column with more classes of fewer rows each is an identifier.


@dataclass(frozen=True)
class TargetGuess:
    """A kind of target that a column may be.

    Args:
        certainty: From 0 to 1. Built-in kinds are at most 0.9 certain, so that a plug-in can be preferred to them.
        why: Description of the cells, for the comments of `bmcli init`.
        options: Options of the kind that `bmcli init` writes.
        obstacle: Reason for which the column cannot be predicted all the same; empty if there is none.
        doubt: What else the cells may be, and what to write then; empty if it is clear.
        inputs: Inputs that the target needs, by name, as it needs them.
    """

    kind: str
    certainty: float
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)
    obstacle: str = ""
    doubt: str = ""
    inputs: Mapping[str, Guess] = field(default_factory=dict)


class TargetKind(Protocol):
    """Interface of the modules of this folder. Unlike inputs, a target must not be missing or unknown."""

    Options: type[TargetOptions]
    OBJECTIVE: str  # kind of the objective that a recipe without one gets
    ONE_CLASS: bool  # whether each row has one of several classes, so that splits can keep their proportions
    State: type[StrictRecord] | None  # state of a fitted column; no other is accepted of an artefact, None accepts any

    def guess(self, profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
        """Recognise a column that `bmcli init` predicts as this kind; None if it is not one.

        Args:
            columns: Cells of all columns, by name.
        """

    def fit(self, name: str, rows: RawColumn, options: Any) -> Column:
        """Fit classes or scale on the training rows.

        Args:
            rows: Cells of the target's column, or records of the columns that its option `columns` lists, or of its
                column and the text that its property `words_of` names. The names of several columns are then in
                `state["columns"]`.

        Raises:
            RowFault: A cell cannot be read as this kind.
            BmcliError: The column cannot be learned, e.g. it has only one class.
        """

    def check(self, rows: RawColumn, options: Any) -> None:
        """Raise RowFault for a cell that is missing or cannot be read as this kind, independently of other rows."""

    def encode(self, rows: RawColumn, column: Column) -> EncodedRows:
        """Encode rows to an array `(rows, *column.shape)` of `column.dtype`; raise RowFault as `fit` does.

        Answers that differ in length, such as tokens or boxes, are filled up to one length with a value that no answer
        has, such as -1, which the objective passes over. Answers that overlap, such as the next hours of a series, may
        be a WindowedArray.
        """

    def decode(self, encoded: np.ndarray, column: Column) -> np.ndarray:
        """Decode rows for evaluation: class indices, 0 and 1 by label, or numbers in the original unit."""

    def index_classes(self, rows: RawColumn, options: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Find the classes or labels of rows, of which training must have each; None for a target without.

        Returns:
            Two arrays of the same length: rows from 0, and the class of each as an integer; a row with several labels
            is there several times. Cells that cannot be read have none.
        """

    def count_classes(self, truth: np.ndarray, column: Column) -> np.ndarray | None:
        """Count the rows of each class or label, `(classes,)`; None for a target without classes.

        Args:
            truth: Decoded rows.
        """


def check_state(column: Column) -> None:
    """Require a state that `fit` can make; that of an artefact may come from anywhere.

    Raises:
        ValueError: A value is missing, or of another type; the message begins with its path in the column.
    """
    record = kind_of(column).State
    if record is not None:
        try:
            validate_record(record, column.state)
        except ValueError as error:
            raise ValueError(f"state.{error}") from None


def kind_of(column: Column) -> TargetKind:
    """Return the module that fitted a column."""
    part: TargetKind = parts.load("data.targets", column.kind)
    return part


def guess_kind(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Return the most certain guess about a column; None if no kind of target can predict it; as `TargetKind.guess`."""
    found = [parts.load("data.targets", kind).guess(profile, columns) for kind in parts.names("data.targets")]
    guesses = [guess for guess in found if guess is not None]
    return max(guesses, key=lambda guess: guess.certainty, default=None)


def has_few_integers(profile: ColumnProfile) -> bool:
    """Whether a column has few distinct integers, each of them many times, so that they may be codes of classes."""
    return profile.is_integer and profile.distinct <= FEW_CLASSES and profile.rows_per_value >= _MIN_ROWS_PER_CODE


def doubt_quantity(profile: ColumnProfile) -> str:
    """Describe the doubt about numbers that are not treated as classes; empty if there is none."""
    if not has_few_integers(profile) or profile.is_array:
        return ""
    return f"if its {profile.distinct} different integers are codes of classes, write {{kind: category}}"


def get_source_columns(column: Column) -> tuple[str, ...]:
    """Return the columns of the source from which a fitted target is read, those of inputs that it needs included."""
    return tuple(column.state.get("columns", (column.name,)))


def _check_unique(value: tuple[str | int, ...]) -> tuple[str | int, ...]:
    names = [str(name) for name in value]
    if len(names) > len(set(names)):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise fault("classes", f"expected different names, received {quoted(twice)} twice.")
    return value


def _check_two_or_more(value: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(value) < 2:
        raise fault("classes", f"expected at least two classes, received {len(value)}.")
    return value


LabelNames = Annotated[tuple[str | int, ...], AfterValidator(_check_unique)]
"""Unique names of classes or labels in the order of their indices."""

ClassNames = Annotated[LabelNames, AfterValidator(_check_two_or_more)]
"""Unique names of at least two classes."""


Normalize = Annotated[
    bool,
    Field(
        description="Read spellings of one class as one: without blanks around it, in Unicode normal form C, and 3.0 "
        "or +3 as 3, also 003 unless other classes are codes such as 01234. `false` compares cells as they are."
    ),
]
"""Option of targets: whether classes are compared in their canonical form, which `bmcli.canonical` defines."""


def resolve_spelling(cells: Any, names: LabelNames | None, normalize: bool) -> Spelling:
    """Choose how classes are read: by the names in a recipe, or else by the cells of the training rows."""
    import pyarrow as pa

    texts = (
        raw_columns.to_texts(cells, fractions=True)
        if names is None
        else pa.array([str(each) for each in names], pa.string())
    )
    return choose_spelling(texts, normalize)


def match_class(name: str, column: Column) -> str | None:
    """Find the class of a fitted target that a recipe names, also in another case if only one fits; None if none."""
    exact = name_to_class(name, get_spelling(column))
    if exact in column.classes:
        return exact
    folded = [each for each in column.classes if each.casefold() == exact.casefold()]
    return folded[0] if len(folded) == 1 else None


def get_spelling(column: Column) -> Spelling:
    """Return how the classes of a fitted target are read."""
    spelling: Spelling = column.state.get("spelling", "raw")
    return spelling


def names_to_text(names: LabelNames | None, spelling: Spelling) -> tuple[str, ...] | None:
    """Convert names of a recipe to the text of classes, integers to their decimal digits."""
    return None if names is None else tuple(name_to_class(each, spelling) for each in names)


def name_to_class(name: str | int, spelling: Spelling) -> str:
    """Convert the name of a class in a recipe to the canonical form of the classes; "" if it has none."""
    import pyarrow as pa

    return canonicalize(pa.array([str(name)], pa.string()), spelling)[0].as_py() or ""


def check_names(name: str, names: Sequence[str]) -> None:
    """Raise BmcliError if two names in the option `classes` of a target are spellings of one class."""
    twice = next((each for position, each in enumerate(names) if each in names[:position]), None)
    if twice is not None:
        raise BmcliError(
            f"target {quoted(name)}: two names are spellings of the class {quoted(twice)}.",
            path=f"data.targets.{name}.classes",
            suggestion="Remove one, or write `normalize: false` to keep them apart.",
        )


def find_classes(name: str, rows: RawColumn, spelling: Spelling) -> tuple[str, ...]:
    """Find the classes of the training rows, sorted: numbers by value, text alphabetically.

    Raises:
        BmcliError: There is only one class, or nearly as many as rows.
    """
    classes = raw_columns.build_vocabulary(raw_columns.to_texts(rows, fractions=True), spelling)
    if all(map(NUMBER.fullmatch, classes)):
        classes = tuple(sorted(classes, key=lambda text: (float(text), text)))
    if len(classes) >= _MANY_CLASSES and len(rows) < len(classes) * _MAX_ROWS_PER_CLASS:
        raise BmcliError(
            f"target {quoted(name)}: nearly every training row has a different class, such as "
            f"{raw_columns.format_cell(rows, 0)}, so no class can be learned.",
            path=f"data.targets.{name}",
            suggestion="Name another column, or predict a number: `kind: number`.",
        )
    if len(classes) == 1:
        raise BmcliError(
            f"target {quoted(name)}: every training row has the class {quoted(classes[0])}, so there is "
            "nothing to learn.",
            path=f"data.targets.{name}",
        )
    return classes


def make_class_column(name: str, kind: str, rows: RawColumn, classes: tuple[str, ...], spelling: Spelling) -> Column:
    """Make the column of a target with one class a row.

    Raises:
        RowFault: A class is missing or unknown.
        BmcliError: Two classes are spellings of one.
    """
    import numpy as np

    check_names(name, classes)
    indices = lookup_classes(rows, classes, spelling)
    return Column(
        name=name,
        kind=kind,
        shape=(),
        dtype="int32",
        raw_dtype="string" if raw_columns.is_text_column(rows) else "int64",
        classes=classes,
        state=spelling_to_state(raw_columns.to_texts(rows, fractions=True), spelling),
        class_counts=tuple(np.bincount(indices, minlength=len(classes)).tolist()),
    )


class ClassState(StrictRecord):
    """How the classes of a target are written."""

    spelling: Spelling = "raw"
    spellings: dict[str, tuple[str, ...]] = Field(default={})


def spelling_to_state(cells: Any, spelling: Spelling) -> dict[str, Any]:
    """Make the state of a target by which `get_spelling` and `describe_spellings` know how its classes are written.

    Args:
        cells: Texts of the training rows.
    """
    spellings = find_spellings(cells, spelling)
    return {**({} if spelling == "raw" else {"spelling": spelling}), **({"spellings": spellings} if spellings else {})}


def describe_cells(rows: RawColumn) -> tuple[str, ...]:
    """Describe the classes of rows as `describe_spellings` does, before a target is fitted on them."""
    cells = raw_columns.to_texts(rows, fractions=True)
    spelling = choose_spelling(cells, normalize=True)
    names = raw_columns.build_vocabulary(cells, spelling)
    return tuple(canonical.describe_spellings(find_spellings(cells, spelling), names))


def describe_spellings(column: Column) -> tuple[str, ...]:
    """Describe classes that the training rows write in several ways, or that differ only by case."""
    return tuple(canonical.describe_spellings(column.state.get("spellings", {}), column.classes))


def check_classes(rows: RawColumn, names: LabelNames | None, normalize: bool) -> None:
    """Raise RowFault for a missing class, or one that is not among `names`; None allows every class."""
    rows = raw_columns.to_texts(rows, fractions=True)
    spelling = resolve_spelling(rows, names, normalize)
    lookup_classes(rows, names_to_text(names, spelling) or raw_columns.build_vocabulary(rows, spelling), spelling)


def lookup_classes(rows: RawColumn, classes: tuple[str, ...], spelling: Spelling) -> np.ndarray:
    """Return the index of every row's class in `classes`, int32 `(rows,)`.

    Raises:
        RowFault: A class is missing or unknown.
    """
    import numpy as np

    rows = raw_columns.to_texts(rows, fractions=True)
    indices = raw_columns.lookup_indices(rows, classes, spelling)
    if (indices < 0).any():
        row = int(np.argmax(indices < 0))
        if indices[row] == raw_columns.MISSING:
            raise RowFault(row, "expected a class, received nothing.", "Remove the row, or fill in its class.")
        hint = parts.did_you_mean(rows[row].as_py(), classes)
        cell = raw_columns.format_cell(rows, row)
        message = f"expected a class of the training rows, received {cell}."
        raise RowFault(row, message, hint, option=f"Put a row of this class into the training rows{OR_SKIP}.")
    return indices


def index_one_class(rows: RawColumn) -> tuple[np.ndarray, np.ndarray]:
    """Find the class of each row, as `TargetKind.index_classes` does."""
    import numpy as np

    return np.arange(len(rows)), raw_columns.encode_categories(rows)


def count_indices(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows of each class, from class indices."""
    import numpy as np

    return np.bincount(truth, minlength=len(column.classes))


def require_numbers(rows: RawColumn, notation: NumberNotation = PLAIN) -> np.ndarray:
    """Read one finite number a row, `(rows,)`.

    Args:
        notation: How the numbers of a column of text are written.

    Raises:
        RowFault: A cell is missing or not a number, or a row holds several numbers.
    """
    import numpy as np

    values = raw_columns.to_numbers(rows, notation)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise RowFault(0, f"expected one number a row, received an array of shape {values.shape[1:]}.")
    missing = np.isnan(values)
    if missing.any():
        row = int(np.argmax(missing))
        cell = raw_columns.format_cell(rows, row) if raw_columns.is_text_column(rows) else "nothing"
        received = cell if cell == "nothing" else f"{cell}, which marks a missing value"
        raise RowFault(
            row, f"expected a number, received {received}.", "Remove the row, or fill in its number.",
            option="Write `invalid: skip` to leave out all rows without a number.",
        )  # fmt: skip
    return values


def read_notation(column: Column) -> NumberNotation:
    """Return how the numbers of a fitted target are written."""
    return NumberNotation(**column.state.get("notation", {}))


def describe_numbers(profile: ColumnProfile) -> tuple[dict[str, str], str]:
    """Return the options by which `bmcli init` reads the numbers of a column, and the reason for them."""
    written = profile.written
    if written is None:
        return {}, ""
    options = written.notation.to_options()
    reasons = [f"written as {quoted(written.example)}"] if options else []
    reasons += [written.doubt] if written.doubt else []
    return options, "".join(f"; {reason}" for reason in reasons)


def parse_list(text: str) -> list[str] | None:
    """Parse a list as JSON, Python or NumPy write it; None for another text, `[""]` for an empty list."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner, position, items = text[1:-1].strip(), 0, list[str]()
    while position < len(inner):
        item = _LIST_ITEM.match(inner, position)
        if item is None:
            return None
        items.append(_unescape_item(item))
        position = item.end()
    return items or [""]


def _unescape_item(item: re.Match[str]) -> str:
    """Return the text of an item of a list, without quotes and escapes."""
    double, single, bare = item.groups()
    if double is not None:
        try:
            return str(json.loads(f'"{double}"', strict=False))
        except ValueError:
            return re.sub(r"\\(.)", r"\1", double)
    return bare if single is None else re.sub(r"\\(.)", r"\1", single)
