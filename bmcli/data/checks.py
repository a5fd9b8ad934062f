"""Checks of prepared data: duplicates across splits, conflicting labels, leaks of the target, drift, rare classes.

The checks see encoded rows, as the network does: cells with the same encoding are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.data import targets as target_kinds
from bmcli.quoting import quoted
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column, DataSpec, PreparedData, Split
from bmcli.windows import count_row_bytes

if TYPE_CHECKING:
    import numpy as np

MAX_ROWS = 100_000  # rows of each split that are checked
MAX_BYTES = 2**30  # bytes of their inputs
LEAK_THRESHOLD = 0.97  # predictability of a target from one column, from which on that is reported
DRIFT_THRESHOLD = 0.1  # distance of two distributions, from 0 to 1
SIGNIFICANCE = 0.01  # level of the drift tests, after Bonferroni's correction
RARE_ROWS, RARE_RATIO = (
    20,
    20.0,
)  # a class is rare with fewer rows, or if the largest class has this many times its rows

_BINS = 50  # quantile bins of numbers, in the prediction of a class
_MAX_FLAW_ROWS = 1000  # cells of an input that are looked at
_MIN_ROWS = 40  # with fewer rows no leak is looked for


@dataclass(frozen=True)
class Finding:
    """One result of the checks.

    Args:
        check: `duplicates`, `conflicts`, `leak`, `drift`, `imbalance` or `flaw`.
        message: Description with numbers.
        suggestion: The next step.
        numbers: The numbers of the message, for programs.
    """

    check: str
    message: str
    suggestion: str
    numbers: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.message} {self.suggestion}"

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "numbers": dict(self.numbers)}


def check_prepared(prepared: PreparedData) -> tuple[Finding, ...]:
    """Check the splits of prepared data.

    The checks cover the first 100,000 rows of each split, or as many as 1 GiB holds.
    """
    spec = prepared.spec
    splits = {name: _load_head(prepared.split(name)) for name in spec.counts if spec.counts[name]}
    codes = {name: _hash_rows(split) for name, split in splits.items()}
    return (
        *_find_duplicates(codes, splits),
        *_find_conflicts(codes["train"], splits["train"], spec),
        *_find_leaks(splits["train"], spec),
        *_find_drifts(splits, spec),
        *_find_imbalances(splits["train"], spec),
        *_find_flaws(splits["train"], spec),
    )


@dataclass(frozen=True)
class _Head:
    """The first rows of a split, in memory, by column."""

    inputs: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]


def _load_head(split: Split) -> _Head:
    """Load the rows that are checked into memory."""
    import numpy as np

    row_bytes = sum(map(count_row_bytes, split.inputs.values()))
    rows = min(len(split), MAX_ROWS, max(1, MAX_BYTES // max(1, row_bytes)))
    return _Head(
        {name: np.asarray(array[:rows]) for name, array in split.inputs.items()},
        {name: np.asarray(array[:rows]) for name, array in split.targets.items()},
    )


def _hash_rows(rows: _Head) -> np.ndarray:
    """Hash the inputs of each row, uint64 `(rows,)`."""
    import numpy as np

    flat = [np.ascontiguousarray(a).reshape(len(a), -1).view("uint8") for a in rows.inputs.values()]
    digests = [
        hashlib.blake2b(b"".join(array[row].tobytes() for array in flat), digest_size=8).digest()
        for row in range(len(flat[0]))
    ]
    return np.frombuffer(b"".join(digests), "uint64")


def _find_duplicates(codes: Mapping[str, np.ndarray], splits: Mapping[str, _Head]) -> Iterator[Finding]:
    """Find validation and test rows that have the same inputs as a training row."""
    import numpy as np

    for name in codes:
        if name == "train":
            continue
        duplicates = int(np.isin(codes[name], codes["train"]).sum())
        if duplicates:
            share = duplicates / len(codes[name])
            yield Finding(
                "duplicates",
                f"{duplicates:,} of {len(codes[name]):,} {name} rows ({share:.1%}) duplicate the inputs of a training "
                f"row; the {name} score may be optimistic.",
                "If they are copies, leave them out, or keep equal rows together by data.split.hash or group.",
                {"split": name, "rows": duplicates, "share": share},
            )


def _find_flaws(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find inputs whose cells all look the same, such as black pictures."""
    for column in spec.inputs:
        cells = train.inputs[column.name]
        flaw = input_kinds.get_traits(column).describe_flaw(cells[:: -(-len(cells) // _MAX_FLAW_ROWS)])
        if flaw:
            yield Finding(
                "flaw",
                f"{quoted(column.name)}: {flaw}",
                "Look at them as the network sees them: bmcli plan RECIPE --pictures FILE.",
                {"column": column.name},
            )


def _count_classes(rows: _Head, target: Column) -> np.ndarray | None:
    """Count the rows of each class of a target; None if it has no classes."""
    kind = target_kinds.kind_of(target)
    return kind.count_classes(kind.decode(rows.targets[target.name], target), target)


def _find_conflicts(codes: np.ndarray, train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find training rows with the same inputs and different classes."""
    import numpy as np

    _, group_of_row = np.unique(codes, return_inverse=True)
    for column in spec.targets:
        if _count_classes(train, column) is None:
            continue
        targets = train.targets[column.name].reshape(len(codes), -1)
        _, classes = np.unique(targets, axis=0, return_inverse=True)
        pairs = np.unique(np.stack([group_of_row, classes.reshape(-1)]), axis=1)
        is_conflict = np.bincount(pairs[0]) > 1
        rows = int(is_conflict[group_of_row].sum())
        if rows:
            yield Finding(
                "conflicts",
                f"{rows:,} training rows share their inputs with a row of another {quoted(column.name)}, so no network "
                "can predict all of them.",
                "Look for wrong labels, or for a column that is missing.",
                {"target": column.name, "rows": rows, "groups": int(is_conflict.sum())},
            )


def _find_leaks(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find columns from which alone a target can be predicted nearly perfectly."""
    for target in spec.targets:
        if train.targets[target.name].ndim != 1:
            continue
        counts = _count_classes(train, target)
        for column in spec.inputs:
            values = _select_values(train.inputs[column.name], input_kinds.get_traits(column).flags)
            if values is None:
                continue
            predictability = _compute_predictability(
                values, train.targets[target.name], 0 if counts is None else len(counts)
            )
            if predictability >= LEAK_THRESHOLD:
                yield Finding(
                    "leak",
                    f"column {quoted(column.name)} alone predicts {quoted(target.name)} nearly perfectly "
                    f"(predictability {predictability:.1%}).",
                    f"If its value is known only after the target's, leave it out: data.drop: "
                    f"[{write_scalar(column.name)}].",
                    {"target": target.name, "column": column.name, "predictability": predictability},
                )


def _compute_predictability(values: np.ndarray, target: np.ndarray, classes: int) -> float:
    """Compute how well a column alone predicts a target, from 0 (not at all) to 1 (perfectly).

    Every other row is held out and predicted from the rest: a class by the majority class of its bin, a number by
    interpolation. The result is the share of the majority class's errors that are avoided, or R² for numbers.

    Args:
        classes: Number of classes; 0 for a number.
    """
    import numpy as np

    fitted = np.arange(len(values)) % 2 == 0
    if len(values) < _MIN_ROWS:
        return 0.0
    if classes:
        codes = _bin_values(values)
        counts = np.zeros((int(codes.max()) + 1, classes))
        np.add.at(counts, (codes[fitted], target[fitted]), 1)
        majority = counts.sum(axis=0).argmax()
        predicted = np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), majority)[codes[~fitted]]
        error = float((predicted != target[~fitted]).mean())
        majority_error = float((target[~fitted] != majority).mean())
        return 1 - error / majority_error if majority_error else 0.0
    knots, codes = np.unique(values[fitted], return_inverse=True)
    predicted = np.interp(values[~fitted], knots, np.bincount(codes, target[fitted]) / np.bincount(codes))
    variance = float(np.var(target[~fitted]))
    return 1 - float(((target[~fitted] - predicted) ** 2).mean()) / variance if variance else 0.0


def _bin_values(values: np.ndarray) -> np.ndarray:
    """Return a bin for each cell: its distinct value if there are few, otherwise its quantile bin."""
    import numpy as np

    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= _BINS or values.dtype.kind in "iu":
        return codes
    edges = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
    return np.searchsorted(edges, values)


def _find_drifts(splits: Mapping[str, _Head], spec: DataSpec) -> Iterator[Finding]:
    """Find columns whose distribution in validation or test differs from that in training."""
    columns = [("inputs", column) for column in spec.inputs] + [("targets", column) for column in spec.targets]
    tests = len(columns) * (len(splits) - 1)
    for name in splits:
        for role, column in columns if name != "train" else ():
            flags = input_kinds.get_traits(column).flags if role == "inputs" else 0
            arrays = [_select_values(getattr(splits[each], role)[column.name], flags) for each in ("train", name)]
            if arrays[0] is None or arrays[1] is None:
                continue
            distance, p_value = _compute_distance(arrays[0], arrays[1])
            p_value *= tests  # Bonferroni: among many columns some differ by chance.
            if distance > DRIFT_THRESHOLD and p_value < SIGNIFICANCE:
                yield Finding(
                    "drift",
                    f"the distribution of {quoted(column.name)} in {name} differs from that in training: "
                    f"{distance:.1%} of its rows would have to change "
                    f"(p {'< 0.001' if p_value < 0.001 else f'= {p_value:.2g}'}).",
                    "If you do not split by time or group on purpose, shuffle the rows, or check how they were split.",
                    {"split": name, "column": column.name, "distance": distance, "p_value": min(1.0, p_value)},
                )


def _compute_distance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Compute the distance of two samples, from 0 to 1, and its p-value under equal distributions.

    Numbers are compared by the Kolmogorov-Smirnov test, categories by total variation and a chi-squared test.
    """
    import numpy as np
    from scipy.special import chdtrc, kolmogorov

    if first.dtype.kind == "f":
        both = np.concatenate([first, second])
        below = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (first, second)]
        distance = float(np.abs(below[0] - below[1]).max())
        effective_rows = len(first) * len(second) / (len(first) + len(second))
        return distance, float(kolmogorov(distance * np.sqrt(effective_rows)))
    distinct = np.unique(np.concatenate([first, second]))
    counts = np.stack(
        [np.bincount(np.searchsorted(distinct, each), minlength=len(distinct)) for each in (first, second)]
    )
    if len(distinct) < 2:
        return 0.0, 1.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    # Rare categories are pooled: the chi-squared distribution does not hold for counts of a row or two.
    common = counts.sum(axis=0) >= 10
    pooled = np.concatenate([counts[:, common], counts[:, ~common].sum(axis=1, keepdims=True)], axis=1)
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    expected = np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()
    statistic = float(((pooled - expected) ** 2 / expected).sum())
    p_value = float(chdtrc(pooled.shape[1] - 1, statistic)) if pooled.shape[1] > 1 else 1.0
    return float(np.abs(shares[0] - shares[1]).sum() / 2), p_value


def _find_imbalances(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find targets whose rarest class has few rows, or far fewer rows than the largest class."""
    for column in spec.targets:
        counts = _count_classes(train, column)
        if counts is None or train.targets[column.name].ndim != 1:
            continue
        rare, most = int(counts.argmin()), int(counts.argmax())
        if counts[rare] < RARE_ROWS or counts[most] >= RARE_RATIO * counts[rare]:
            total = int(counts.sum())
            yield Finding(
                "imbalance",
                f"class {quoted(column.classes[rare])} of {quoted(column.name)} has {counts[rare]:,} of {total:,} "
                f"training rows ({counts[rare] / total:.1%}), class {quoted(column.classes[most])} "
                f"{counts[most] / total:.1%}.",
                "Watch the recall of each class; objective.class_weights: balanced gives rare classes more weight.",
                {"target": column.name, "rare": column.classes[rare], "rows": int(counts[rare]), "of": total},
            )


def _select_values(array: np.ndarray, flags: int) -> np.ndarray | None:
    """Return one value a row, `(rows,)`, without the flag of missing cells; None for a column of several values.

    Args:
        flags: Number of its last channels that flag missing cells.
    """
    import numpy as np

    width = int(np.prod(array.shape[1:], dtype="int64"))
    if array.ndim > 2 or width - flags != 1:
        return None
    return array.reshape(len(array), -1)[:, 0]
