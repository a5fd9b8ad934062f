"""Checks of prepared data: duplicates across splits, conflicting labels, leaks of the target, drift, rare classes.

The checks see encoded rows, as the network does: cells with the same encoding are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.advice import make_command
from bmcli.data import targets as target_kinds
from bmcli.data.profiling.groups import find_divided_groups
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
# A class is rare if the largest class has this many times its rows; the smaller ratio is for classes of few rows.
RARE_RATIO, FEW_ROWS, FEW_ROWS_RATIO = 20.0, 20, 5.0

_BINS = 50  # quantile bins of numbers, in the prediction of a class
_MAX_FLAW_ROWS = 1000  # cells of an input that are looked at
_MIN_ROWS = 40  # with fewer rows no leak is looked for
_MIN_ERRORS = 10  # errors of the majority class, with fewer of which a perfect prediction may be chance
_MIN_EXPECTED = 5.0  # rows of a category in either split, with fewer of which the chi-squared test is not valid
_CHANCE_RATIO = (
    3.0  # up to this many times the coincidences of independent columns, rows are not suspected to be copies
)
_NEVER = 1e-6  # a share of rows that counts as none
_COARSE_ROWS = 10  # rows for each different row of inputs, from which on equal rows are to be expected


@dataclass(frozen=True)
class Finding:
    """One result of the checks.

    Args:
        check: `duplicates`, `conflicts`, `leak`, `groups`, `drift`, `imbalance`, `spelling` or `flaw`.
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
    splits = {
        name: _load_head(prepared.split(name), spec.groups.get(name)) for name in spec.counts if spec.counts[name]
    }
    codes = {name: _hash_rows(split) for name, split in splits.items()}
    chance = _estimate_coincidences(splits["train"], codes["train"], spec)
    return (
        *_find_duplicates(codes, chance),
        *_find_conflicts(codes["train"], chance, splits["train"], spec),
        *_find_leaks(splits["train"], spec),
        *find_divided_groups(prepared),
        *_find_drifts(splits, spec),
        *_find_imbalances(splits["train"], spec),
        *find_spellings(spec),
        *_find_flaws(splits["train"], spec),
    )


def find_spellings(spec: DataSpec) -> Iterator[Finding]:
    """Find categories and classes that are written in several ways, or that differ only by upper and lower case."""
    described = [(column, input_kinds.get_traits(column).describe_spellings()) for column in spec.inputs]
    described += [(column, target_kinds.describe_spellings(column)) for column in spec.targets]
    for column, sentences in described:
        if sentences:
            yield Finding(
                "spelling",
                f"column {quoted(column.name)}: {' '.join(sentences)}",
                "Write each category in one way if that is not intended.",
                {"column": column.name},
            )


@dataclass(frozen=True)
class _Head:
    """The first rows of a split, in memory, by column.

    Args:
        units: Number of independent units, by which tests count: rows, or the groups that a split keeps together.
    """

    inputs: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    units: int


def _load_head(split: Split, groups: int | None) -> _Head:
    """Load the rows that are checked into memory."""
    import numpy as np

    row_bytes = sum(map(count_row_bytes, split.inputs.values()))
    rows = min(len(split), MAX_ROWS, max(1, MAX_BYTES // max(1, row_bytes)))
    return _Head(
        {name: np.asarray(array[:rows]) for name, array in split.inputs.items()},
        {name: np.asarray(array[:rows]) for name, array in split.targets.items()},
        rows if groups is None else min(rows, groups),
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


def _estimate_coincidences(train: _Head, codes: np.ndarray, spec: DataSpec) -> float:
    """Estimate the share of rows that have the same inputs as a training row without being copies, from 0 to 1.

    Rows of few columns with few values coincide by chance: as often as if the columns were independent, and always if
    each of few different rows is there many times. Texts, pictures and other cells of several values never do.
    """
    import numpy as np

    if len(codes) >= _COARSE_ROWS * len(np.unique(codes)):
        return 1.0
    expected = float(len(codes))
    for column in spec.inputs:
        values = _select_values(train.inputs[column.name], input_kinds.get_traits(column).flags)
        if values is None or expected < _NEVER:
            return 0.0
        _, counts = np.unique(values, return_counts=True)
        pairs = len(values) * (len(values) - 1)
        expected *= float((counts * (counts - 1.0)).sum()) / max(1, pairs)  # the share of pairs of rows that are equal
    return min(1.0, expected)


def _exceeds_chance(rows: int, of: int, chance: float) -> bool:
    """Whether more rows coincide than by chance: a binomial test of several times the estimated share."""
    from scipy.special import bdtrc

    return rows > 0 and float(bdtrc(rows - 1, of, min(1.0, _CHANCE_RATIO * chance))) < SIGNIFICANCE


def _find_duplicates(codes: Mapping[str, np.ndarray], chance: float) -> Iterator[Finding]:
    """Find validation and test rows that have the same inputs as a training row, if they are more than by chance."""
    import numpy as np

    for name in codes:
        if name == "train":
            continue
        duplicates = int(np.isin(codes[name], codes["train"]).sum())
        share = duplicates / len(codes[name])
        if _exceeds_chance(duplicates, len(codes[name]), chance):
            yield Finding(
                "duplicates",
                f"{_format_share(share)} of the {name} rows ({duplicates:,} of {len(codes[name]):,}) have the same "
                f"inputs as a training row: the {name} metrics may be optimistic.",
                "If they are copies, remove duplicate rows, or keep equal rows in one split: data.split.hash or group.",
                {"split": name, "rows": duplicates, "share": share},
            )


def _format_share(share: float) -> str:
    """Format a share in per cent, a small one with a decimal."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _find_flaws(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find inputs whose cells all look the same, such as black pictures."""
    for column in spec.inputs:
        cells = train.inputs[column.name]
        flaw = input_kinds.get_traits(column).describe_flaw(cells[:: -(-len(cells) // _MAX_FLAW_ROWS)])
        if flaw:
            yield Finding(
                "flaw",
                f"{quoted(column.name)}: {flaw}",
                f"Look at them as the network sees them: {make_command('plan', 'RECIPE', '--pictures', 'FILE')}.",
                {"column": column.name},
            )


def _count_classes(rows: _Head, target: Column) -> np.ndarray | None:
    """Count the rows of each class of a target; None if it has no classes."""
    kind = target_kinds.kind_of(target)
    return kind.count_classes(kind.decode(rows.targets[target.name], target), target)


def _find_conflicts(codes: np.ndarray, chance: float, train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find training rows with the same inputs and different classes, unless rows coincide by chance."""
    import numpy as np

    _, group_of_row, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if not _exceeds_chance(int((counts[group_of_row] > 1).sum()), len(codes), chance):
        return
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
                f"identical inputs with different labels: {rows:,} training rows have the same inputs as a row with "
                f"another {quoted(column.name)}, which limits the accuracy of any model.",
                "Look for wrong labels, or for a feature that distinguishes these rows.",
                {"target": column.name, "rows": rows, "groups": int(is_conflict.sum())},
            )


def _find_leaks(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find columns that predict a target nearly perfectly by themselves (target leakage)."""
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
                    f"({_describe_predictability(predictability, counts is not None)}): possible target leakage.",
                    f"If its value is not known before the target's, drop it: data.drop: "
                    f"[{write_scalar(column.name)}].",
                    {"target": target.name, "column": column.name, "predictability": predictability},
                )


def _describe_predictability(predictability: float, is_class: bool) -> str:
    return f"{predictability:.1%} of the majority class's errors avoided" if is_class else f"R² {predictability:.3f}"


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
        is_chance = majority_error * (~fitted).sum() < _MIN_ERRORS
        return 0.0 if is_chance else 1 - error / majority_error
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
            units = (splits["train"].units, splits[name].units)
            distance, p_value = _compare_distributions(arrays[0], arrays[1], units)
            p_value *= tests  # Bonferroni: among many columns some differ by chance.
            if distance > DRIFT_THRESHOLD and p_value < SIGNIFICANCE:
                yield Finding(
                    "drift",
                    f"{quoted(column.name)} is distributed differently in {name} than in training (data drift): "
                    f"distance {distance:.2f} of at most 1, p {'< 0.001' if p_value < 0.001 else f'= {p_value:.2g}'}.",
                    "Expected of a split by time or group; otherwise shuffle the rows, or check how they were split.",
                    {"split": name, "column": column.name, "distance": distance, "p_value": min(1.0, p_value)},
                )


def _compare_distributions(train: np.ndarray, other: np.ndarray, units: tuple[int, int]) -> tuple[float, float]:
    """Compute the distance of two samples, from 0 to 1, and its p-value under equal distributions.

    Args:
        units: Number of independent units in each sample.
    """
    import numpy as np
    from scipy.special import kolmogorov

    if train.dtype.kind != "f":
        return _compare_categories(train, other, units)
    both = np.concatenate([train, other])
    below = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (train, other)]
    distance = float(np.abs(below[0] - below[1]).max())
    effective_rows = units[0] * units[1] / (units[0] + units[1])
    return distance, float(kolmogorov(distance * np.sqrt(effective_rows)))  # the Kolmogorov-Smirnov test


def _compare_categories(train: np.ndarray, other: np.ndarray, units: tuple[int, int]) -> tuple[float, float]:
    """Compare categories by their total variation, without the part that is due to chance.

    Three tests share the level: a chi-squared test of the categories with enough rows, a binomial test of the rows of
    all others together, and one of the rows with categories that training lacks.
    """
    import numpy as np
    from scipy.special import chdtrc

    distinct = np.unique(np.concatenate([train, other]))
    if len(distinct) < 2:
        return 0.0, 1.0
    counts = np.stack(
        [np.bincount(np.searchsorted(distinct, each), minlength=len(distinct)) for each in (train, other)]
    )
    counts = counts * (np.array(units) / counts.sum(axis=1))[:, None]
    totals, total = counts.sum(axis=0), counts.sum()
    # Categories of validation and test that training lacks are one code, so its rows must be pooled with the rare ones.
    is_rare = (totals * min(units) / total < _MIN_EXPECTED) | (counts[0] == 0)
    common, rare = counts[:, ~is_rare], counts[:, is_rare].sum(axis=1)
    pooled = np.concatenate([common, rare[:, None]], axis=1)
    shares, mean = pooled / np.array(units)[:, None], np.minimum(pooled.sum(axis=0) / total, 1.0)
    noise = np.sqrt(2 / np.pi * mean * (1 - mean) * (1 / units[0] + 1 / units[1])).sum() / 2
    distance = max(float(np.abs(shares[0] - shares[1]).sum() / 2 - noise), 0.0)
    p_value = 1.0
    if common.shape[1] > 1:
        expected = np.outer(common.sum(axis=1), common.sum(axis=0)) / common.sum()
        p_value = float(chdtrc(common.shape[1] - 1, ((common - expected) ** 2 / expected).sum()))
    excess, unseen_p_value = _compare_unseen(counts, units)
    return max(distance, excess), min(1.0, 3 * min(p_value, _compare_rare(rare, units), unseen_p_value))


def _compare_rare(rare: np.ndarray, units: tuple[int, int]) -> float:
    """Compute the p-value of the rows with rare categories in the two samples, by a binomial test of both sides."""
    from scipy.special import bdtrc

    rows = [round(float(each)) for each in rare]
    tails = [float(bdtrc(rows[sample] - 1, sum(rows), units[sample] / sum(units))) for sample in (0, 1) if rows[sample]]
    return min([1.0, *(2 * tail for tail in tails)])


def _compare_unseen(counts: np.ndarray, units: tuple[int, int]) -> tuple[float, float]:
    """Compare the rows with categories that training lacks with those to be expected; return the excess and p-value.

    Of new rows, as many have a new category as training rows have one of their own (Good 1953, after Turing); three
    standard deviations are added, since that share is itself an estimate.

    Args:
        counts: Rows by sample and category, `(2, categories)`.
    """
    import numpy as np
    from scipy.special import bdtrc

    unseen = counts[0] == 0
    rows = float(counts[1, unseen].sum())
    if round(rows) == 0:
        return 0.0, 1.0
    single = float((counts[0] < 1.5).sum() - unseen.sum())
    expected = min(1.0, (single + 3 * np.sqrt(single + 1)) / units[0])
    return rows / units[1] - expected, float(bdtrc(round(rows) - 1, units[1], expected))


def _find_imbalances(train: _Head, spec: DataSpec) -> Iterator[Finding]:
    """Find targets whose rarest class has far fewer rows than the largest class."""
    for column in spec.targets:
        counts = _count_classes(train, column)
        if counts is None or train.targets[column.name].ndim != 1:
            continue
        rare, most = int(counts.argmin()), int(counts.argmax())
        ratio = FEW_ROWS_RATIO if counts[rare] < FEW_ROWS else RARE_RATIO
        if counts[most] >= ratio * counts[rare]:
            total = int(counts.sum())
            yield Finding(
                "imbalance",
                f"class imbalance of {quoted(column.name)}: {counts[rare]:,} of {total:,} training rows "
                f"({counts[rare] / total:.1%}) have class {quoted(column.classes[rare])}, {counts[most] / total:.1%} "
                f"class {quoted(column.classes[most])}.",
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
