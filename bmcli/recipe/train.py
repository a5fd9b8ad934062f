"""Section `train`: optimizer, schedule, stopping, and other options of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bmcli.recipe.compression import PRUNING, QuantizeAwareOptions
from bmcli.recipe.fields import (
    Duration,
    FieldType,
    KerasMetric,
    KerasObject,
    KerasObjectField,
    Kind,
    Options,
    fault,
    fault_at,
    make_options_schema,
)
from bmcli.recipe.nodes import format_value


class ScheduleOptions(Kind):
    """Learning rate schedule over a run, in fractions of its length, so that it fits any number of epochs."""

    kind: Literal["constant", "cosine", "linear"] = Field(description="How the rate falls after the warm-up.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Fraction of all steps over which the learning rate rises from 0."
    )
    floor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Final learning rate, as a fraction of the highest."
    )
    span: Literal["training", "time"] | Annotated[int, Field(ge=1)] = Field(
        default="training",
        description="Length of the schedule: `training`, all steps of the training; `time`, the time of "
        "train.stop.time; or a number of epochs, after which its last rate stays.",
    )

    @model_validator(mode="after")
    def _span_has_effect(self) -> ScheduleOptions:
        if self.span != "training" and self.kind == "constant" and self.warmup == 0:
            raise fault("span", "`span` has no effect on a constant learning rate without `warmup`.", "Leave it out.")
        if self.floor and self.kind == "constant":
            raise fault("floor", "`floor` has no effect on the constant schedule.", "Leave it out, or write cosine.")
        return self


@dataclass(frozen=True)
class ScheduleField(FieldType):
    """A schedule by fractions of the run, or one of Keras by steps."""

    def check(self, value: Any) -> ScheduleOptions | KerasObject:
        if isinstance(value, (ScheduleOptions, KerasObject)):
            return value
        value = {"kind": "constant", **value} if isinstance(value, Mapping) else value
        kind = value["kind"] if isinstance(value, Mapping) else value
        if kind in ("constant", "cosine", "linear"):
            return ScheduleOptions.model_validate({"kind": kind} if isinstance(value, str) else value)
        return KerasObjectField("schedules", also=("constant", "cosine", "linear"), complete=True).check(value)

    def json_schema(self) -> dict[str, Any]:
        own_kinds = ("constant", "cosine", "linear")
        own = [make_options_schema(ScheduleOptions, kind) for kind in own_kinds]
        own[0]["required"] = []  # `constant` is the default kind
        return {"anyOf": [{"enum": list(own_kinds)}, *own, *KerasObjectField("schedules").json_schema()["anyOf"]]}


class StopOptions(Options):
    """Early stopping; the first condition that holds ends the training."""

    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Epochs without improvement of the metric of `select`; with `last`, of validation/loss, or of "
        "train/loss without validation rows.",
    )
    min_delta: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Smallest improvement that counts for `patience`, since the last one that counted.",
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
                "`metric` needs exactly one of `above` and `below`.",
                "Write stop: {metric: validation/accuracy, above: 0.9}.",
            )
        return self


class SelectOptions(Options):
    """Selection of the epoch whose weights are kept."""

    metric: str = Field(
        default="auto",
        description="Metric that selects the epoch, such as validation/accuracy; its direction follows from its "
        "name. `auto`: validation/loss, or train/loss without validation rows; `last` keeps the last epoch.",
    )


_OPTIMIZER = KerasObjectField("optimizers", default_kind="adam", complete=True, auto_options=("learning_rate",))


class CheckpointOptions(Options):
    """Intervals at which the training state is saved, for resuming after a crash; whichever comes first."""

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


MOMENTUM_OPTIONS: Mapping[str, str] = {"adam": "beta_1", "adamw": "beta_1", "rmsprop": "momentum", "sgd": "momentum"}
"""Optimizers that can be schedule-free, with the option of their momentum.

Others change their rate themselves, or their steps depend on more than the gradients, such as the norm of the weights.
"""


class TrainOptions(Options):
    """Training of the network."""

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
    schedule: Annotated[Any, ScheduleField()] = Field(
        default=ScheduleOptions(kind="constant"),
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
        """The options of quantisation-aware training; None if there is none."""
        option = self.quantize_aware
        return QuantizeAwareOptions(weights=option) if isinstance(option, str) else option

    @model_validator(mode="after")
    def _timed_schedule_has_a_time(self) -> TrainOptions:
        if isinstance(self.schedule, ScheduleOptions) and self.schedule.span == "time" and self.stop.time is None:
            raise fault_at(
                ("schedule", "span"), "`time` needs the time of the training.", "Write stop: {time: 30m} beside it."
            )
        return self

    @field_validator("swa")
    @classmethod
    def _one_average(cls, value: SwaOptions | None, info: ValidationInfo) -> SwaOptions | None:
        if value is not None and info.data.get("ema") is not None:
            raise fault("swa", "`swa` and `ema` both set the average of the weights that is kept.",
                        "Leave one of them out.")  # fmt: skip
        return value

    @field_validator("optimizer")
    @classmethod
    def _check_optimizer(cls, value: KerasObject) -> KerasObject:
        if value.kind == "schedule_free_adamw":
            # Keras never puts its averaged weights into the model.
            raise fault("optimizer", "schedule_free_adamw does not put the mean of its steps into the network, so "
                        "other weights would be evaluated and kept.",
                        "Write optimizer: adamw and schedule_free: true.")  # fmt: skip
        if not value.options.get("relative_step", True):
            # Its step is at most 1 / sqrt(step) with and without the option.
            raise fault_at(("relative_step",), "`relative_step` has no effect in Keras' adafactor, whose learning "
                           "rate is limited by 1 / sqrt(step) in any case.", "Leave it out.")  # fmt: skip
        return value

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        if isinstance(value, KerasObject) and optimizer is not None and optimizer.options["learning_rate"] == "auto":
            raise fault("schedule", f"the schedule {value.kind} sets its own learning rates, so `learning_rate: auto` "
                        "has no effect.",
                        "Set a learning_rate, or use the schedule constant, cosine or linear.")  # fmt: skip
        if (
            isinstance(value, KerasObject)
            and value.options.get("warmup_steps")
            and (value.options.get("warmup_target") is None)
        ):
            raise fault("schedule", f"the warm-up of {value.kind} has no effect without `warmup_target`.",
                        "Set it to the highest rate, and learning_rate to the first one; or write schedule: {kind: "
                        "cosine, warmup: 0.1}.")  # fmt: skip
        return value

    @field_validator("schedule_free")
    @classmethod
    def _check_schedule_free(cls, value: bool, info: ValidationInfo) -> bool:
        problem = _find_schedule_free_problem(info.data) if value else None
        if problem is not None:
            raise fault("schedule_free", *problem)
        return value

    @field_validator("callbacks")
    @classmethod
    def _check_callbacks(cls, value: tuple[KerasObject, ...], info: ValidationInfo) -> Any:
        schedule = info.data.get("schedule", ScheduleOptions(kind="constant"))
        plain = isinstance(schedule, ScheduleOptions) and schedule.kind == "constant" and schedule.warmup == 0
        kinds = [callback.kind for callback in value]
        if not plain and "reduce_lr_on_plateau" in kinds:
            raise fault_at(
                (kinds.index("reduce_lr_on_plateau"),),
                "reduce_lr_on_plateau cannot change a learning rate that follows train.schedule.",
                "Leave one of them out.",
            )
        return value


def _find_schedule_free_problem(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find the first valid option of `train` that does not suit `schedule_free`; returns message and suggestion."""
    for other in ("ema", "swa"):
        if options.get(other) is not None:
            return f"`schedule_free` and `{other}` both set the average of the weights that is kept.", "Leave one out."
    schedule = options.get("schedule")
    if schedule is not None and schedule.kind != "constant":
        return f"`schedule_free` replaces the schedule {schedule.kind}.", "Leave one of them out."
    if any(callback.kind == "reduce_lr_on_plateau" for callback in options.get("callbacks", ())):
        return "`schedule_free` replaces reduce_lr_on_plateau.", "Leave one of them out."
    optimizer = options.get("optimizer")
    return None if optimizer is None else _find_momentum_problem(optimizer)


def _find_momentum_problem(optimizer: KerasObject) -> tuple[str, str] | None:
    """Find why an optimizer cannot be schedule-free; returns message and suggestion."""
    name = MOMENTUM_OPTIONS.get(optimizer.kind)
    if name is None:
        return f"{optimizer.kind} cannot be schedule-free.", f"Those that can: {', '.join(MOMENTUM_OPTIONS)}."
    if not 0 < optimizer.options[name] < 1:
        return (
            f"expected {name} of {optimizer.kind} between 0 and 1, received {format_value(optimizer.options[name])}.",
            f"Write optimizer: {{kind: {optimizer.kind}, {name}: 0.9}}.",
        )
    if optimizer.options.get("nesterov"):
        return "`nesterov` does nothing with `schedule_free`.", "Leave it out."
    return None


Callback = Annotated[KerasObject, KerasObjectField("callbacks")]


LayerRate = Annotated[float, Field(ge=0)]
