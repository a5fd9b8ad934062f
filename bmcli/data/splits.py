"""Which rows train, validate and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bmcli.cells import MISSING, Raw, RowFault, is_text, positions, shown, vocabulary
from bmcli.errors import BmcliError
from bmcli.recipe.schema import SplitOptions
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np

DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def assign(
    options: SplitOptions,
    row_count: int,
    seed: int,
    given: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Indices of the rows of each split, ascending; every row is in exactly one.

    The assignment is a function of its arguments alone, on any machine and with any version of numpy.

    Args:
        seed: Decides which rows go where.
        given: The split of each row by files or by a column, or None if the shares decide.
        groups: A whole number for each row; every split keeps their proportions within one row.

    Raises:
        BmcliError: A split that was asked for gets no rows.
    """
    import numpy as np

    if given is None or (given == "train").all():
        return _shared(np.arange(row_count), shares(options), seed, groups)
    _check_shares_beside_given(options, given)
    splits = {name: np.flatnonzero(given == name) for name in SPLITS}
    if not len(splits["train"]):
        raise BmcliError("no row is a training row.", path="data.split")
    if options.validation is None:
        return splits
    return {**_shared(splits["train"], _carved(options.validation), seed, groups), "test": splits["test"]}


def in_every_split(options: SplitOptions, given: np.ndarray | None, groups: np.ndarray) -> bool:
    """Whether every group is large enough to have a row in every split that is dealt out."""
    import numpy as np

    share = shares(options)
    if given is not None and not (given == "train").all():
        groups = groups[given == "train"]
        share = _carved(options.validation or 0.0)
    smallest_share = min(part for part in share.values() if part > 0)
    return len(groups) > 0 and bool(np.unique(groups, return_counts=True)[1].min() * smallest_share >= 1 - 1e-9)


def _carved(validation: float) -> dict[str, float]:
    """Shares of the training rows where validation takes some of them."""
    return {"train": 1 - validation, "validation": validation, "test": 0.0}


def shares(options: SplitOptions) -> dict[str, float]:
    """Share of each split, adding up to 1; what the recipe leaves out follows from what it gives.

    Nothing given: 80, 10 and 10 per cent. Training alone: validation and test halve the rest.
    Otherwise training takes the rest, or, if it is given, the one that is left out.
    """
    given = {name: share for name in SPLITS if (share := getattr(options, name)) is not None}
    rest = max(0.0, round(1 - sum(given.values()), 9))
    if not given:
        return dict(DEFAULT_SHARES)
    if "train" not in given:
        return {"train": rest, "validation": 0.0, "test": 0.0, **given}
    left_out = [name for name in SPLITS if name not in given]
    return {**{name: rest / len(left_out) for name in left_out}, **given}


def named(column: Raw) -> np.ndarray:
    """The split of every row from a column of its names: train, validation (valid, val, dev) or test.

    Raises:
        RowFault: A cell is none of them.
    """
    import numpy as np

    if not is_text(column):
        raise RowFault(0, "expected train, validation or test, received a number.")
    spellings = vocabulary(column)
    words = np.array([_WORDS.get(text.strip().lower(), "") for text in spellings] + ["", ""])
    splits = words[positions(column, spellings)]
    if (splits == "").any():
        row = int(np.argmax(splits == ""))
        raise RowFault(row, f"expected train, validation or test, received {shown(column, row)}.")
    return splits


def groups_of(column: Raw) -> np.ndarray:
    """A whole number for each row by its category; missing cells are a category of their own."""
    import numpy as np

    classes = vocabulary(column)
    found = positions(column, classes)
    return np.where(found == MISSING, len(classes), found)


def _shared(
    rows: np.ndarray, share: Mapping[str, float], seed: int, groups: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Shuffles and deals the rows of each group to the splits."""
    import numpy as np

    if groups is None:
        groups = np.zeros(rows.max() + 1, "int64")
    # The bit stream of PCG64 is guaranteed for good; that of numpy's shuffle is not.
    rows = rows[np.argsort(np.random.PCG64(seed).random_raw(len(rows)), kind="stable")]
    rows = rows[np.argsort(groups[rows], kind="stable")]
    parts = np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1)
    fractions = np.array([share[name] for name in SPLITS])
    dealt: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    owed = np.zeros(len(SPLITS))
    for part in parts:
        counts = _counts(len(part), fractions, owed)
        owed += len(part) * fractions - counts
        for name, piece in zip(SPLITS, np.split(part, np.cumsum(counts)[:-1]), strict=True):
            dealt[name].append(piece)
    splits = {name: np.sort(np.concatenate(pieces)) for name, pieces in dealt.items()}
    for name in SPLITS:
        if share[name] > 0 and not len(splits[name]):
            raise BmcliError(
                f"{len(rows)} rows are too few for a {name} share of {share[name]:g}: it gets none.",
                path="data.split",
                suggestion="Give it a larger share, or write the shares without it.",
            )
    return splits


def _counts(rows: int, fractions: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """Whole numbers next to `rows * fractions` with the sum `rows`.

    Those that earlier groups left short are rounded up first, so that many small groups do not add up to
    skewed splits.
    """
    import numpy as np

    exact = np.round(rows * fractions, 6)
    counts = np.floor(exact).astype("int64")
    claims = np.where(exact > counts, exact - counts + owed, -np.inf)
    counts[np.argsort(-claims, kind="stable")[: rows - counts.sum()]] += 1
    return counts


def _check_shares_beside_given(options: SplitOptions, given: np.ndarray) -> None:
    for name in ("train", "test"):
        if getattr(options, name) is not None:
            raise BmcliError(
                f"a share for {name} has no effect, since the source tells the {name} rows.",
                path=f"data.split.{name}",
                suggestion="Only `validation` can be a share of the training rows.",
            )
    if options.validation is not None and (given == "validation").any():
        raise BmcliError(
            "a share for validation has no effect, since the source tells the validation rows.",
            path="data.split.validation",
        )
