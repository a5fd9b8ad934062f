"""Classification target: one class a row, text or integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bmcli import parts
from bmcli.data.targets import (
    ClassNames,
    Normalize,
    TargetGuess,
    check_classes,
    count_indices,
    find_classes,
    get_spelling,
    lookup_classes,
    make_class_column,
    names_to_text,
    resolve_spelling,
)
from bmcli.errors import BmcliError
from bmcli.notation import list_counts
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.recipe.fields import Kind
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np

    from bmcli.data.profiling.column_profile import ColumnProfile


OBJECTIVE = "classification"
ONE_CLASS = True

_FEW_CLASSES = 20


class Options(Kind):
    """One class per row."""

    kind: Literal["category"] = "category"
    classes: ClassNames | None = Field(
        default=None,
        description="All classes in the order of their indices; by default the sorted classes of the training rows.",
    )
    normalize: Normalize = True


def guess(profile: ColumnProfile) -> TargetGuess | None:
    """Recognise texts, two numbers, and few integers without a gap, each of them many times."""
    if profile.is_array or profile.is_encoded:
        return None
    if profile.is_number:
        if profile.distinct != 2 and not _are_codes(profile):
            return None
        # Words such as unknown are classes, too, where the source does not list them under `missing`.
        words = profile.written.markers if profile.written is not None else {}
        others = f", and so is {list_counts(words)}" if words else ""
        return TargetGuess("category", 0.7, f"its {profile.distinct} integers are treated as classes{others}")
    obstacle = ""
    if profile.rows_per_value < 2 and profile.distinct > _FEW_CLASSES:
        obstacle = (
            f"has {profile.distinct:,} different texts in {profile.present:,} rows: these are not classes, and no kind "
            "of target generates text."
        )
    why = f"{profile.distinct} classes, the most frequent {profile.top_share:.1%} of the rows"
    return TargetGuess("category", 0.5, why, obstacle=obstacle)


def _are_codes(profile: ColumnProfile) -> bool:
    """Whether numbers are codes of classes: few integers without a gap, each of them many times."""
    few = profile.is_integer and profile.distinct <= _FEW_CLASSES and profile.rows_per_value >= 10
    return few and profile.maximum - profile.minimum + 1 == profile.distinct


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


def count_classes(truth: np.ndarray, column: Column) -> np.ndarray:
    """Count the rows of each class."""
    return count_indices(truth, column)
