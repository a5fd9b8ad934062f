"""Fewer training rows. A smaller sample is part of every larger one of the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli.errors import BmcliError
from bmcli.recipe.data import SampleOptions

if TYPE_CHECKING:
    import numpy as np


def sample_rows(
    rows: np.ndarray, size: float | SampleOptions, seed: int, strata: np.ndarray | None = None
) -> np.ndarray:
    """Some of the rows, ascending; none twice.

    Args:
        rows: Places of the training rows.
        size: A share of them, a count, or options.
        strata: A whole number for each row of the data. Balanced, the sample has equally many of each as far as
            there are; otherwise it keeps their proportions.

    Raises:
        BmcliError: There are fewer rows than asked for, or the share is of less than one row.
    """
    import numpy as np

    options = size if isinstance(size, SampleOptions) else _to_options(size)
    strata = np.zeros(len(rows), "int64") if strata is None else strata[rows]
    sizes = np.bincount(strata)
    chance = np.random.PCG64([seed, 1]).random_raw(len(rows))  # not the numbers that dealt the splits
    order = np.lexsort((chance, strata))
    rank = np.empty(len(rows))
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = rank if options.balance is not None else (rank + 0.5) / sizes[strata]
    return np.sort(rows[np.lexsort((chance, turn))[: _compute_sample_size(options, sizes[sizes > 0])]])


def _to_options(size: float) -> SampleOptions:
    """The options that a bare number stands for."""
    return SampleOptions(count=size) if isinstance(size, int) else SampleOptions(share=size)


def _compute_sample_size(options: SampleOptions, sizes: np.ndarray) -> int:
    """How many rows a sample has, of strata with so many rows."""
    there = int(sizes.sum())
    if options.count is not None:
        if options.count > there:
            raise BmcliError(
                f"a sample of {options.count:,} rows cannot be taken from {there:,} training rows.",
                path="data.sample", suggestion="Ask for fewer rows, or leave it out.",
            )  # fmt: skip
        return options.count
    if options.share is None:
        return int(sizes.min()) * len(sizes)
    count = round(options.share * there)
    if count == 0:
        raise BmcliError(
            f"{options.share:g} of {there:,} training rows is none.",
            path="data.sample", suggestion="Ask for a larger share.",
        )  # fmt: skip
    return count
