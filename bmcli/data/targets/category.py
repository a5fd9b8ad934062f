"""Classification target: one class a row, text or numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import parts
from bmcli.data.targets import (
    FEW_CLASSES,
    ClassNames,
    ClassState,
    Normalize,
    TargetGuess,
    check_classes,
    count_indices,
    find_classes,
    get_spelling,
    has_few_integers,
    index_one_class,
    lookup_classes,
    make_class_column,
    names_to_text,
    resolve_spelling,
)
from bmcli.errors import BmcliError
from bmcli.notation import list_counts
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "classification"
ONE_CLASS = True
State = ClassState

# Words of column names whose integers are codes of classes, and those whose integers are quantities.
_CODE_WORDS = (
    "category", "class", "cluster", "code", "diagnosis", "grade", "group", "kind", "label", "level", "quality",
    "rating", "segment", "species", "stage", "star", "stars", "state", "status", "type",
)  # fmt: skip
_QUANTITY_WORDS = (
    "age", "amount", "bathrooms", "bedrooms", "beds", "children", "clicks", "count", "counts", "days", "events",
    "freq", "frequency", "goals", "hours", "items", "months", "n", "num", "number", "orders", "people",
    "persons", "points", "price", "purchases", "qty", "quantity", "rings", "rooms", "sales", "total", "units",
    "views", "visits", "years",
)  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MAX_CODES = 10  # integers with gaps, in a column whose name gives no hint


class Options(TargetOptions):
    """One class per row."""

    kind: Literal["category"] = "category"
    classes: ClassNames | None = Field(
        default=None,
        description="All classes in the order of their indices; by default the sorted classes of the training rows.",
    )
    normalize: Normalize = True


def guess(profile: ColumnProfile, columns: Mapping[str, RawColumn]) -> TargetGuess | None:
    """Recognise texts, two numbers, and few integers that are codes of classes."""
    if profile.is_array or profile.is_encoded:
        return None
    if profile.is_number:
        # Words such as unknown are classes, too, where the source does not list them under `missing`.
        words = profile.written.markers if profile.written is not None else {}
        others = f", and so is {list_counts(words)}" if words else ""
        if profile.distinct == 2:
            return TargetGuess("category", 0.7, f"its 2 numbers are treated as classes{others}")
        if not _are_codes(profile):
            return None
        why = f"its {profile.distinct} integers are treated as classes{others}"
        return TargetGuess(
            "category", 0.7, why, doubt="if they are quantities and not codes, write {kind: number} or {kind: count}"
        )
    obstacle = ""
    if profile.rows_per_value < 2 and profile.distinct > FEW_CLASSES:
        obstacle = (
            f"has {profile.distinct:,} different texts in {profile.present:,} rows: these are not classes, and no kind "
            "of target generates text."
        )
    why = f"{profile.distinct} classes, the most frequent {profile.top_share:.1%} of the rows"
    doubt = "they are spellings of yes and no, so write each of the two in one way"
    has_spellings = profile.is_boolean and len({text.lower() for text in profile.samples}) > 2
    return TargetGuess("category", 0.5, why, obstacle=obstacle, doubt=doubt if has_spellings else "")


def _are_codes(profile: ColumnProfile) -> bool:
    """Whether numbers are codes of classes: few integers, each of them many times, that do not look like quantities.

    The name decides if it can. Otherwise, codes are consecutive, or they begin with 1 and leave out some: counts begin
    with 0 and have gaps only where they are large and rare.
    """
    words = {word.lower() for word in _WORD.findall(profile.name)}
    if not has_few_integers(profile):
        return False
    if not words.isdisjoint((*_CODE_WORDS, *_QUANTITY_WORDS)):
        return words.isdisjoint(_QUANTITY_WORDS)
    gaps = profile.maximum - profile.minimum + 1 - profile.distinct
    return gaps == 0 or (profile.minimum == 1 and profile.distinct <= _MAX_CODES and gaps <= profile.distinct)


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the classes of the training rows, in the order of the options or sorted."""
    spelling = resolve_spelling(rows, options.classes, options.normalize)
    present = find_classes(name, rows, spelling)
    classes = names_to_text(options.classes, spelling) or present
    column = make_class_column(name, "category", rows, classes, spelling)
    if unseen := sorted(set(classes) - set(present)):
        raise BmcliError(
            f"target {quoted(name)}: no training row has the class {quoted(unseen[0])}.",
            path=f"data.targets.{name}.classes",
            suggestion=parts.did_you_mean(unseen[0], set(present) - set(classes)),
        )
    return column


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a missing class, or one that is not among the classes of the options."""
    check_classes(rows, options.classes, options.normalize)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode rows as indices in `column.classes`, int32 `(rows,)`; a missing or unknown class is a fault."""
    return lookup_classes(rows, column.classes, get_spelling(column))


def decode(encoded: np.ndarray, column: Column) -> np.ndarray:
    """Return the indices in `column.classes` unchanged."""
    return encoded


def index_classes(rows: RawColumn, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Find the class of each row."""
    return index_one_class(rows)


def count_classes(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows of each class."""
    return count_indices(truth, column)
