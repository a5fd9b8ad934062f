"""Descriptions of prepared data: columns, splits and arrays, as models, training and serving use them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bmcli.records import validate_as

if TYPE_CHECKING:
    import numpy as np

    from bmcli.windows import EncodedRows, EncodedTarget

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Column:
    """One column with the state that was fitted on the training rows.

    Args:
        name: Name in the source and in the recipe.
        kind: The module of `inputs` or `data.targets` that fitted it.
        shape: Encoded shape without the batch axis; of windows `(length, ...)`.
        dtype: Encoded NumPy dtype.
        raw_shape: Shape that a served model accepts, without the batch axis; None is any size.
        raw_dtype: `string`, or a NumPy dtype.
        classes: Class names in the order of their indices, for categories.
        class_counts: Training rows of each class, for targets with one class a row.
        state: Fitted values of the kind, as plain JSON values.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    raw_shape: tuple[int | None, ...] = ()
    raw_dtype: str = "float32"
    classes: tuple[str, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    class_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class OutputSpec:
    """Meaning of one output of a network. Its objective makes it, and alone reads its state.

    Args:
        name: Of the output: that of its target, or of its own if it has none.
        objective: Kind of the objective.
        shape: Shape of a prediction without the batch axis; None is any size.
        dtype: NumPy dtype of a prediction.
        names: Names of what the last axis counts: classes, labels or tokens; empty for numbers.
        activation: Keras activation from the network's outputs to probabilities, `softmax` over all or `sigmoid` of
            each; `linear` if the outputs are no logits.
        state: Values that predictions depend on, such as a temperature or quantiles, as plain JSON values.
        inputs: Inputs from which the objective learns without a target; empty if it has one.
    """

    name: str
    objective: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "linear"] = "linear"
    state: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSpec:
    """Columns, outputs, row counts and identity of prepared data.

    Args:
        inputs, targets: In the order of the recipe.
        counts: Number of rows of each split, e.g. `{"train": 1437, "validation": 180, "test": 180}`.
        fingerprint: SHA-256 of the source's bytes.
        key: Content key of the prepared arrays: source, options, split seed and version of the code.
        stratified_by: Column whose proportions every split keeps, if any.
        groups: Number of groups of each split, if `data.split.group` keeps groups of rows together.
        moved_rows: Number of rows that were moved to training, because no training row had their class or label.
        weight: Column of the rows' weights, if any.
        source: Detected values of the source's options that are `auto`, by name.
        invalid_cells: Number of cells that could not be read, by column; their rows were skipped, or they were filled.
        skipped_rows: Number of rows that were skipped for such cells, before the split.
        malformed_records: Number of records of the source that were skipped, such as lines with too few cells.
        notes: Sentences about what had to be guessed when the source was read.
        crosses: Crosses of the inputs in `state["of"]`, which the network computes itself.
        outputs: What a network learns from these data, by the objectives of a recipe; empty before they are known.
        derived: What objectives learn from inputs in place of a target, described as one; known with `outputs`.
    """

    inputs: tuple[Column, ...]
    targets: tuple[Column, ...]
    counts: Mapping[str, int]
    fingerprint: str
    key: str
    stratified_by: str | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    moved_rows: int = 0
    weight: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    invalid_cells: Mapping[str, int] = field(default_factory=dict)
    skipped_rows: int = 0
    malformed_records: int = 0
    notes: tuple[str, ...] = ()
    crosses: tuple[Column, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    derived: tuple[Column, ...] = ()

    @property
    def learned(self) -> tuple[Column, ...]:
        """All that is learned: targets, and what is derived from inputs; in the order of the outputs."""
        return (*self.targets, *self.derived)

    def input(self, name: str) -> Column:
        """Return the input of a name."""
        return next(column for column in self.inputs if column.name == name)

    def target(self, name: str) -> Column:
        """Return what the output of a name learns: its target, or what is derived from inputs."""
        return next(column for column in self.learned if column.name == name)

    def output(self, name: str) -> OutputSpec:
        """Return the output of a name."""
        return next(output for output in self.outputs if output.name == name)

    def with_output(self, output: OutputSpec) -> DataSpec:
        """Replace the output of the same name."""
        return replace(self, outputs=tuple(output if each.name == output.name else each for each in self.outputs))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values, which `from_json` reads."""
        lists = ("inputs", "targets", "crosses", "outputs", "derived")
        return {**vars(self), **{name: [vars(each) for each in getattr(self, name)] for name in lists}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSpec:
        """Read the values of `to_json`.

        Raises:
            DamagedFile: A field is missing, or of another type.
        """
        return validate_as(cls, values)


MANY_COLUMNS = 200
"""Number of inputs from which on columns of one shape and dtype share a file and an encoding layer: each file and each
operation of a graph has a fixed cost."""


def get_stack_name(column: Column) -> str:
    """Return the name of the file that holds all columns of this dtype and shape."""
    return "-".join(["inputs", column.dtype, *map(str, column.shape)])


def get_base_name(file: str) -> str:
    """Return the name of the file of the array whose windows a file of each split has."""
    return f"{file}-base.npy"


def load_rows(folder: Path, split: str, file: str, column: Column) -> EncodedRows:
    """Map the rows of a column from their file, or their windows if there is a file of their base beside the splits."""
    from bmcli.windows import WindowedArray  # not at the top: most commands open no arrays

    rows, base = _load_array(folder / split / f"{file}.npy"), folder / get_base_name(file)
    return WindowedArray(_load_array(base), rows, column.shape[0]) if base.exists() else rows


def _load_array(path: Path) -> np.ndarray:
    import numpy as np

    # Mapped, because the rows may be larger than memory. Loading a pickled object could run code.
    return np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Split:
    """Encoded rows of one split: arrays or windows by column name, all with the same first axis.

    Args:
        weights: Weight of each row, float32 `(rows,)`, or None if all weights are equal.
        label_weights: Factor of each row's loss against its labels, float32 `(rows,)`: 0 without known targets, and
            for the other rows the value for which the mean over all rows is 1; or None if all targets are known.
        teacher_outputs: Predictions of the teachers: `outputs` by target and `layers` by name, or empty.
    """

    inputs: Mapping[str, EncodedRows]
    targets: Mapping[str, EncodedRows]
    weights: np.ndarray | None = None
    label_weights: np.ndarray | None = None
    teacher_outputs: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def read_target(self, output: OutputSpec, rows: np.ndarray | None = None) -> EncodedTarget:
        """Read the encoded target of an output, or the inputs by name that it learns from.

        Args:
            rows: Positions of the rows, in increasing order; None for all.
        """

        def take(array: EncodedRows) -> EncodedRows:
            return array if rows is None else array[rows]

        if output.inputs:
            return {name: take(self.inputs[name]) for name in output.inputs}
        return take(self.targets[output.name])


@dataclass(frozen=True)
class PreparedData:
    """Fitted preprocessing and encoded splits, as memory-mapped arrays in a folder named by its key.

    Args:
        transfer: Transfer set of a distillation, which replaces the training rows; None without one.
    """

    spec: DataSpec
    folder: Path
    transfer: Split | None = None

    def split(self, name: str) -> Split:
        """Open the arrays of a split; it has no rows if the data has none for it."""
        if name == "train" and self.transfer is not None:
            return self.transfer
        spec, folder = self.spec, self.folder
        return Split(
            # Files are numbered, never named after columns: a column's name is foreign text.
            inputs=self._load_stacked(name)
            if len(spec.inputs) >= MANY_COLUMNS
            else {c.name: load_rows(folder, name, f"inputs-{i}", c) for i, c in enumerate(spec.inputs)},
            targets={c.name: load_rows(folder, name, f"targets-{i}", c) for i, c in enumerate(spec.targets)},
            weights=None if spec.weight is None else _load_array(folder / name / "weights.npy"),
        )

    def with_spec(self, spec: DataSpec) -> PreparedData:
        """Describe the same arrays by the columns of another spec, such as that of a run.

        The columns keep the order of this spec, because the files are numbered by it.
        """
        inputs = {column.name: column for column in spec.inputs}
        return replace(
            self,
            spec=replace(
                spec,
                inputs=tuple(inputs[column.name] for column in self.spec.inputs),
                targets=tuple(spec.target(column.name) for column in self.spec.targets),
            ),
        )

    def _load_stacked(self, split: str) -> dict[str, EncodedRows]:
        """Load the inputs by column: windows, or a slice of the file of all columns of its shape and dtype."""
        import numpy as np

        bases = {path.name for path in self.folder.glob(get_base_name("*"))}
        inputs: dict[str, EncodedRows] = {}
        stacks: dict[str, Iterator[np.ndarray]] = {}
        for number, column in enumerate(self.spec.inputs):
            file, stack = f"inputs-{number}", get_stack_name(column)
            if get_base_name(file) in bases:
                inputs[column.name] = load_rows(self.folder, split, file, column)
                continue
            if stack not in stacks:
                stacks[stack] = iter(np.asarray(_load_array(self.folder / split / f"{stack}.npy")))
            inputs[column.name] = next(stacks[stack])
        return inputs

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Open the prepared data in a folder."""
        return cls(DataSpec.from_json(json.loads((folder / "spec.json").read_text())), folder)
