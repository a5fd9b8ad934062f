"""Regression: a number, which is trained on a standardised scale and predicted in its original unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli.data import targets
from bmcli.errors import BmcliError
from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    NUMBER_METRICS,
    Converter,
    LearnedTarget,
    MetricAdapter,
    TargetObjective,
    check_loss,
    check_metrics,
    collect_metrics,
    convert_teacher_numbers,
    create_metric_variables,
    invert_number,
    make_keras_metric,
    unscale_target,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject, KerasObjectField
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers

TARGETS = ("number",)
REQUEST = VECTOR
FORM = "number"
METRICS = NUMBER_METRICS

_STANDARDISED_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
_ORIGINAL_UNIT_LOSSES = ("mean_absolute_percentage_error", "mean_squared_logarithmic_error")

# Numbers smaller than this share of the standard deviation count as 0: the rounding error of scaling and its inverse.
_ROUNDING = 1e-5


class Options(ObjectiveOptions):
    """Mean squared error of the standardised number, or another Keras loss."""

    kind: Literal["regression"] = Field(default="regression", description="A number.")
    loss: Annotated[KerasObject, KerasObjectField("losses")] = Field(
        default=KerasObject("mean_squared_error"),
        description="A Keras loss by name, of the standardised number; delta of huber is in standard deviations. "
        "Percentage and logarithmic errors use the original unit.",
    )

    @field_validator("loss")
    @classmethod
    def _loss_suits(cls, value: KerasObject) -> KerasObject | None:
        return check_loss(value, [*_STANDARDISED_LOSSES, *_ORIGINAL_UNIT_LOSSES], "regression")


@dataclass(frozen=True)
class Regression(TargetObjective):
    """Regression of one target, whose encoded values are `(value - mean) / scale`.

    Args:
        keras_loss: Computes the loss of each example.
        in_original_unit: Whether the loss takes values in the original unit.
    """

    output: OutputSpec
    target: Column
    keras_loss: Any
    in_original_unit: bool
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        truth, prediction = ops.reshape(target, (-1,)), ops.reshape(ops.cast(output, "float32"), (-1,))
        if self.in_original_unit:
            truth, prediction = unscale_target(self.target, truth), unscale_target(self.target, prediction)
        return self.keras_loss(ops.expand_dims(truth, -1), ops.expand_dims(prediction, -1))

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """List the mean, which is best for squared errors, and the median, for absolute ones."""
        import numpy as np

        values = targets.reshape(-1)
        return np.array([[np.average(values, weights=weights)], [np.median(values)]], "float32")

    def predict(self, output: Any) -> Any:
        from keras import ops

        return unscale_target(self.target, ops.reshape(output, (-1,)))

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        check_metrics(extra, METRICS, self.target)
        own = {"mae": KerasObject("mean_absolute_error"), "rmse": KerasObject("root_mean_squared_error")}
        return collect_metrics(own, extra, self._make_metric)

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        metric = MetricAdapter(make_keras_metric(config, name, position), METRICS[config.kind], self._unscale_truth)
        create_metric_variables(metric, np.zeros(2, "float32"), np.zeros(2, "float32"))
        return metric

    def _unscale_truth(self, target: Any, prediction: Any) -> tuple[Any, Any]:
        """Convert encoded targets to the unit of predictions; both become `(batch, 1)`."""
        from keras import ops

        return ops.reshape(unscale_target(self.target, target), (-1, 1)), ops.reshape(prediction, (-1, 1))


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one output: the standardised number."""
    return build_linear_head(features, 1)


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe one number in the unit of the target."""
    return OutputSpec(target.name, "regression", ())


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output."""
    from bmcli.answers.numbers import NumberAnswers

    return NumberAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Convert to the scale of the student."""
    return convert_teacher_numbers(student, teacher)


invert_predictions = invert_number


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Regression:
    """Build the objective of a target.

    Raises:
        BmcliError: The loss is undefined for some of the training rows.
    """
    from bmcli.layers.keras_objects import make_keras_object

    _check_domain(options.loss.kind, target, train_targets)
    try:
        keras_loss = make_keras_object("losses", options.loss, reduction="none", dtype="float32")
    except (ValueError, TypeError) as error:
        raise BmcliError(f"{options.loss.kind}: {error}", path="objective.loss") from error
    return Regression(output, target, keras_loss, options.loss.kind in _ORIGINAL_UNIT_LOSSES, options.weight)


def _check_domain(loss: str, target: Column, train_targets: Any) -> None:
    import numpy as np

    if loss not in _ORIGINAL_UNIT_LOSSES:
        return
    values = targets.kind_of(target).decode(np.asarray(train_targets), target)
    tolerance = _ROUNDING * target.state["scale"]
    if loss == "mean_absolute_percentage_error":
        wrong, expected = np.abs(values) <= tolerance, "numbers other than 0"
    else:
        wrong, expected = values < -tolerance, "numbers of at least 0"
    if wrong.any():
        raise BmcliError(
            f"{loss} needs {expected}; {int(wrong.sum())} training rows of target {quoted(target.name)} have others.",
            path="objective.loss",
            suggestion="Use mean_absolute_error or huber.",
        )
