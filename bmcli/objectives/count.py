"""Counts: Poisson regression with a logarithmic link (Nelder and Wedderburn 1972)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    NUMBER_METRICS,
    Converter,
    Direction,
    LearnedTarget,
    MetricAdapter,
    TargetObjective,
    check_metrics,
    collect_metrics,
    create_metric_variables,
    keep,
    make_keras_metric,
)
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers

TARGETS = ("count",)
REQUEST = VECTOR
FORM = "number"
# A percentage of a count of 0 is undefined.
METRICS: Mapping[str, Direction] = {
    name: direction for name, direction in {**NUMBER_METRICS, "poisson": "min"}.items() if "percentage" not in name
}

_LINEAR_FROM = 30.0  # logarithm of the rate from which on the rate grows linearly: exp(89) overflows in float32
_TINY = 1e-37  # lower limit of a rate before its logarithm


class Options(ObjectiveOptions):
    """Half the Poisson deviance: negative log-likelihood of the count, minus that of a perfect prediction.

    The output is the logarithm of the rate relative to the mean of the training rows.
    """

    kind: Literal["count"] = Field(default="count", description="How many: the rate of a Poisson distribution.")


@dataclass(frozen=True)
class Count(TargetObjective):
    """The count of one target."""

    output: OutputSpec
    target: Column
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        count = ops.reshape(ops.cast(target, "float32"), (-1,))
        rate, log_rate = self._rate(output)
        return rate - count + count * (ops.log(ops.maximum(count, 1.0)) - log_rate)

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the logarithm of the mean relative to that of the training rows."""
        import numpy as np

        mean = np.average(targets.reshape(-1), weights=weights)
        return np.array([[math.log(max(mean, _TINY) / self.target.state["mean"])]], "float32")

    def predict(self, output: Any) -> Any:
        """Predict the rate, `(batch,)`."""
        return self._rate(output)[0]

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        import keras

        check_metrics(extra, METRICS, self.target)
        own = collect_metrics({"mae": KerasObject("mean_absolute_error")}, extra, self._make_metric)
        return {"poisson_deviance": MetricAdapter(keras.metrics.Mean(name="poisson_deviance"), "min", _deviance), **own}

    def _rate(self, output: Any) -> tuple[Any, Any]:
        """Compute the rate and its logarithm, `(batch,)`."""
        from keras import ops

        # With the mean of the training rows as an offset, initial weights predict about that mean.
        linear = ops.reshape(ops.cast(output, "float32"), (-1,)) + math.log(self.target.state["mean"])
        beyond = ops.relu(linear - _LINEAR_FROM)
        below = ops.minimum(linear, _LINEAR_FROM)
        return ops.exp(below) * (1 + beyond), below + ops.log1p(beyond)

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        metric = MetricAdapter(make_keras_metric(config, name, position), METRICS[config.kind], _add_axis)
        create_metric_variables(metric, np.zeros(2, "float32"), np.ones(2, "float32"))
        return metric


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one output: the logarithm of the rate."""
    return build_linear_head(features, 1)


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe the rate, one number."""
    return OutputSpec(target.name, "count", ())


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output."""
    from bmcli.answers.numbers import CountAnswers

    return CountAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Convert the logarithm of the rate relative to the mean of the teacher's training rows to the student's."""
    offset = math.log(teacher.target.state["mean"]) - math.log(student.target.state["mean"])
    return keep if offset == 0 else lambda outputs: outputs + offset


def invert_predictions(student: LearnedTarget) -> Converter:
    """Compute the logarithm of the rate relative to the mean of the training rows."""
    from keras import ops

    mean = math.log(student.target.state["mean"])
    return lambda rates: ops.reshape(ops.log(ops.maximum(ops.cast(rates, "float32"), _TINY)), (-1, 1)) - mean


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Count:
    return Count(output, target, options.weight)


def _deviance(target: Any, prediction: Any) -> tuple[Any]:
    from keras import ops

    # Counts are 0 or at least 1: the limit changes only log(0), which is multiplied by 0.
    ratio = ops.log(ops.maximum(target, 1.0)) - ops.log(ops.maximum(prediction, _TINY))
    return (2 * (prediction - target + target * ratio),)


def _add_axis(target: Any, prediction: Any) -> tuple[Any, Any]:
    from keras import ops

    return ops.reshape(target, (-1, 1)), ops.reshape(prediction, (-1, 1))
