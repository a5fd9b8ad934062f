"""Assignment of rows to the training, validation and test split."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bmcli import dates, parts
from bmcli.canonical import BLANKS, Spelling, choose_spelling
from bmcli.data import columns
from bmcli.data.sources import SourceRows
from bmcli.data.splitting.row_hashes import hash_files, hash_rows
from bmcli.data.splitting.sampling import sample_rows
from bmcli.data.splitting.splitters import (
    GroupSplitter,
    HashSplitter,
    RandomSplitter,
    Splitter,
    TimeSplitter,
    split_folds,
)
from bmcli.dates.parsing import parse_times
from bmcli.dates.reading import find_no_dates, read_formats
from bmcli.errors import BmcliError
from bmcli.raw_columns import (
    RawColumn,
    RowFault,
    build_vocabulary,
    encode_categories,
    format_cell,
    is_numeric,
    is_text_column,
    lookup_indices,
    to_numbers,
    to_texts,
)
from bmcli.recipe.data import DataOptions, FoldOptions, SampleOptions, SplitOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import SPLITS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_ZONE = ":[0-9]{2}(?:[.,][0-9]+)? *(?:[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)$"
"""Time of day with a zone, at the end of a text."""
_SPLIT_BY_WORD = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class SplitAssignment:
    """The rows of each split.

    Args:
        indices: Indices of the rows of each split, ascending.
        stratified_by: Column whose proportions every split keeps, if any.
        groups: Number of groups in each split, if rows are split by group.
        moved_rows: Number of rows that were moved to training, because no training row had their class or label.
    """

    indices: dict[str, np.ndarray]
    stratified_by: str | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    moved_rows: int = 0


def split_rows(rows: SourceRows, data: DataOptions, targets: Mapping[str, TargetOptions], seed: int) -> SplitAssignment:
    """Assign the rows to splits.

    Raises:
        BmcliError: A cell cannot be read, or a split of the recipe gets no rows.
    """
    options, given_splits = data.split, _read_given_splits(rows, data.split)
    strata, stratified_by = _choose_strata(rows, options, targets, given_splits)
    splits = assign_splits(options, len(rows), _make_splitter(rows, options, seed, given_splits, strata), given_splits)
    if options.fold is not None:
        splitters = (_make_splitter(rows, options, (seed + offset) % 2**32, None, strata) for offset in (1, 2))
        splits = _hold_out_fold(splits, options.fold, *splitters)
    groups = None if options.group is None else columns.read_column(rows, options.group, encode_groups)
    splits, moved_rows = _move_unseen_classes(rows, options, targets, given_splits, groups, splits)
    if data.sample is not None:
        balance = data.sample.balance if isinstance(data.sample, SampleOptions) else None
        if balance not in (None, stratified_by):
            strata = columns.read_column(rows, str(balance), encode_categories)
        splits["train"] = sample_rows(splits["train"], data.sample, seed, strata)
    group_counts = {} if groups is None else {name: len(set(groups[splits[name]].tolist())) for name in splits}
    return SplitAssignment(splits, stratified_by, group_counts, moved_rows)


def _move_unseen_classes(
    rows: SourceRows,
    options: SplitOptions,
    targets: Mapping[str, TargetOptions],
    given_splits: np.ndarray | None,
    groups: np.ndarray | None,
    splits: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], int]:
    """Move rows of classes or labels that no training row has to training, whole groups if rows are split by group.

    A class of one row cannot be in training and in test; without the row, training would not know the class. Rows stay
    where the source has put them, and where no other row of their split would be left.

    Returns:
        The splits, and the number of moved rows.
    """
    import numpy as np

    moved = dict(splits)
    drawn = [
        name
        for name in ("validation", "test")
        if given_splits is None or options.fold or not (given_splits == name).any()
    ]
    for target, kind in targets.items() if drawn else ():
        indexed = _index_classes(rows, target, kind)
        if indexed is None:
            continue
        holders, classes = indexed
        for name in drawn:
            known = classes[np.isin(holders, moved["train"])]
            unseen = np.isin(moved[name], holders[~np.isin(classes, known)])
            if groups is not None:
                unseen = np.isin(groups[moved[name]], groups[moved[name][unseen]])
            if unseen.any() and not unseen.all():
                moved["train"] = np.sort(np.concatenate([moved["train"], moved[name][unseen]]))
                moved[name] = moved[name][~unseen]
    return moved, len(moved["train"]) - len(splits["train"])


def _index_classes(rows: SourceRows, name: str, kind: TargetOptions) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the classes of the rows of a target, as `TargetKind.index_classes` does; cells are read later."""
    part = parts.load("data.targets", kind.kind)
    cells = columns.join_columns(rows.columns, kind.list_columns(name))
    try:
        found: tuple[np.ndarray, np.ndarray] | None = part.index_classes(cells, kind)
    except RowFault as fault:
        raise BmcliError(columns.locate_fault(fault, name, rows)) from None
    return found


def _read_given_splits(rows: SourceRows, options: SplitOptions) -> np.ndarray | None:
    """Return the split of each row as the files or a column define it, or None if all rows are still to be split."""
    if options.column is not None and rows.split is not None:
        raise BmcliError(
            "the files of the source already define the splits.", path="data.split.column", suggestion="Leave it out."
        )
    given_splits = rows.split if options.column is None else columns.read_column(rows, options.column, read_split_names)
    return None if given_splits is None or (given_splits == "train").all() else given_splits


def _choose_strata(
    rows: SourceRows, options: SplitOptions, targets: Mapping[str, TargetOptions], given_splits: np.ndarray | None
) -> tuple[np.ndarray | None, str | None]:
    """Return the stratum of each row, an integer, and the column that defines it; None without stratification."""
    name = None if options.stratify == "none" else options.stratify
    if name == "auto":
        # The splitters by time and by hash cannot stratify.
        is_classification = [parts.load("data.targets", each.kind).ONE_CLASS for each in targets.values()] == [True]
        name = next(iter(targets)) if is_classification and not (options.time or options.hash) else None
    if name is None:
        return None, None
    strata = columns.read_column(rows, name, encode_categories)
    # `auto` does not stratify if a class has too few rows for every split; a column that the recipe names always does.
    if options.stratify == "auto" and not fits_every_split(options, given_splits, strata):
        return None, None
    return strata, name


def _make_splitter(
    rows: SourceRows, options: SplitOptions, seed: int, given_splits: np.ndarray | None, strata: np.ndarray | None
) -> Splitter:
    """Make the splitter of the recipe."""
    key = "group" if options.group else "time" if options.time else "hash" if options.hash else ""
    if key and given_splits is not None and options.validation is None:
        raise BmcliError(
            f"`{key}` has no effect, because the source defines all splits.",
            path=f"data.split.{key}", suggestion="Leave it out, or give `validation` a share of the training rows.",
        )  # fmt: skip
    if options.time is not None:
        formats = dates.list_formats(options.time_format)
        return TimeSplitter(columns.read_column(rows, options.time, lambda column: read_times(column, formats)))
    if options.hash:
        readable = columns.list_readable(rows.columns, rows.columns)
        names = options.hash if isinstance(options.hash, tuple) else [name for name, _ in readable]
        return HashSplitter(hash_rows([columns.read_column(rows, name, hash_files) for name in sorted(names)], seed))
    if options.group is None:
        return RandomSplitter(seed, strata)
    groups = columns.read_column(rows, options.group, encode_groups)
    if given_splits is not None:
        _check_groups_are_whole(rows, options.group, groups, given_splits)
    return GroupSplitter(seed, groups, strata)


def _check_groups_are_whole(rows: SourceRows, name: str, groups: np.ndarray, given_splits: np.ndarray) -> None:
    """Refuse groups that the source divides between splits."""
    import numpy as np

    split_codes = np.searchsorted(sorted(SPLITS), given_splits)
    first = np.zeros(int(groups.max()) + 1, "int64")
    first[groups[::-1]] = split_codes[::-1]  # The last write wins: reversed, that is the first row of each group.
    divided = first[groups] != split_codes
    if divided.any():
        row = int(np.argmax(divided))
        received = f"{sorted(SPLITS)[first[groups[row]]]} and in {given_splits[row]}"
        fault = RowFault(
            row,
            f"the source has rows of {format_cell(rows.columns[name], row)} in {received}.",
            "Put all rows of a group into one split.",
        )
        raise BmcliError(replace(columns.locate_fault(fault, name, rows), path="data.split.group"))


def assign_splits(
    options: SplitOptions, row_count: int, splitter: Splitter, given_splits: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the indices of the rows of each split, ascending; every row is in exactly one split.

    Args:
        splitter: Splitter of the rows whose split is not given.
        given_splits: Split of each row as the files or a column define it; None to split all rows by the shares.

    Raises:
        BmcliError: A split of the recipe gets no rows.
    """
    import numpy as np

    if given_splits is None:
        return _split_by_shares(np.arange(row_count), resolve_shares(options), splitter)
    _check_shares_beside_given(options, given_splits)
    splits = {name: np.flatnonzero(given_splits == name) for name in SPLITS}
    if not len(splits["train"]):
        raise BmcliError(
            "no row is a training row.", path="data.split", suggestion="Add a file or rows of the split train."
        )
    if options.validation is None:
        return splits
    return {
        **_split_by_shares(splits["train"], _carve_validation(options.validation), splitter),
        "test": splits["test"],
    }


def _hold_out_fold(
    splits: Mapping[str, np.ndarray], fold: FoldOptions, fold_splitter: Splitter, validation_splitter: Splitter
) -> dict[str, np.ndarray]:
    """Hold out one fold of the training and validation rows as test rows; split the rest in the previous proportion.

    The splitters have other seeds than that of the splits: with the same hash, rows that it has put into one split
    would also stay together in the folds.

    Raises:
        BmcliError: There are more folds than rows or groups.
    """
    import numpy as np

    rows = np.sort(np.concatenate([splits["train"], splits["validation"]]))
    share = len(splits["validation"]) / len(rows)
    try:
        train, test = list(split_folds(fold_splitter, rows, fold.of))[fold.number - 1]
    except BmcliError as error:
        raise BmcliError(*(replace(each, path="data.split.fold") for each in error.faults)) from None
    return {**_split_by_shares(train, _carve_validation(share), validation_splitter), "test": test}


def fits_every_split(options: SplitOptions, given_splits: np.ndarray | None, strata: np.ndarray) -> bool:
    """Whether every stratum is large enough for a row in every split."""
    import numpy as np

    share = resolve_shares(options)
    if given_splits is not None:
        strata = strata[given_splits == "train"]
        share = _carve_validation(options.validation or 0.0)
    smallest_share = min(part for part in share.values() if part > 0)
    return len(strata) > 0 and bool(np.unique(strata, return_counts=True)[1].min() * smallest_share >= 1 - 1e-9)


def _carve_validation(validation: float) -> dict[str, float]:
    """Return the shares into which training rows are divided when validation rows are taken from them."""
    return {"train": 1 - validation, "validation": validation, "test": 0.0}


def resolve_shares(options: SplitOptions) -> dict[str, float]:
    """Return the share of each split, adding up to 1.

    Without any share in the recipe: 80, 10 and 10 per cent. With a share for training: the splits without a share
    divide the rest equally. With shares only for validation or test: training takes the rest.
    """
    shares = {name: share for name in SPLITS if (share := getattr(options, name)) is not None}
    rest = max(0.0, round(1 - sum(shares.values()), 9))  # Rounded, because 1 - (0.8 + 0.1) is not exactly 0.1.
    if not shares:
        return dict(DEFAULT_SHARES)
    if "train" not in shares:
        return {"train": rest, "validation": 0.0, "test": 0.0, **shares}
    left_out = [name for name in SPLITS if name not in shares]
    return {**{name: rest / len(left_out) for name in left_out}, **shares}


def parse_split_name(text: str) -> str:
    """Return the split that a word means: train, validation (valid, val, dev) or test; empty for other words."""
    return _SPLIT_BY_WORD.get(text.strip(BLANKS).lower(), "")


def read_split_names(column: RawColumn) -> np.ndarray:
    """Read the split of every row from a column of split names: train, validation (valid, val, dev) or test.

    Raises:
        RowFault: A cell is another word.
    """
    import numpy as np

    if not is_text_column(column):
        raise RowFault(0, "expected train, validation or test, received a number.")
    spellings = build_vocabulary(column)
    words = np.array([parse_split_name(text) for text in spellings] + ["", ""])
    splits = words[lookup_indices(column, spellings)]
    if (splits == "").any():
        row = int(np.argmax(splits == ""))
        raise RowFault(row, f"expected train, validation or test, received {format_cell(column, row)}.")
    return splits


def _choose_spelling(column: RawColumn) -> Spelling:
    """Choose the canonical form of a column; arrays are in it."""
    return choose_spelling(to_texts(column), normalize=True) if is_text_column(column) else "raw"


def encode_groups(column: RawColumn) -> np.ndarray:
    """Return the group of each row as an integer.

    Raises:
        RowFault: A cell is missing, or cannot be read as a category.
    """
    import numpy as np

    spelling = _choose_spelling(column)
    indices = to_texts(column, spelling).combine_chunks().dictionary_encode().indices
    if indices.null_count:
        row = int(np.argmax(np.asarray(indices.is_null())))
        raise RowFault(row, "expected the group of the row, received nothing.", "Fill it in, or leave the row out.")
    return np.asarray(indices)


def read_times(column: RawColumn, formats: Sequence[str] = ()) -> np.ndarray:
    """Read the time of each row as a number: numbers unchanged, dates and times in microseconds.

    Args:
        formats: Date formats of a column of text; by default those that fit all cells.

    Raises:
        RowFault: A cell is missing, is neither a number nor a date, or has a time zone while others have none.
    """
    import numpy as np

    if is_text_column(column) and (formats or not is_numeric(column)):
        return _parse_timestamps(column, formats)
    times = to_numbers(column)
    if times.size != len(times):
        raise RowFault(0, f"expected one time a row, received an array of shape {tuple(times.shape[1:])}.")
    times = times.reshape(-1)
    if np.isnan(times).any():
        raise _missing_time_fault(int(np.argmax(np.isnan(times))))
    return times


def _parse_timestamps(column: pa.ChunkedArray, formats: Sequence[str]) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.utf8_trim_whitespace(to_texts(column))
    if cells.null_count:
        raise _missing_time_fault(int(np.argmax(np.asarray(pc.is_null(cells)))))
    readable = []
    for zone in (
        (None, "UTC") if not formats else ()
    ):  # Arrow casts times without a zone, or times with one, never both.
        kind = pa.timestamp("us", zone)
        readable.append(_count_readable(cells, kind))
        if readable[-1] == len(cells):
            return np.asarray(pc.cast(pc.cast(cells, kind), pa.int64()))
    formats = formats or _guess_time_formats(cells, max(readable))
    times, is_date = parse_times(cells, formats)
    has_zone = np.asarray(pc.match_substring_regex(cells, _ZONE))
    if is_date.all() and has_zone.all() == has_zone.any():
        return times
    row = int(np.argmin(is_date)) if not is_date.all() else int(np.argmax(has_zone != has_zone[0]))
    if is_date[row]:
        raise _make_time_fault(cells, row, "Write times with a zone in every row, or in none.")
    if find_no_dates(cells.slice(row, 1)).any():
        raise _missing_time_fault(row, format_cell(column, row))
    raise _make_time_fault(cells, row, f"The others are in the format {' or '.join(formats)}.")


def _guess_time_formats(cells: pa.ChunkedArray, first_unreadable: int) -> tuple[str, ...]:
    """Return the formats of all dates.

    Args:
        first_unreadable: Row of the first cell that is not in ISO 8601.
    """
    found = read_formats(cells)
    if found is None:
        raise _make_time_fault(cells, first_unreadable, "Write the dates in one way.")
    if len(set(found.days)) > 1:
        formats = json.dumps(found.formats)
        raise _make_time_fault(
            cells, first_unreadable, f"If its dates are in several formats, write `time_format: {formats}`."
        )
    if found.rivals or found.contradicts:
        row = int(parse_times(cells, found.formats)[1].argmin()) if found.contradicts else 0
        message = f"whether days or months are first is not clear from cells such as {format_cell(cells, row)}."
        raise RowFault(
            row, message, option=f'Write `time_format: "{found.formats[0]}"`, or another one, beside `time`.'
        )
    return found.formats


def _make_time_fault(cells: pa.ChunkedArray, row: int, suggestion: str) -> RowFault:
    message = (
        f"expected a number or a date such as 2024-05-31 or 2024-05-31T14:05:00, received {format_cell(cells, row)}."
    )
    return RowFault(row, message, suggestion)


def _count_readable(cells: pa.ChunkedArray, kind: pa.DataType) -> int:
    """Count the cells before the first that cannot be cast; Arrow's error does not give its row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def reads(count: int) -> bool:
        try:
            pc.cast(cells.slice(0, count), kind)
        except pa.ArrowInvalid:
            return False
        return True

    return len(cells) if reads(len(cells)) else bisect_left(range(len(cells)), 1, key=lambda n: not reads(n + 1))


def _missing_time_fault(row: int, received: str = "nothing") -> RowFault:
    return RowFault(row, f"expected the time of the row, received {received}.", "Fill it in, or leave the row out.")


def _split_by_shares(rows: np.ndarray, share: Mapping[str, float], splitter: Splitter) -> dict[str, np.ndarray]:
    """Split rows by the shares; a split with a share must get a row."""
    parts = splitter.assign_parts(rows, [share[name] for name in SPLITS])
    splits = {name: rows[parts == number] for number, name in enumerate(SPLITS)}
    for name in SPLITS:
        if share[name] > 0 and not len(splits[name]):
            raise BmcliError(
                f"{splitter.describe_units(rows)} are too few for a {name} share of {share[name]:g}: the split is "
                "empty.",
                path="data.split",
                suggestion=f"Give {name} a larger share, or a share of 0.",
            )
    return splits


def _check_shares_beside_given(options: SplitOptions, given_splits: np.ndarray) -> None:
    for name in ("train", "test"):
        if getattr(options, name) is not None:
            raise BmcliError(
                f"a share for {name} has no effect, because the source defines the {name} rows.",
                path=f"data.split.{name}",
                suggestion="Only `validation` can be a share of the training rows.",
            )
    if options.validation is not None and (given_splits == "validation").any():
        raise BmcliError(
            "a share for validation has no effect, because the source defines the validation rows.",
            path="data.split.validation",
        )
