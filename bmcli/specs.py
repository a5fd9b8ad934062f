"""What the data turned out to be: the values that pass from data to models and back to serving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.records import validate_as

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Column:
    """One column with everything that was learned about it on the training split.

    Args:
        name: Name in the source and in the recipe.
        kind: The part of `inputs` that fitted it.
        shape: Encoded shape without the batch axis.
        dtype: Encoded dtype, as numpy names it.
        raw_shape: Shape a served model accepts, without the batch axis; None is any size.
        raw_dtype: `string`, or a numpy dtype.
        classes: Class names in the order of their indices, for categories.
        state: What the kind fitted, as plain JSON values.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    raw_shape: tuple[int | None, ...] = ()
    raw_dtype: str = "float32"
    classes: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSpec:
    """Columns, counts and identity of the data of a run.

    Args:
        inputs, targets: In the order of the recipe.
        counts: Rows of each split, e.g. `{"train": 1437, "validation": 180, "test": 180}`.
        fingerprint: SHA-256 of the source's bytes.
        stratified: Column whose proportions every split keeps, if any.
        key: Content key of the prepared arrays: source, options, split seed and version of the code.
        weight: Column that tells how much a training row counts, if any.
        source: What the source's options came to where they are `auto`, by name.
        invalid: How many cells could not be read, by column, and were left out with their rows or filled.
        skipped: How many rows were left out for such cells, before the split.
        broken: How many records of the source were no rows, for their number of cells or otherwise, and were left out.
        crosses: Combinations of inputs, which the network makes itself: of `state["columns"]`, by name.
    """

    inputs: tuple[Column, ...]
    targets: tuple[Column, ...]
    counts: Mapping[str, int]
    fingerprint: str
    key: str
    stratified: str | None = None
    weight: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    invalid: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    broken: int = 0
    crosses: tuple[Column, ...] = ()

    def input(self, name: str) -> Column:
        return next(column for column in self.inputs if column.name == name)

    def target(self, name: str) -> Column:
        return next(column for column in self.targets if column.name == name)

    def to_json(self) -> dict[str, Any]:
        columns = {role: [vars(column) for column in getattr(self, role)] for role in ("inputs", "targets", "crosses")}
        return {**vars(self), **columns}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSpec:
        """What `to_json` gave.

        Raises:
            Damaged: Something is missing, or of another type.
        """
        return validate_as(cls, values)


MANY_COLUMNS = 200
"""From so many inputs on, columns alike are kept in one file and computed together, since each file and each operation
of a graph has its price."""


def stack_of(column: Column) -> str:
    """The file of the arrays of columns alike: of one dtype and one shape."""
    return "-".join(["inputs", column.dtype, *map(str, column.shape)])


@dataclass(frozen=True)
class Split:
    """Encoded rows of one split: arrays by column name, all with the same first axis.

    Args:
        weights: How much each row counts, float32 `(rows,)`, or None if all count the same.
        label_weights: Factor of each row's loss of labels, float32 `(rows,)`: 0 if its targets are not known, and
            for the others what makes the mean over all rows 1; or None if all targets are known.
        teacher_outputs: What teachers say of each row: `outputs` by target and `layers` by name, or empty.
    """

    inputs: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    weights: np.ndarray | None = None
    label_weights: np.ndarray | None = None
    teacher_outputs: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class PreparedData:
    """Fitted preprocessing and encoded splits, as memory-mapped arrays in a folder named by its key.

    Args:
        transfer: What is learned from in the place of the training rows, if it is something else.
    """

    spec: DataSpec
    folder: Path
    transfer: Split | None = None

    def split(self, name: str) -> Split:
        """The rows of a split; without rows if the data has none for it."""
        if name == "train" and self.transfer is not None:
            return self.transfer
        return Split(
            # Files are numbered, never named after columns: a column's name is foreign text.
            inputs=self._stacked_inputs(name)
            if len(self.spec.inputs) >= MANY_COLUMNS
            else {c.name: self._load_array(name, f"inputs-{i}") for i, c in enumerate(self.spec.inputs)},
            targets={c.name: self._load_array(name, f"targets-{i}") for i, c in enumerate(self.spec.targets)},
            weights=None if self.spec.weight is None else self._load_array(name, "weights"),
        )

    def with_spec(self, spec: DataSpec) -> PreparedData:
        """The same arrays, with what another spec tells of their columns; the files keep the order of this one."""
        inputs = {column.name: column for column in spec.inputs}
        return replace(
            self,
            spec=replace(
                spec,
                inputs=tuple(inputs[column.name] for column in self.spec.inputs),
                targets=tuple(spec.target(column.name) for column in self.spec.targets),
            ),
        )

    def _stacked_inputs(self, split: str) -> dict[str, np.ndarray]:
        """Many inputs by column, each a part of the file of columns alike."""
        import numpy as np

        files = dict.fromkeys(map(stack_of, self.spec.inputs))
        stacks = {file: iter(np.asarray(self._load_array(split, file))) for file in files}
        return {column.name: next(stacks[stack_of(column)]) for column in self.spec.inputs}

    def _load_array(self, split: str, file: str) -> np.ndarray:
        import numpy as np

        return np.load(self.folder / split / f"{file}.npy", mmap_mode="r", allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        return cls(DataSpec.from_json(json.loads((folder / "spec.json").read_text())), folder)
