"""Cells unlike those of the training rows: counted by column, with a warning where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from bmcli import inputs as input_kinds
from bmcli.quoting import quoted
from bmcli.raw_columns import RawColumn
from bmcli.specs import DataSpec
from bmcli.windows import EncodedRows

GATE = "unseen"
"""Name of the gate on the largest share of unseen cells of a column."""

_MANY = 0.2  # share of a column's cells from which on a warning is written
_MAX_NAMED = 10


def count_unseen(
    spec: DataSpec, rows: Mapping[str, RawColumn], encoded: Mapping[str, EncodedRows] | None
) -> dict[str, int]:
    """Count the unseen cells of each input, as its kind defines them; columns without are left out.

    Args:
        rows: Raw columns.
        encoded: The same rows after encoding; None where a served model encodes them itself.
    """
    counts = {
        column.name: input_kinds.get_traits(column).count_unseen(
            rows[column.name], None if encoded is None else encoded[column.name]
        )
        for column in spec.inputs
    }
    return {name: count for name, count in counts.items() if count}


def compute_largest_share(unseen: Mapping[str, int], rows: int) -> float:
    """Compute the largest share of unseen cells of a column."""
    return max(unseen.values(), default=0) / rows


def describe_unseen(spec: DataSpec, unseen: Mapping[str, int], rows: int) -> Iterator[str]:
    """Yield a line with all counts, or a warning if in a column unseen cells are many, and more than in training."""
    many = [
        name
        for name, count in unseen.items()
        if count / rows > max(_MANY, input_kinds.get_traits(spec.input(name)).unseen_share)
    ]
    if many:
        yield (
            f"warning: many cells are unlike those of the training rows: {_list_counts(unseen, many, rows)}. The model "
            "knows nothing of them, so do not rely on these predictions. Check how these columns are written."
        )
    if rest := [name for name in unseen if name not in many]:
        yield f"cells unlike those of the training rows: {_list_counts(unseen, rest, rows)}"


def _list_counts(unseen: Mapping[str, int], names: list[str], rows: int) -> str:
    listed = ", ".join(
        f"{unseen[name]:,} of {rows:,} in {quoted(name)} ({unseen[name] / rows:.1%})"
        for name in islice(sorted(names, key=lambda name: -unseen[name]), _MAX_NAMED)
    )
    return listed + (", ..." if len(names) > _MAX_NAMED else "")
