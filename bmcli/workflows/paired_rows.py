"""Whether two runs were evaluated on the same rows, so that their predictions can be compared row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from bmcli.recipe.schema import Recipe

if TYPE_CHECKING:
    import numpy as np


class MeasuredRows(NamedTuple):
    """The rows on which a run was evaluated.

    Args:
        truth: Decoded targets by name.
    """

    recipe: Recipe
    split: str
    truth: Mapping[str, np.ndarray]


def have_same_rows(first: MeasuredRows, second: MeasuredRows) -> bool:
    """Whether two runs, whose data has the same bytes, were evaluated on the same rows."""
    import numpy as np

    names = first.truth.keys()
    if names != second.truth.keys() or not all(_are_close(first.truth[name], second.truth[name]) for name in names):
        return False
    # Equal targets are not enough: stratified splits of sorted rows have them in the same order.
    return _is_split_alike(first, second) or np.array_equal(_find_rows(first), _find_rows(second))


def _are_close(one: np.ndarray, other: np.ndarray) -> bool:
    import numpy as np

    # Numbers are standardised with the mean and scale of the training rows, so their last bits may differ.
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True))


def _is_split_alike(first: MeasuredRows, second: MeasuredRows) -> bool:
    """Whether the rows follow from the same options, so that the source need not be read."""
    splits = [(each.split, each.recipe.data, each.recipe.targets(), each.recipe.data_seed) for each in (first, second)]
    return splits[0] == splits[1]


def _find_rows(rows: MeasuredRows) -> np.ndarray:
    from bmcli.data.raw_rows import find_row_indices

    recipe = rows.recipe
    return find_row_indices(recipe.data, recipe.targets(), recipe.data_seed, rows.split)
