"""Samples of the training rows. A smaller sample is a subset of every larger one of the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bmcli.errors import BmcliError
from bmcli.recipe.data import SampleOptions

if TYPE_CHECKING:
    import numpy as np


def sample_rows(
    rows: np.ndarray, size: float | SampleOptions, seed: int, strata: np.ndarray | None = None
) -> np.ndarray:
    """Draw a sample of rows without replacement, ascending.

    Args:
        rows: Indices of the training rows.
        size: A share of the rows, a count, or options.
        strata: Stratum of each row of the data, an integer. A balanced sample has the same number of rows of each
            stratum, as far as it has them; other samples keep the proportions of the strata.

    Raises:
        BmcliError: The sample has more rows than there are, or none.
    """
    import numpy as np

    options = size if isinstance(size, SampleOptions) else _to_options(size)
    strata = np.zeros(len(rows), "int64") if strata is None else strata[rows]
    sizes = np.bincount(strata)
    random = np.random.PCG64([seed, 1]).random_raw(len(rows))  # independent of the numbers that drew the splits
    order = np.lexsort((random, strata))
    # Rows are ranked at random within their stratum. Taking ranks in turn balances the strata; taking them relative to
    # the size of the stratum keeps the proportions. Either order does not depend on the size of the sample.
    rank = np.empty(len(rows))
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    priority = rank if options.balance is not None else (rank + 0.5) / sizes[strata]
    return np.sort(rows[np.lexsort((random, priority))[: _compute_sample_size(options, sizes[sizes > 0])]])


def _to_options(size: float) -> SampleOptions:
    """Turn a bare number of the recipe into options: a count, or a share."""
    return SampleOptions(count=size) if isinstance(size, int) else SampleOptions(share=size)


def _compute_sample_size(options: SampleOptions, sizes: np.ndarray) -> int:
    """Compute the number of rows of a sample from the sizes of the strata."""
    available = int(sizes.sum())
    if options.count is not None:
        if options.count > available:
            raise BmcliError(
                f"expected a sample of at most {available:,} training rows, received {options.count:,}.",
                path="data.sample", suggestion="Write a smaller number, or leave it out to use all training rows.",
            )  # fmt: skip
        return options.count
    if options.share is None:
        return int(sizes.min()) * len(sizes)
    count = round(options.share * available)
    if count == 0:
        raise BmcliError(
            f"a share of {options.share:g} of {available:,} training rows is less than one row.",
            path="data.sample", suggestion="Write a larger share.",
        )  # fmt: skip
    return count
