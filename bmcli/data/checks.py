"""What is suspicious about prepared data: rows in two splits, labels that contradict, a column that tells the target.

The encoded rows are looked at, as the network will see them: what the encoding takes for the same is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli.quoting import quoted
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column, DataSpec, PreparedData, Split

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 100_000  # of each split that are looked at
MOST_BYTES = 2**30
LEAK_THRESHOLD = 0.97  # of what there is to tell, from which on a column tells the target alone
DRIFT_THRESHOLD = 0.1  # distance of two distributions, from 0 to 1
SIGNIFICANCE = 0.01
RARE_ROWS, RARE_RATIO = 20, 20.0

_BINS = 50


@dataclass(frozen=True)
class Finding:
    """Something to look into before training.

    Args:
        check: `duplicates`, `conflicts`, `leak`, `drift` or `imbalance`.
        message: What was found, with numbers.
        suggestion: What to do about it.
        numbers: The same for programs.
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
    """Everything suspicious about the splits of some prepared data.

    Of each split the first 100,000 rows are looked at, or as many as 1 GiB holds.
    """
    spec = prepared.spec
    splits = {name: _head(prepared.split(name)) for name in spec.counts if spec.counts[name]}
    codes = {name: _hash_rows(split) for name, split in splits.items()}
    return (
        *_find_duplicates(codes, splits),
        *_find_conflicts(codes["train"], splits["train"], spec),
        *_find_leaks(splits["train"], spec),
        *_find_drifts(splits, spec),
        *_find_imbalances(splits["train"], spec),
    )


def _head(split: Split) -> Split:
    """The rows that are looked at, in memory."""
    import numpy as np

    row_bytes = sum(int(np.prod(a.shape[1:], dtype="int64")) * a.itemsize for a in split.inputs.values())
    rows = min(len(split), MOST_ROWS, max(1, MOST_BYTES // max(1, row_bytes)))
    return Split(
        {name: np.asarray(array[:rows]) for name, array in split.inputs.items()},
        {name: np.asarray(array[:rows]) for name, array in split.targets.items()},
    )


def _hash_rows(split: Split) -> np.ndarray:
    """A number of 64 bits for each row that follows from all its inputs, `(rows,)`."""
    import numpy as np

    flat = [np.ascontiguousarray(a).reshape(len(a), -1).view("uint8") for a in split.inputs.values()]
    digests = [
        hashlib.blake2b(b"".join(array[row].tobytes() for array in flat), digest_size=8).digest()
        for row in range(len(split))
    ]
    return np.frombuffer(b"".join(digests), "uint64")


def _find_duplicates(codes: Mapping[str, np.ndarray], splits: Mapping[str, Split]) -> Iterator[Finding]:
    """Rows of validation and test whose inputs are those of a training row."""
    import numpy as np

    for name in codes:
        if name == "train":
            continue
        again = int(np.isin(codes[name], codes["train"]).sum())
        if again:
            share = again / len(codes[name])
            yield Finding(
                "duplicates",
                f"{again:,} of {len(codes[name]):,} {name} rows ({share:.1%}) duplicate the inputs of a training row; "
                f"the {name} score may be optimistic.",
                "If they are copies, leave them out, or keep equal rows together by data.split.hash or group.",
                {"split": name, "rows": again, "share": share},
            )


def _find_conflicts(codes: np.ndarray, train: Split, spec: DataSpec) -> Iterator[Finding]:
    """Training rows with the same inputs and different classes."""
    import numpy as np

    _, of_row = np.unique(codes, return_inverse=True)
    for column in spec.targets:
        if not column.classes:
            continue
        targets = train.targets[column.name].reshape(len(codes), -1)
        _, answers = np.unique(targets, axis=0, return_inverse=True)
        pairs = np.unique(np.stack([of_row, answers.reshape(-1)]), axis=1)
        several = np.bincount(pairs[0]) > 1
        rows = int(several[of_row].sum())
        if rows:
            yield Finding(
                "conflicts",
                f"{rows:,} training rows share their inputs with a row of another "
                f"{quoted(column.name)}, so no network can "
                f"tell all of them.",
                "Look for wrong labels, or for a column that is missing.",
                {"target": column.name, "rows": rows, "groups": int(several.sum())},
            )


def _find_leaks(train: Split, spec: DataSpec) -> Iterator[Finding]:
    """Columns that alone tell nearly all there is to tell of a target."""
    for target in spec.targets:
        if target.kind == "labels":
            continue
        for column in spec.inputs:
            values = _select_values(train.inputs[column.name], column)
            if values is None:
                continue
            told = _compute_predictability(values, train.targets[target.name], target)
            if told >= LEAK_THRESHOLD:
                yield Finding(
                    "leak",
                    f"column {quoted(column.name)} alone tells {told:.1%} of what there is to tell of "
                    f"{quoted(target.name)}.",
                    f"If it is known only once the target is, leave it out: data.drop: [{write_scalar(column.name)}].",
                    {"target": target.name, "column": column.name, "told": told},
                )


def _compute_predictability(values: np.ndarray, target: np.ndarray, column: Column) -> float:
    """How much of a target a column tells on rows it was not looked up in: 0 for nothing, 1 for all.

    Cells are looked up in the other half of the rows: classes by the most frequent one of a bin, numbers between the
    nearest cells. Of classes it is the share of the errors of the most frequent class that are avoided, of numbers that
    of the variance.
    """
    import numpy as np

    half = np.arange(len(values)) % 2 == 0
    if len(values) < 40:
        return 0.0
    if column.classes:
        codes = _bin_values(values)
        counts = np.zeros((int(codes.max()) + 1, len(column.classes)))
        np.add.at(counts, (codes[half], target[half]), 1)
        usual = counts.sum(axis=0).argmax()
        guessed = np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), usual)[codes[~half]]
        wrong, before = float((guessed != target[~half]).mean()), float((target[~half] != usual).mean())
        return 1 - wrong / before if before else 0.0
    told, codes = np.unique(values[half], return_inverse=True)
    guessed = np.interp(values[~half], told, np.bincount(codes, target[half]) / np.bincount(codes))
    variance = float(np.var(target[~half]))
    return 1 - float(((target[~half] - guessed) ** 2).mean()) / variance if variance else 0.0


def _bin_values(values: np.ndarray) -> np.ndarray:
    """A whole number for each cell: its value if there are few, else its quantile."""
    import numpy as np

    told, codes = np.unique(values, return_inverse=True)
    if len(told) <= _BINS or values.dtype.kind in "iu":
        return codes
    edges = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
    return np.searchsorted(edges, values)


def _find_drifts(splits: Mapping[str, Split], spec: DataSpec) -> Iterator[Finding]:
    """Columns that are distributed otherwise in validation or test than in training."""
    columns = [("inputs", column) for column in spec.inputs] + [("targets", column) for column in spec.targets]
    looks = len(columns) * (len(splits) - 1)
    for name in splits:
        for role, column in columns if name != "train" else ():
            arrays = [_select_values(getattr(splits[each], role)[column.name], column) for each in ("train", name)]
            if arrays[0] is None or arrays[1] is None:
                continue
            distance, p_value = _distance(arrays[0], arrays[1])
            if distance > DRIFT_THRESHOLD and p_value * looks < SIGNIFICANCE:
                yield Finding(
                    "drift",
                    f"{quoted(column.name)} is distributed otherwise in {name} than in training: "
                    f"{distance:.1%} of its rows "
                    f"would have to change (p {'< 0.001' if p_value * looks < 0.001 else f'= {p_value * looks:.2g}'}).",
                    "If the splits are not by time or group on purpose, shuffle the rows, or see how they were made.",
                    {"split": name, "column": column.name, "distance": distance, "p_value": min(1.0, p_value * looks)},
                )


def _distance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How far apart two samples are, and how often two of one law would be as far: Kolmogorov-Smirnov's for numbers,
    total variation with a chi-squared test for categories."""
    import numpy as np
    from scipy.special import chdtrc, kolmogorov

    if first.dtype.kind == "f":
        every = np.concatenate([first, second])
        below = [np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (first, second)]
        distance = float(np.abs(below[0] - below[1]).max())
        harmonic = len(first) * len(second) / (len(first) + len(second))
        return distance, float(kolmogorov(distance * np.sqrt(harmonic)))
    told = np.unique(np.concatenate([first, second]))
    counts = np.stack([np.bincount(np.searchsorted(told, each), minlength=len(told)) for each in (first, second)])
    if len(told) < 2:
        return 0.0, 1.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    # Rare categories together, or the test finds differences of a row or two.
    common = counts.sum(axis=0) >= 10
    pooled = np.concatenate([counts[:, common], counts[:, ~common].sum(axis=1, keepdims=True)], axis=1)
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    expected = np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()
    statistic = float(((pooled - expected) ** 2 / expected).sum())
    p_value = float(chdtrc(pooled.shape[1] - 1, statistic)) if pooled.shape[1] > 1 else 1.0
    return float(np.abs(shares[0] - shares[1]).sum() / 2), p_value


def _find_imbalances(train: Split, spec: DataSpec) -> Iterator[Finding]:
    """Classes with few rows, alone or beside others."""
    import numpy as np

    for column in spec.targets:
        if column.kind not in ("category", "ordered"):
            continue
        counts = np.bincount(train.targets[column.name], minlength=len(column.classes))
        rare, most = int(counts.argmin()), int(counts.argmax())
        if counts[rare] < RARE_ROWS or counts[most] >= RARE_RATIO * counts[rare]:
            total = int(counts.sum())
            yield Finding(
                "imbalance",
                f"class {quoted(column.classes[rare])} of {quoted(column.name)} has {counts[rare]:,} "
                f"of {total:,} training rows "
                f"({counts[rare] / total:.1%}), {quoted(column.classes[most])} {counts[most] / total:.1%}.",
                "Watch the recall of each class; objective.class_weights: balanced gives rare ones more weight.",
                {"target": column.name, "rare": column.classes[rare], "rows": int(counts[rare]), "of": total},
            )


def _select_values(array: np.ndarray, column: Column) -> np.ndarray | None:
    """One value a row, `(rows,)`, or None for a column of more; a channel that tells what is missing is left out."""
    import numpy as np

    width = int(np.prod(array.shape[1:], dtype="int64"))
    if array.ndim > 2 or width != 1 + bool(column.state.get("flag")):
        return None
    return array.reshape(len(array), -1)[:, 0]
