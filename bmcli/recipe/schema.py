"""The recipe: every section with its options, defaults and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bmcli import parts
from bmcli.quoting import quoted
from bmcli.recipe.augment import Augment, problem_of_order, problem_with_inputs
from bmcli.recipe.compression import PRUNING, ChannelPruning, QuantizeAwareOptions, problem_with_model
from bmcli.recipe.distill import DistillOptions, TaughtOptions, problem_of_targets
from bmcli.recipe.evaluate import EvaluateOptions
from bmcli.recipe.export import ExportOptions
from bmcli.recipe.fields import (
    Checked,
    Duration,
    KerasKind,
    KerasObject,
    Kind,
    Options,
    PartOf,
    Size,
    checked_mapping,
    fault,
    fault_at,
    options_schema,
    shown,
)
from bmcli.recipe.search import TuneOptions

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _check_name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        hint = "It is the name of a folder: up to 100 letters, digits, dots, dashes and underscores."
        raise fault("name", f"expected a name like digits-cnn, received {shown(value)}.", hint)
    return value


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"})]
Share = Annotated[float, Field(gt=0, lt=1)]


class FoldOptions(Options):
    """One fold of the rows, tested on a network that was trained on the others."""

    number: Annotated[int, Field(ge=1, le=100)] = Field(description="Fold to test, from 1.")
    of: Annotated[int, Field(ge=2, le=100)] = Field(description="Number of folds.")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> FoldOptions:
        if self.number > self.of:
            raise fault_at(
                ("number",), f"there is no fold {self.number} of {self.of}.", f"Name one from 1 to {self.of}."
            )
        return self


class SplitOptions(Options):
    """How rows are split into training, validation and test rows.

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
        description="Column of numbers, or of ISO 8601 dates or times; the oldest rows are for training, the newest "
        "for test. It is no input unless `inputs` lists it.",
    )
    hash: bool | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=False,
        description="Split by the hash of all columns (true) or of the listed ones: a row stays in its split when "
        "rows are added, and equal rows are in the same split. Fractions are approximate.",
    )
    fold: FoldOptions | None = Field(
        default=None,
        description="Test one fold of the training and validation rows instead of the test rows, which are not "
        "used: {number: 1, of: 5}. `bmcli evaluate --folds` trains all folds.",
    )

    @model_validator(mode="after")
    def _dealt_in_one_way(self) -> SplitOptions:
        ways = [way for way in ("group", "time", "hash") if getattr(self, way)]
        if len(ways) > 1:
            hint = "Write hash: [COLUMN] to keep a group together." if ways == ["group", "hash"] else ""
            raise fault_at((ways[1],), f"`{ways[1]}` and `{ways[0]}` both tell the split of a row.",
                           hint or "Leave one of them out.")  # fmt: skip
        if ways and self.column is not None and self.validation is None:
            raise fault_at((ways[0],), f"`{ways[0]}` does nothing beside `column`, which tells every split.",
                           "Leave it out, or give `validation` a share of the training rows.")  # fmt: skip
        if ways and self.column is not None and getattr(self, ways[0]) == self.column:
            raise fault_at((ways[0],), f"column {quoted(self.column)} tells the split already.", "Name another.")
        if ways not in ([], ["group"]) and self.stratify not in ("auto", "none"):
            raise fault_at(("stratify",), f"`{ways[0]}` tells the split of a row, so no proportions can be kept.",
                           "Leave `stratify` out.")  # fmt: skip
        if ways == ["group"] and self.stratify == self.group:
            raise fault_at(("stratify",), f"the rows of each {quoted(self.group)} are together, so its proportions "
                           "cannot be kept.", "Name another column.")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> SplitOptions:
        shares = [share for share in (self.train, self.validation, self.test) if share is not None]
        total = sum(shares)
        if total > 1 + 1e-9:
            raise fault("shares", f"the shares add up to {total:g}, more than 1.")
        if len(shares) == 3 and total < 1 - 1e-9:
            raise fault(
                "shares",
                f"the shares add up to {total:g}, not 1.",
                "Leave one of them out to give it the rest.",
            )
        if self.train is None and total > 1 - 1e-9:
            raise fault("shares", "the shares leave no rows to train on.")
        if self.column is not None and (self.train is not None or self.test is not None):
            raise fault(
                "shares",
                "`column` tells the training and test rows; beside it only `validation` can be a share.",
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
    def _size_is_told_once(self) -> SampleOptions:
        if self.share is not None and self.count is not None:
            raise fault("sample", "`share` and `count` both tell the size of the sample.", "Leave one of them out.")
        if self.share is None and self.count is None and self.balance is None:
            raise fault("sample", "nothing tells the size of the sample.", "Write share, count or balance.")
        return self


class CrossOptions(Options):
    """Cross of several categories: the network sees their combination (Cheng et al. 2016)."""

    of: tuple[str, ...] = Field(
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
        return "_x_".join(self.of)


def problem_of_crosses(
    crosses: Sequence[CrossOptions], inputs: Mapping[str, Kind]
) -> tuple[tuple[str | int, ...], str, str] | None:
    """Place below `crosses`, message and suggestion of the first cross that cannot be of these inputs."""
    names = [cross.name for cross in crosses]
    for position, cross in enumerate(crosses):
        for place, name in enumerate(cross.of):
            loc = (position, "of", place)
            if name not in inputs:
                return loc, f"there is no input {quoted(name)}.", parts.did_you_mean(name, inputs)
            if name in cross.of[:place]:
                return loc, f"{quoted(name)} is crossed with itself.", "Leave it in once."
            if not _can_be_crossed(inputs[name]):
                hint = "Cross categories without `separator`, booleans, and numbers with `bins`."
                return loc, f"{quoted(name)} is no category, but {inputs[name].kind}.", hint
        if cross.name in inputs or cross.name in names[:position]:
            return (position,), f"there are two inputs {quoted(cross.name)}.", "Leave one of them out."
    return None


def _can_be_crossed(options: Kind) -> bool:
    if options.kind == "category":
        return getattr(options, "separator", None) is None
    if options.kind == "boolean":
        return True
    return options.kind == "number" and getattr(options, "bins", None) is not None


class DataOptions(Options):
    """Data source, splits, and kinds of columns."""

    source: Annotated[Kind, PartOf("data.sources")] = Field(description="Source of the rows.")
    split: SplitOptions = Field(
        default=SplitOptions(),
        description="Training, validation and test rows; by default 80, 10 and 10 per cent.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        default=None,
        description="Seed of split and sample; by default the recipe's `seed`. With a seed of its own the split "
        "stays the same when `seed` changes.",
    )
    inputs: Mapping[str, Annotated[Kind, PartOf("inputs")]] | None = Field(
        default=None,
        description="Input columns by name. By default every column that is not a target, split, group, time, "
        "weight or dropped column, with the kind detected from the training rows.",
    )
    targets: Mapping[str, Annotated[Kind, PartOf("data.targets")]] | None = Field(
        default=None,
        validate_default=True,
        description="Columns to predict, by name; optional for sources that define their target.",
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
    invalid: Literal["stop", "skip", "fill"] = Field(
        default="stop",
        description="Handling of cells that cannot be read as the kind of their column: `stop` reports the first of "
        "every column; `skip` drops their rows before the split; `fill` treats those of inputs as missing, and drops "
        "rows with invalid targets or weights. Both drop CSV records with a wrong number of cells. All are counted.",
    )
    augment: Mapping[str, tuple[Annotated[Kind, PartOf("augmentations")], ...]] = Field(
        default={},
        description="Random augmentations of the training examples, in order, by input, or by kind for all inputs "
        "of that kind: {image: [flip, {kind: translate, factor: 0.1}]}.",
    )

    crosses: tuple[CrossOptions, ...] = Field(
        default=(),
        description="Combinations of categories as additional inputs, named by their columns, such as a_x_b.",
    )

    def targets_by_name(self) -> Mapping[str, Kind]:
        """Target options by name, those of the source if none are named."""
        if self.targets:
            return self.targets
        natural = self.source.natural_targets()  # type: ignore[attr-defined]
        return {name: PartOf("data.targets").check(options) for name, options in natural.items()}

    # A check of several fields stands at the last of them: `info.data` has those above that are right.

    @field_validator("targets")
    @classmethod
    def _targets_are_known(cls, value: Any, info: ValidationInfo) -> Any:
        source = info.data.get("source")
        if not value and source is not None and not source.natural_targets():
            raise fault(
                "targets",
                f"a {source.kind} source has to be told which column to predict.",
                "Write targets: {COLUMN: {kind: category}} or {kind: number}.",
            )
        if not value and source is not None:
            for name in source.natural_targets():
                if name in (info.data.get("inputs") or ()):
                    raise fault("targets", f"column {quoted(name)} is what the source predicts, and an input.",
                                "Leave it out of data.inputs, or name other targets.")  # fmt: skip
        return value

    @field_validator("inputs", "targets", "drop", "weight")
    @classmethod
    def _column_has_one_role(cls, value: Any, info: ValidationInfo) -> Any:
        roles = {"inputs": "an input", "targets": "a target", "drop": "dropped", "weight": "the weight"}
        role = roles[info.field_name or ""]
        split, source = info.data.get("split"), info.data.get("source")
        taken = {field: _names(info.data.get(field)) for field in roles}
        if not taken["targets"] and "targets" in info.data and source is not None:
            taken["targets"] = _names(source.natural_targets())
        named = _columns(value)
        for position, (column, loc) in enumerate(named):
            others = [roles[field] for field in roles if column in taken[field]]
            if split is not None and column == split.column:
                others.append("the column that tells the split")
            if split is not None and info.field_name == "targets" and column == split.group:
                others.append("the group that a split keeps together")
            if others:
                raise fault_at(loc, f"column {quoted(column)} is {role} and {others[0]}.", "Leave it in one of them.")
            if info.field_name == "targets" and column in (other for other, _ in named[:position]):
                raise fault_at(
                    loc, f"{quoted(column)} is there twice among the targets.", "Name each column and target once."
                )
        return value

    @field_validator("crosses")
    @classmethod
    def _crosses_are_of_inputs(cls, value: tuple[CrossOptions, ...], info: ValidationInfo) -> tuple[CrossOptions, ...]:
        inputs = info.data.get("inputs")
        problem = None if inputs is None else problem_of_crosses(value, inputs)
        if problem is not None:
            raise fault_at(*problem)
        return value

    @field_validator("augment")
    @classmethod
    def _augmentations_fit(cls, value: Augment, info: ValidationInfo) -> Augment:
        problem = problem_of_order(value)
        inputs = info.data.get("inputs")
        if problem is None and inputs is not None:
            problem = problem_with_inputs(value, {name: options.kind for name, options in inputs.items()})
        if problem is not None:
            raise fault_at(*problem)
        return value


def columns_of(name: str, target: Kind) -> tuple[str, ...]:
    """The columns that a target is read from: that of its name, or those that it lists."""
    return getattr(target, "columns", None) or (name,)


def _names(columns: Any) -> tuple[str, ...]:
    """Columns by name, whether it is one, several or none."""
    return tuple(column for column, _ in _columns(columns))


def _columns(value: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    """The same with the place of each below the option; targets with their own names and the columns they list."""
    if isinstance(value, str):
        return [(value, ())]
    if not isinstance(value, Mapping):
        return [(column, (position,)) for position, column in enumerate(value or ())]
    found: list[tuple[str, tuple[str | int, ...]]] = []
    for name, options in value.items():
        listed = getattr(options, "columns", None) or ()
        found += [(name, (name,)), *((column, (name, "columns", place)) for place, column in enumerate(listed))]
    return found


class WarmUp(Kind):
    """Learning rate schedule over a run, in fractions of its steps, so that it fits any number of epochs."""

    kind: Literal["constant", "cosine", "linear"] = Field(description="How the rate falls after the warm-up.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Fraction of all steps over which the learning rate rises from 0."
    )
    floor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Final learning rate, as a fraction of the highest."
    )


@dataclass(frozen=True)
class ScheduleKind(Checked):
    """One of our schedules by shares of the run, or one of Keras' by steps."""

    def check(self, value: Any) -> WarmUp | KerasObject:
        if isinstance(value, (WarmUp, KerasObject)):
            return value
        value = {"kind": "constant", **value} if isinstance(value, Mapping) else value
        kind = value["kind"] if isinstance(value, Mapping) else value
        if kind in ("constant", "cosine", "linear"):
            return WarmUp.model_validate({"kind": kind} if isinstance(value, str) else value)
        return KerasKind("schedules", also=("constant", "cosine", "linear"), complete=True).check(value)

    def json_schema(self) -> dict[str, Any]:
        ours = ("constant", "cosine", "linear")
        each = [options_schema(WarmUp, kind) for kind in ours]
        each[0]["required"] = []  # the kind of options that name none
        return {"anyOf": [{"enum": list(ours)}, *each, *KerasKind("schedules").json_schema()["anyOf"]]}


@dataclass(frozen=True)
class ObjectiveKind(Checked):
    """One objective for every target, or a mapping from target to objective."""

    def check(self, value: Any) -> Any:
        part = PartOf("objectives")
        if value is None or isinstance(value, Kind):
            return value
        # A target may be called `kind`: its objective is a mapping.
        if isinstance(value, Mapping) and not isinstance(value.get("kind"), str):
            return checked_mapping(part.check, value)
        return part.check(value)

    def json_schema(self) -> dict[str, Any]:
        one = PartOf("objectives").json_schema()
        return {"anyOf": [*one["anyOf"], {"type": "object", "additionalProperties": one}, {"type": "null"}]}


class StopOptions(Options):
    """Early stopping; the first condition that holds ends the training."""

    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Epochs without improvement of the selected metric."
    )
    min_delta: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Smallest change of the selected metric that counts as improvement for `patience`.",
    )
    overfit: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Consecutive epochs in which the validation loss rises while the training loss falls.",
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Maximum number of optimizer steps.")
    time: Duration | None = Field(default=None, description="Maximum training time, such as 30m.")
    metric: str | None = Field(
        default=None,
        description="Metric that ends the training when it passes `above` or `below`, such as train/loss.",
    )
    above: float | None = Field(default=None, description="Stop once `metric` is at least this value.")
    below: float | None = Field(default=None, description="Stop once `metric` is at most this value.")

    @field_validator("min_delta")
    @classmethod
    def _min_delta_has_patience(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("patience", 1) is None:
            raise fault("min_delta", "`min_delta` does nothing without `patience`.", "Write stop: {patience: 5}.")
        return value

    @model_validator(mode="after")
    def _threshold_is_whole(self) -> StopOptions:
        bounds = (self.above is not None) + (self.below is not None)
        if bounds > 1 or (self.metric is None) != (bounds == 0):
            raise fault(
                "threshold",
                "`metric` goes with one of `above` and `below`.",
                "Write stop: {metric: validation/accuracy, above: 0.9}.",
            )
        return self


class SelectOptions(Options):
    """How the best epoch is selected, whose weights are kept."""

    metric: str = Field(
        default="auto",
        description="Metric that selects the epoch, such as validation/accuracy; its direction follows from its "
        "name. `auto`: validation/loss, or train/loss without validation rows; `last` keeps the last epoch.",
    )


Callback = Annotated[KerasObject, KerasKind("callbacks")]
_OPTIMIZER = KerasKind("optimizers", usual="adam", complete=True, found=("learning_rate",))
KerasMetric = Annotated[KerasObject, KerasKind("metrics")]


class CheckpointOptions(Options):
    """How often the training state is saved, for resuming after a crash; whichever comes first."""

    time: Duration | None = Field(default=60.0, description="Training time between two checkpoints, such as 1m.")
    steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Steps between two checkpoints.")


class SwaOptions(Options):
    """Stochastic weight averaging."""

    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.75, description="Fraction of the epochs before averaging begins."
    )


class CurriculumOptions(Options):
    """Curriculum by sequence length."""

    input: str | None = Field(
        default=None,
        description="Input whose length counts: a text encoded as a sequence, or numbers in sequences of varying "
        "length; by default the only such input.",
    )
    epochs: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Number of epochs sorted from short to long sequences."
    )


LayerRate = Annotated[float, Field(ge=0)]

MOMENTUM: Mapping[str, str] = {"adam": "beta_1", "adamw": "beta_1", "rmsprop": "momentum", "sgd": "momentum"}
"""Optimizers that can be schedule-free, and what each calls its momentum.

Others change their rate themselves, or their steps depend on more than the gradients, as on the size of the weights.
"""


class TrainOptions(Options):
    """How the network is trained."""

    epochs: Annotated[int, Field(ge=1)] = Field(default=20, description="Maximum number of epochs.")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default=64,
        description="Global batch size, over all devices. `auto` measures the largest power of two that still "
        "increases throughput.",
    )
    gradient_accumulation: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Number of micro-batches that a batch is computed in, to save memory; the optimizer step is "
        "that of the whole batch.",
    )
    optimizer: Annotated[KerasObject, _OPTIMIZER] = Field(
        default=_OPTIMIZER.check("adam"),
        description="A Keras optimizer by name with its options; clipnorm, global_clipnorm and clipvalue clip "
        "gradients. `learning_rate: auto` runs a learning rate range test (Smith 2017): some steps with rates from "
        "1e-6 to 10 show where the loss falls fastest.",
    )
    schedule: Annotated[Any, ScheduleKind()] = Field(
        default=WarmUp(kind="constant"),
        description="Learning rate schedule: constant, cosine or linear with warm-up, or a Keras schedule by name.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="Keras dtype policy; variables stay in float32."
    )
    metrics: tuple[KerasMetric, ...] = Field(
        default=(), description="Keras metrics to compute every epoch, in addition to those of the objective."
    )
    select: SelectOptions = Field(
        default=SelectOptions(), description="How the best epoch is selected, whose weights are kept."
    )
    stop: StopOptions = Field(default=StopOptions(), description="Conditions that end the training early.")
    callbacks: tuple[Callback, ...] = Field(
        default=(), description="Keras callbacks by name, called after every epoch."
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Momentum of an exponential moving average of the weights, such as 0.999, which is evaluated "
        "and kept (Polyak and Juditsky 1992).",
    )
    swa: SwaOptions | None = Field(
        default=None,
        description="Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of the "
        "last epochs is evaluated and kept; {} averages from 75 per cent of the epochs on. Batch normalisation "
        "statistics are recomputed for it by a pass over the training rows after each epoch.",
    )
    schedule_free: bool = Field(
        default=False,
        description="Schedule-free optimisation (Defazio et al. 2024): the mean of the optimizer's steps is "
        "evaluated and kept, instead of a learning rate schedule. Gradients are computed between the mean and the "
        "last step, interpolated by momentum of sgd or rmsprop, or beta_1 of adam or adamw, usually 0.9. Learning "
        "rates are often higher than without it. Batch normalisation statistics are estimated as for `swa`.",
    )
    curriculum: CurriculumOptions | None = Field(
        default=None,
        description="Sort batches from short to long sequences in the first epoch, {}, or the first {epochs: n} "
        "(SortaGrad, Amodei et al. 2016); later epochs are shuffled as usual.",
    )
    layer_rates: Mapping[str, LayerRate] = Field(
        default={},
        description="Factors of the learning rate by patterns of weight names, such as {'*/embeddings': 0.1}; * "
        "matches any text, 0 freezes the weights, and the last matching pattern applies.",
    )
    prune: Annotated[Kind, PRUNING] | None = Field(
        default=None,
        description="Pruning during training: {sparsity: 0.8} sets this fraction of all kernel weights to 0, {kind: "
        "channels, sparsity: 0.5} removes units and filters. Epochs before the end of pruning are selected only if "
        "there are no others.",
    )
    quantize_aware: Literal["int8", "int4"] | QuantizeAwareOptions | None = Field(
        default=None,
        description="Quantisation-aware training: weights and activations are rounded, and gradients pass straight "
        "through the rounding (Jacob et al. 2018, section 3). The kept weights are the rounded ones. Epochs before "
        "rounding begins are selected only if there are no others.",
    )
    checkpoint: CheckpointOptions = Field(
        default=CheckpointOptions(), description="How often the training state is saved, for resuming after a crash."
    )
    tensorboard: bool = Field(default=True, description="Write event files for TensorBoard.")

    @property
    def rounding(self) -> QuantizeAwareOptions | None:
        """How the network is rounded while it learns, if it is."""
        given = self.quantize_aware
        return QuantizeAwareOptions(weights=given) if isinstance(given, str) else given

    @field_validator("swa")
    @classmethod
    def _one_average(cls, value: SwaOptions | None, info: ValidationInfo) -> SwaOptions | None:
        if value is not None and info.data.get("ema") is not None:
            raise fault("swa", "`swa` and `ema` both tell which average of the weights is kept.",
                        "Leave one of them out.")  # fmt: skip
        return value

    @field_validator("optimizer")
    @classmethod
    def _keeps_no_mean_to_itself(cls, value: KerasObject) -> KerasObject:
        if value.kind == "schedule_free_adamw":
            raise fault("optimizer", "schedule_free_adamw keeps the mean of its steps to itself, and other weights "
                        "would be measured and kept.", "Write optimizer: adamw and schedule_free: true.")  # fmt: skip
        return value

    @field_validator("schedule")
    @classmethod
    def _has_a_rate_to_find(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        if isinstance(value, KerasObject) and optimizer is not None and optimizer.options["learning_rate"] == "auto":
            raise fault("schedule", f"the rates of the schedule {value.kind} are told, so that none can be found.",
                        "Name a learning_rate, or take the schedule constant, cosine or linear.")  # fmt: skip
        return value

    @field_validator("schedule_free")
    @classmethod
    def _is_free_of_schedules(cls, value: bool, info: ValidationInfo) -> bool:
        problem = _problem_of_schedule_free(info.data) if value else None
        if problem is not None:
            raise fault("schedule_free", *problem)
        return value

    @field_validator("callbacks")
    @classmethod
    def _one_hand_on_the_rate(cls, value: tuple[KerasObject, ...], info: ValidationInfo) -> Any:
        schedule = info.data.get("schedule", WarmUp(kind="constant"))
        plain = isinstance(schedule, WarmUp) and schedule.kind == "constant" and schedule.warmup == 0
        kinds = [callback.kind for callback in value]
        if not plain and "reduce_lr_on_plateau" in kinds:
            raise fault_at(
                (kinds.index("reduce_lr_on_plateau"),),
                "reduce_lr_on_plateau cannot change a learning rate that follows train.schedule.",
                "Leave one of them out.",
            )
        return value


def _problem_of_schedule_free(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Message and suggestion of the first option of `train`, of those that are right, that cannot be schedule-free."""
    for other in ("ema", "swa"):
        if options.get(other) is not None:
            return f"`schedule_free` and `{other}` both tell which average of the weights is kept.", "Leave one out."
    schedule = options.get("schedule")
    if schedule is not None and schedule.kind != "constant":
        return f"`schedule_free` stands in the place of the schedule {schedule.kind}.", "Leave one of them out."
    if any(callback.kind == "reduce_lr_on_plateau" for callback in options.get("callbacks", ())):
        return "`schedule_free` stands in the place of reduce_lr_on_plateau.", "Leave one of them out."
    optimizer = options.get("optimizer")
    return None if optimizer is None else _problem_of_momentum(optimizer)


def _problem_of_momentum(optimizer: KerasObject) -> tuple[str, str] | None:
    """As above, of an optimizer that is to be schedule-free."""
    name = MOMENTUM.get(optimizer.kind)
    if name is None:
        return f"{optimizer.kind} cannot be schedule-free.", f"Those that can: {', '.join(MOMENTUM)}."
    if not 0 < optimizer.options[name] < 1:
        return (
            f"expected {name} of {optimizer.kind} between 0 and 1, received {shown(optimizer.options[name])}.",
            f"Write optimizer: {{kind: {optimizer.kind}, {name}: 0.9}}.",
        )
    if optimizer.options.get("nesterov"):
        return "`nesterov` does nothing with `schedule_free`.", "Leave it out."
    return None


OF_STRATEGY: Mapping[str, tuple[str, ...]] = {
    "replicas": ("mirrored",),
    "cluster": ("multi_worker", "auto"),
    "start_timeout": ("multi_worker", "auto"),
    "tpu": ("tpu", "auto"),
}
"""Options of `runtime` that mean something with some strategies alone."""


class RuntimeOptions(Options):
    """Devices and execution; results differ at most in rounding errors."""

    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = Field(
        default="auto",
        description="`auto` uses what is available: a cluster of workers, a TPU, all GPUs, or the CPU. `mirrored` "
        "uses several devices of one machine, `multi_worker` several processes.",
    )
    replicas: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Number of devices of `mirrored`; by default all GPUs. Without a GPU the CPU is divided, for "
        "tests.",
    )
    cluster: Literal["auto", "tf_config", "slurm", "kubernetes"] = Field(
        default="auto",
        description="How workers of `multi_worker` find each other: the variable TF_CONFIG, Slurm, or Kubernetes.",
    )
    tpu: str | None = Field(
        default=None,
        description="Name or address of the TPU; by default that of the variable TPU_NAME, or the `local` one.",
    )
    start_timeout: Duration = Field(default=120.0, description="How long workers wait for each other to start.")
    feed: Literal["auto", "resident", "streaming"] = Field(
        default="auto",
        description="`resident` keeps the training rows in device memory, `streaming` reads them from disk; `auto` "
        "streams data larger than `memory`.",
    )
    memory: Literal["auto"] | Size = Field(
        default="auto", description="Maximum memory of resident rows, such as 4GiB; `auto` is a quarter of the memory."
    )
    jit: Literal["auto"] | bool = Field(
        default="auto",
        description="Compile the training step with XLA; `auto` measures once per machine and model.",
    )
    jit_steps: Literal["auto", 1, 2, 4, 8] = Field(
        default="auto",
        description="Number of steps that XLA compiles as one program, for short steps on one device; `auto` "
        "measures 1 and 8.",
    )

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> RuntimeOptions:
        for option, strategies in OF_STRATEGY.items():
            unusual = getattr(self, option) != type(self).model_fields[option].default
            if unusual and self.strategy not in strategies:
                raise fault_at(
                    (option,), f"`{option}` does nothing with strategy {self.strategy}.",
                    f"It belongs to strategy {strategies[0]}.",
                )  # fmt: skip
        if self.memory != "auto" and self.feed != "auto":
            raise fault_at(("memory",), f"`memory` does nothing with feed {self.feed}.", "It belongs to feed auto.")
        if self.jit_steps != "auto" and self.jit is False:
            raise fault_at(
                ("jit_steps",), "`jit_steps` does nothing with jit false.", "It belongs to jit true or auto."
            )
        return self


Scalar = str | int | float | bool | None


def objectives_by_target(given: Any, targets: Mapping[str, Kind]) -> dict[str, Kind]:
    """The objective of each target: `given` for all or by name, else the target kind's usual one."""
    usual = {
        "category": "classification", "labels": "multi_label", "ordered": "ordinal", "number": "regression",
        "count": "count",
    }  # fmt: skip
    by_name: Mapping[str, Kind] = dict.fromkeys(targets, given) if isinstance(given, Kind) else given or {}
    return {
        name: by_name.get(name) or PartOf("objectives").check(usual[target.kind]) for name, target in targets.items()
    }


class Recipe(Options):
    """One experiment, from data to an evaluated model."""

    bmcli: Literal[1] = Field(default=1, description="Version of the recipe language.")
    name: Name = Field(
        description="Name of the recipe, and of the folder of its runs: letters, digits, dot, dash and underscore."
    )
    vars: Mapping[str, Scalar] = Field(
        default={},
        description="Variables that are used elsewhere as ${NAME}, to change a value in one place or on the command "
        "line.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0,
        description="Seed of the initial weights, the order of examples, dropout, and, without `data.seed`, the split.",
    )
    data: DataOptions = Field(description="Data source, splits, and kinds of columns.")
    model: Annotated[Kind, PartOf("models")] = Field(description="The network.")
    objective: Annotated[Any, ObjectiveKind()] = Field(
        default=None,
        description="Learning objective; by default the usual one for the kind of target. With several targets, a "
        "mapping from target to objective.",
    )
    train: TrainOptions = Field(default=TrainOptions(), description="How the network is trained.")
    runtime: RuntimeOptions = Field(default=RuntimeOptions(), description="Devices and execution.")
    evaluate: EvaluateOptions = Field(default=EvaluateOptions(), description="How the trained model is evaluated.")
    tune: TuneOptions | None = Field(default=None, description="Hyperparameter search by `bmcli tune`.")
    distill: DistillOptions | None = Field(
        default=None, description="Distillation by `bmcli distill`: teachers, student and losses."
    )
    taught: TaughtOptions | None = Field(
        default=None,
        description="Distillation losses of this network, and its trained teachers; `bmcli distill` writes this "
        "section into the recipe of a student.",
    )
    export: ExportOptions = Field(default=ExportOptions(), description="Artefacts that `bmcli export` writes.")

    @property
    def data_seed(self) -> int:
        """What decides the split and the sample."""
        return self.seed if self.data.seed is None else self.data.seed

    def without_search(self) -> Recipe:
        """The same recipe without its `tune` section, which is another verb's."""
        return self.model_copy(update={"tune": None})

    def of_training(self) -> Recipe:
        """The same recipe without the sections of other verbs."""
        return self.model_copy(update={"tune": None, "distill": None})

    def kept(self) -> Recipe:
        """The recipe of the network that a training leaves: an ordinary one, narrower where channels were pruned."""
        pruning = self.train.prune
        model = self.model
        if isinstance(pruning, ChannelPruning):
            model = model.model_copy(update=pruning.left(model))
        train = self.train.model_copy(update={"prune": None, "quantize_aware": None})
        return self.model_copy(update={"model": model, "train": train})

    def search_objectives(self) -> tuple[str, ...]:
        """What `tune` compares candidates by, the first leading; `auto` is what selects an epoch, if it can be."""
        selected = self.train.select.metric
        usual = selected if selected.startswith("validation/") else "validation/loss"
        names = () if self.tune is None else self.tune.objective
        return tuple(dict.fromkeys(usual if name == "auto" else name for name in names))

    def on_one_device(self) -> Recipe:
        """The same recipe on the first device of a machine alone."""
        usual = {option: RuntimeOptions.model_fields[option].default for option in OF_STRATEGY}
        runtime = self.runtime.model_copy(update={**usual, "strategy": "one_device"})
        return self.model_copy(update={"runtime": runtime})

    def targets(self) -> Mapping[str, Kind]:
        """Target options by name, those of the source if the recipe names none."""
        return self.data.targets_by_name()

    def objectives(self) -> dict[str, Kind]:
        """The objective of each target, those of the recipe or the target kind's usual one."""
        return objectives_by_target(self.objective, self.targets())

    def metrics(self) -> dict[str, tuple[KerasObject, ...]]:
        """The Keras metrics of each target: those of `train.metrics` that suit its objective."""
        suitable = {
            target: parts.load("objectives", objective.kind).METRICS for target, objective in self.objectives().items()
        }
        return {
            target: tuple(metric for metric in self.train.metrics if metric.kind in known)
            for target, known in suitable.items()
        }

    def quantiles(self) -> dict[str, tuple[float, ...]]:
        """Of each target whose quantiles are predicted, which they are."""
        return {name: options.quantiles for name, options in self.objectives().items() if hasattr(options, "quantiles")}

    def decisions(self) -> dict[str, Kind]:
        """The objectives of targets whose temperature or threshold is decided once the network is trained."""
        return {
            name: options
            for name, options in self.objectives().items()
            if getattr(options, "calibrate", "none") != "none" or getattr(options, "threshold", None) is not None
        }

    def decides_on_validation(self) -> bool:
        """Whether any of them takes validation rows, as all do but a threshold that is told."""
        return any(
            getattr(options, "calibrate", "none") != "none"
            or not isinstance(getattr(options, "threshold", None), float)
            for options in self.decisions().values()
        )

    def spelled_out(self) -> Recipe:
        """The same recipe with the objectives that follow from its targets."""
        objectives = self.objectives()
        sole = len(objectives) == 1 and not isinstance(self.objective, Mapping)
        return self.model_copy(update={"objective": next(iter(objectives.values())) if sole else objectives})

    @field_validator("train")
    @classmethod
    def _metrics_suit_a_target(cls, value: TrainOptions, info: ValidationInfo) -> TrainOptions:
        if "data" not in info.data or "objective" not in info.data:
            return value
        chosen = objectives_by_target(info.data["objective"], info.data["data"].targets_by_name())
        suitable = {name for each in chosen.values() for name in parts.load("objectives", each.kind).METRICS}
        for position, metric in enumerate(value.metrics):
            if metric.kind not in suitable:
                kinds = " or ".join(sorted({each.kind for each in chosen.values()}))
                raise fault_at(
                    ("metrics", position),
                    f"{metric.kind} does not suit {kinds}.",
                    parts.did_you_mean(metric.kind, suitable) or f"Suitable: {', '.join(sorted(suitable))}.",
                )
        return value

    @field_validator("train")
    @classmethod
    def _the_network_can_be_pruned(cls, value: TrainOptions, info: ValidationInfo) -> TrainOptions:
        model = info.data.get("model")
        problem = None if model is None else problem_with_model(value.prune, model)
        if problem is not None:
            loc, message, suggestion = problem
            raise fault_at(("prune", *loc), message, suggestion)
        return value

    @field_validator("objective")
    @classmethod
    def _objectives_fit_targets(cls, value: Any, info: ValidationInfo) -> Any:
        if "data" not in info.data:
            return value
        targets = info.data["data"].targets_by_name()
        if isinstance(value, Mapping):
            for name in value:
                if name not in targets:
                    raise fault_at((name,), f"no target {quoted(name)}.", parts.did_you_mean(name, targets))
        for name, objective in objectives_by_target(value, targets).items():
            learns = parts.load("objectives", objective.kind).TARGETS
            if targets[name].kind not in learns:
                raise fault_at(
                    (name,) if isinstance(value, Mapping) else (),
                    f"{objective.kind} cannot learn target {quoted(name)} of kind {targets[name].kind}.",
                    f"It learns targets of kind {' or '.join(learns)}.",
                )
        return value

    @field_validator("distill", "taught")
    @classmethod
    def _teaches_its_targets(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or "data" not in info.data or "objective" not in info.data:
            return value
        chosen = objectives_by_target(info.data["objective"], info.data["data"].targets_by_name())
        problem = problem_of_targets(value, {name: options.kind for name, options in chosen.items()})
        if problem is not None:
            raise fault_at(*problem)
        return value
