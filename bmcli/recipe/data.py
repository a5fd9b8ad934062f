"""Section `data`: source, split, and kinds of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bmcli import dates, parts
from bmcli.quoting import quoted
from bmcli.recipe.augment import Augmentations, find_input_problem, find_order_problem
from bmcli.recipe.fields import Kind, Options, PartField, Share, fault, fault_at
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import KeyPath
from bmcli.recipe.problems import Problem
from bmcli.recipe.targets import TargetOptions


class FoldOptions(Options):
    """One fold of the rows, tested on a network that was trained on the others."""

    number: Annotated[int, Field(ge=1, le=100)] = Field(description="Fold to test, from 1.")
    of: Annotated[int, Field(ge=2, le=100)] = Field(description="Number of folds.")

    @model_validator(mode="after")
    def _check_number(self) -> FoldOptions:
        if self.number > self.of:
            raise fault_at(
                ("number",), f"there is no fold {self.number} of {self.of}.", f"Use a number from 1 to {self.of}."
            )
        return self


class SplitOptions(Options):
    """Split of the rows into training, validation and test rows.

    Rows are split at random, or by `group`, `time` or `hash`. Fractions apply to the rows that are not split yet. Where
    the source has one file per split, or `column` contains the split, a fraction of the training rows can still become
    validation rows in the same way.
    """

    train: Share | None = Field(default=None, description="Fraction of training rows; by default the remaining rows.")
    validation: Share | None = Field(
        default=None, description="Fraction of validation rows, for choosing epochs and hyperparameters."
    )
    test: Share | None = Field(default=None, description="Fraction of test rows, for the final evaluation.")
    column: str | None = Field(default=None, description="Column with the values train, validation and test.")
    stratify: Literal["auto", "none"] | str = Field(
        default="auto",
        description="Categorical column to stratify by, or `none`. `auto` uses the only categorical target, if its "
        "classes are large enough and rows are split at random or by `group`.",
    )
    group: str | None = Field(
        default=None,
        description="Column of groups, such as patient; all rows of a group are in the same split. It is no input "
        "unless `inputs` lists it.",
    )
    time: str | None = Field(
        default=None,
        description="Column of numbers, dates or times; the oldest rows are for training, the newest for test. It is "
        "no input unless `inputs` lists it.",
    )
    time_format: str | tuple[str, ...] | None = Field(
        default=None,
        description="Date format of `time`, or a list of formats, as of a date input. By default numbers, ISO 8601, or "
        "the common format that fits all rows.",
    )
    hash: bool | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=False,
        description="Split by the hash of all columns (true) or of the listed ones: a row stays in its split when "
        "rows are added, and equal rows are in the same split. Fractions are approximate.",
    )
    fold: FoldOptions | None = Field(
        default=None,
        description="Test one fold of the training and validation rows instead of the test rows, which are not "
        "used: {number: 1, of: 5}. `bmcli evaluate RECIPE --folds 5` trains all folds.",
    )

    @field_validator("time_format")
    @classmethod
    def _check_time_format(cls, value: Any, info: ValidationInfo) -> Any:
        if problem := dates.find_format_problem(value):
            raise fault("time_format", *problem)
        if value is not None and info.data.get("time") is None:
            raise fault("time_format", "`time_format` has no effect without `time`.")
        return value

    @model_validator(mode="after")
    def _check_one_splitter(self) -> SplitOptions:
        splitters = [option for option in ("group", "time", "hash") if getattr(self, option)]
        first = next(iter(splitters), "")
        if len(splitters) > 1:
            hint = "Write hash: [COLUMN] to keep a group together." if splitters == ["group", "hash"] else ""
            raise fault_at((splitters[1],), f"`{splitters[1]}` and `{first}` both define the split of a row.",
                           hint or "Leave one of them out.")  # fmt: skip
        if first and self.column is not None and self.validation is None:
            raise fault_at((first,), f"`{first}` does nothing beside `column`, which defines every split.",
                           "Leave it out, or set `validation` to a fraction of the training rows.")  # fmt: skip
        if first and self.column is not None and getattr(self, first) == self.column:
            raise fault_at((first,), f"column {quoted(self.column)} already defines the split.", "Name another.")
        if first not in ("", "group") and self.stratify not in ("auto", "none"):
            raise fault_at(("stratify",), f"`{first}` defines the split of a row, so rows cannot be stratified.",
                           "Leave `stratify` out.")  # fmt: skip
        if first == "group" and self.stratify == self.group:
            raise fault_at(("stratify",), f"the rows of each {quoted(self.group)} are in one split, so they cannot be "
                           "stratified by it.", "Name another column.")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> SplitOptions:
        shares = [share for share in (self.train, self.validation, self.test) if share is not None]
        total = sum(shares)  # 0.7 + 0.2 + 0.1 is 0.9999999999999999, hence the tolerance
        if total > 1 + 1e-9:
            raise fault("shares", f"the fractions add up to {total:g}, more than 1.")
        if len(shares) == 3 and total < 1 - 1e-9:
            raise fault(
                "shares",
                f"the fractions add up to {total:g}, not 1.",
                "Leave one of them out: it becomes the rest.",
            )
        if self.train is None and total > 1 - 1e-9:
            raise fault("shares", "the fractions leave no rows for training.")
        if self.column is not None and (self.train is not None or self.test is not None):
            raise fault(
                "shares",
                "`column` defines the training and test rows; beside it only `validation` can be a fraction.",
            )
        return self


class SampleOptions(Options):
    """Sample of the training rows."""

    share: Share | None = Field(default=None, description="Fraction of the training rows.")
    count: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Number of training rows.")
    balance: str | None = Field(
        default=None,
        description="Categorical column whose categories get equally many rows, as far as available, without "
        "replacement. Without `share` and `count`, as many as the rarest category has.",
    )

    @model_validator(mode="after")
    def _check_one_size(self) -> SampleOptions:
        if self.share is not None and self.count is not None:
            raise fault("sample", "`share` and `count` both set the size of the sample.", "Leave one of them out.")
        if self.share is None and self.count is None and self.balance is None:
            raise fault("sample", "the size of the sample is missing.", "Set share, count or balance.")
        return self


class CrossOptions(Options):
    """Cross of several categories: the network sees their combination (Cheng et al. 2016)."""

    columns: tuple[str, ...] = Field(
        min_length=2,
        description="Inputs to combine: single categories, booleans, or single numbers with `bins`.",
    )
    buckets: Annotated[int, Field(ge=2, le=10_000_000)] = Field(
        default=1000, description="Number of hash buckets; combinations collide if there are more."
    )
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Width of an embedding of the combinations; by default they are one-hot encoded."
    )

    @property
    def name(self) -> str:
        return "_x_".join(self.columns)


def find_cross_problem(crosses: Sequence[CrossOptions], inputs: Mapping[str, InputOptions]) -> Problem | None:
    """Find the first cross that these inputs do not allow; its place is below `crosses`."""
    names = [cross.name for cross in crosses]
    for position, cross in enumerate(crosses):
        for place, name in enumerate(cross.columns):
            loc = (position, "columns", place)
            if name not in inputs:
                return Problem(loc, f"there is no input {quoted(name)}.", parts.did_you_mean(name, inputs))
            if name in cross.columns[:place]:
                return Problem(loc, f"{quoted(name)} is crossed with itself.", "Name it once.")
            if not inputs[name].can_be_crossed:
                hint = "Cross categories without `separator`, booleans, and numbers with `bins`."
                return Problem(loc, f"{quoted(name)} is no category, but {inputs[name].kind}.", hint)
        if cross.name in inputs or cross.name in names[:position]:
            return Problem((position,), f"there are two inputs {quoted(cross.name)}.", "Remove one of them.")
    return None


class DataOptions(Options):
    """Data source, splits, and kinds of columns."""

    source: Annotated[Kind, PartField("data.sources")] = Field(description="Source of the rows.")
    split: SplitOptions = Field(
        default=SplitOptions(),
        description="Training, validation and test rows; by default 80, 10 and 10 per cent.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        default=None,
        description="Seed of split and sample; by default the recipe's `seed`. With a separate seed the split "
        "stays the same when `seed` changes.",
    )
    inputs: Mapping[str, Annotated[InputOptions, PartField("inputs")]] | None = Field(
        default=None,
        description="Input columns by name. By default every column that is not a target, split, group, time, "
        "weight or dropped column, with the kind detected from the training rows.",
    )
    targets: Mapping[str, Annotated[TargetOptions, PartField("data.targets")]] | None = Field(
        default=None,
        validate_default=True,
        description="Columns to predict, by name; optional for sources that define their target, and for objectives "
        "that learn from inputs.",
    )
    sample: Share | Annotated[int, Field(ge=1)] | SampleOptions | None = Field(
        default=None,
        description="Train on a sample of the training rows: a fraction such as 0.1, a number such as 1000, or "
        "{count: 1000, balance: label} for equally many rows per class. With the same seed, a smaller sample is part "
        "of every larger one; validation and test rows are unaffected.",
    )
    drop: tuple[str, ...] = Field(default=(), description="Columns to ignore when inputs are detected.")
    weight: str | None = Field(
        default=None,
        description="Column of non-negative weights of the rows in the loss.",
    )
    invalid: Literal["error", "skip", "fill"] = Field(
        default="error",
        description="Handling of cells that cannot be read as the kind of their column: `error` reports the first of "
        "every column; `skip` drops their rows before the split; `fill` treats those of inputs as missing, and drops "
        "rows with invalid targets or weights. Both drop CSV records with a wrong number of cells. All are counted.",
    )
    augment: Mapping[str, tuple[Annotated[Kind, PartField("augmentations")], ...]] = Field(
        default={},
        description="Random augmentations of the training examples, in order, by input, or by kind for all inputs "
        "of that kind: {image: [flip, {kind: translate, factor: 0.1}]}.",
    )

    crosses: tuple[CrossOptions, ...] = Field(
        default=(),
        description="Combinations of categories as additional inputs, named by their columns, such as a_x_b.",
    )

    def targets_by_name(self) -> Mapping[str, TargetOptions]:
        """Target options by name, those of the source if none are named."""
        if self.targets:
            return self.targets
        natural = self.source.default_targets()  # type: ignore[attr-defined]  # every source has it, `Kind` does not
        chosen: dict[str, Any] = {name: PartField("data.targets").check(options) for name, options in natural.items()}
        return chosen

    # A check of several fields is a validator of the last of them: `info.data` has the valid fields above it.

    @field_validator("targets")
    @classmethod
    def _source_targets_are_no_inputs(cls, value: Any, info: ValidationInfo) -> Any:
        source = info.data.get("source")
        if not value and source is not None:
            for name in source.default_targets():
                if name in (info.data.get("inputs") or ()):
                    raise fault("targets", f"column {quoted(name)} is the target of the source, and an input.",
                                "Leave it out of data.inputs, or name other targets.")  # fmt: skip
        return value

    @field_validator("inputs", "targets", "drop", "weight")
    @classmethod
    def _column_has_one_role(cls, value: Any, info: ValidationInfo) -> Any:
        roles = {"inputs": "an input", "targets": "a target", "drop": "dropped", "weight": "the weight"}
        role = roles[info.field_name or ""]
        split, source = info.data.get("split"), info.data.get("source")
        columns = {field: _list_column_names(info.data.get(field)) for field in roles}
        if not columns["targets"] and "targets" in info.data and source is not None:
            columns["targets"] = _list_column_names(source.default_targets())
        located = _locate_columns(value)
        for position, (column, loc) in enumerate(located):
            others = [roles[field] for field in roles if column in columns[field]]
            if split is not None and column == split.column:
                others.append("the column that defines the split")
            if split is not None and info.field_name == "targets" and column == split.group:
                others.append("the group of the split")
            if others:
                raise fault_at(loc, f"column {quoted(column)} is {role} and {others[0]}.", "Use it once.")
            if info.field_name == "targets" and column in (other for other, _ in located[:position]):
                raise fault_at(
                    loc, f"{quoted(column)} is there twice among the targets.", "Name each column and target once."
                )
        return value

    @field_validator("crosses")
    @classmethod
    def _crosses_are_of_inputs(cls, value: tuple[CrossOptions, ...], info: ValidationInfo) -> tuple[CrossOptions, ...]:
        inputs = info.data.get("inputs")
        problem = None if inputs is None else find_cross_problem(value, inputs)
        if problem is not None:
            raise fault_at(*problem)
        return value

    @field_validator("augment")
    @classmethod
    def _augmentations_fit(cls, value: Augmentations, info: ValidationInfo) -> Augmentations:
        problem = find_order_problem(value)
        inputs = info.data.get("inputs")
        if problem is None and inputs is not None:
            problem = find_input_problem(value, {name: options.kind for name, options in inputs.items()})
        if problem is not None:
            raise fault_at(*problem)
        return value


def _list_column_names(columns: Any) -> tuple[str, ...]:
    """The names of one column, several, or none."""
    return tuple(column for column, _ in _locate_columns(columns))


def _locate_columns(value: Any) -> list[tuple[str, KeyPath]]:
    """The names of columns, each with its place below the option; for a target, its name and the columns it lists."""
    if isinstance(value, str):
        return [(value, ())]
    if not isinstance(value, Mapping):
        return [(column, (position,)) for position, column in enumerate(value or ())]
    located: list[tuple[str, KeyPath]] = []
    for name, options in value.items():
        listed = options.list_columns(name) if isinstance(options, TargetOptions) else (name,)
        located.append((name, (name,)))
        if listed != (name,):
            located += [(column, (name, "columns", position)) for position, column in enumerate(listed)]
    return located
