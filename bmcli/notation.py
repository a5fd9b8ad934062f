"""How people write numbers and missing values: markers, notations, and the numbers that texts of a notation mean.

Columns of text are read as a whole by pyarrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


MISSING_MARKERS = (
    "", "na", "n/a", "#n/a", "#na", "n.a.", "n.a", "<na>", "nan", "nat", "null", "(null)", "#null!", "none", "(none)",
    "nil", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}", "?", ".", "..", "...", "\\n", "unknown",
    "(unknown)", "missing", "(missing)", "not available", "n.d.", "k.a.", "k. a.", "unbekannt", "#div/0!", "#value!",
    "#ref!", "#name?", "#num!", "#error!",
)  # fmt: skip
"""Texts in lower case that mark a missing cell where numbers, booleans or dates are expected."""


def find_markers(texts: pa.Array | pa.ChunkedArray, further: Sequence[str] = ()) -> Any:
    """Find the texts that mark a missing cell, in any case and with blanks around.

    Args:
        further: Markers beside MISSING_MARKERS, such as those of the option `missing_cells`.

    Returns:
        A boolean Arrow array; false for null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    markers = pa.array([*MISSING_MARKERS, *(_fold(text) for text in further)], pa.string())
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    return pc.fill_null(pc.and_(pc.is_valid(folded), pc.is_in(folded, value_set=markers)), False)


def count_markers(texts: pa.ChunkedArray, further: Sequence[str] = ()) -> dict[str, int]:
    """Count the cells of each text that marks a missing one, the most frequent first; empty cells are not counted."""
    import pyarrow.compute as pc

    found = pc.value_counts(pc.utf8_trim_whitespace(texts.filter(find_markers(texts, further))))
    counts = {each["values"]: each["counts"] for each in found.to_pylist() if each["values"]}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _fold(text: str) -> str:
    return text.strip().lower()
