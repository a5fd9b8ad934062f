"""Quantile regression of a number; the quantiles never cross (Koenker and Bassett 1978)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli.metrics.levels import find_median_index
from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    NUMBER_METRICS,
    Converter,
    LearnedTarget,
    MetricAdapter,
    TargetObjective,
    check_metrics,
    collect_metrics,
    convert_teacher_numbers,
    create_metric_variables,
    make_keras_metric,
    refuse_predictions,
    unscale_target,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject, fault
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers, ServedRole

TARGETS = ("number",)
REQUEST = VECTOR
FORM = "number"
METRICS = NUMBER_METRICS


class Options(ObjectiveOptions):
    """Pinball loss of the standardised number, averaged over the quantiles.

    The outputs are the lowest quantile and the non-negative differences of successive quantiles, so they never cross.
    """

    kind: Literal["quantile"] = Field(default="quantile", description="Several quantiles of a number.")
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = Field(
        default=(0.1, 0.5, 0.9),
        description="Quantiles to predict, in increasing order. The one nearest to 0.5 is evaluated as the "
        "prediction, the outermost two as an interval.",
    )

    @field_validator("quantiles")
    @classmethod
    def _rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(value)):
            raise fault("quantiles", f"expected quantiles in increasing order, received {list(value)}.",
                        f"Write {sorted(set(value))}.")  # fmt: skip
        return value


@dataclass(frozen=True)
class Quantile(TargetObjective):
    """Quantile regression of one target, in increasing order."""

    output: OutputSpec
    target: Column
    quantiles: tuple[float, ...]
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        error = ops.reshape(ops.cast(target, "float32"), (-1, 1)) - _cumulate_quantiles(output)
        return ops.mean(self._pinball(error), axis=-1)

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the outputs of the quantiles of all rows, whose weights are left out of account."""
        import numpy as np

        levels = np.quantile(targets.reshape(-1), self.quantiles)
        differences = np.maximum(np.diff(levels), 1e-6)
        inverse_softplus = differences + np.log(-np.expm1(-differences))
        return np.concatenate([levels[:1], inverse_softplus])[np.newaxis].astype("float32")

    def predict(self, output: Any) -> Any:
        """Predict the quantiles in the target's unit, `(batch, quantiles)`."""
        return unscale_target(self.target, _cumulate_quantiles(output))

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        import keras

        check_metrics(extra, METRICS, self.target)
        means = {"pinball": MetricAdapter(keras.metrics.Mean(name="pinball"), "min", self._compute_losses)}
        if len(self.quantiles) > 1:
            means["coverage"] = MetricAdapter(keras.metrics.Mean(name="coverage"), None, self._compute_coverage)
        return {**means, **collect_metrics({"mae": KerasObject("mean_absolute_error")}, extra, self._make_metric)}

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Return the quantile nearest to the median."""
        return super().explain(self.serve(prediction, "number"), chosen)

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        """Serve all quantiles, or as `number` the one nearest to the median."""
        middle = find_median_index(self.quantiles)
        return super().serve(prediction[:, middle] if role == "number" else prediction, role)

    def _pinball(self, error: Any) -> Any:
        """Compute the pinball loss of each quantile, `(batch, quantiles)`.

        Args:
            error: Truth minus quantile, of the same shape.
        """
        from keras import ops

        shares = ops.convert_to_tensor(self.quantiles, "float32")
        return ops.maximum(shares * error, (shares - 1) * error)

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        metric = MetricAdapter(make_keras_metric(config, name, position), METRICS[config.kind], self._select_median)
        create_metric_variables(metric, np.zeros(2, "float32"), np.zeros((2, len(self.quantiles)), "float32"))
        return metric

    def _unscale_truth(self, target: Any) -> Any:
        """Convert encoded targets to the target's unit, `(batch, 1)`."""
        from keras import ops

        return ops.reshape(unscale_target(self.target, target), (-1, 1))

    def _compute_losses(self, target: Any, prediction: Any) -> tuple[Any]:
        from keras import ops

        return (ops.mean(self._pinball(self._unscale_truth(target) - prediction), axis=-1),)

    def _compute_coverage(self, target: Any, prediction: Any) -> tuple[Any]:
        """Whether the outer interval contains the truth, 0 or 1, `(batch,)`."""
        from keras import ops

        truth = self._unscale_truth(target)[:, 0]
        inside = ops.logical_and(prediction[:, 0] <= truth, truth <= prediction[:, -1])
        return (ops.cast(inside, "float32"),)

    def _select_median(self, target: Any, prediction: Any) -> tuple[Any, Any]:
        """Select the truth and the quantile nearest to the median, `(batch, 1)`."""
        at = find_median_index(self.quantiles)
        return self._unscale_truth(target), prediction[:, at : at + 1]


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one number per quantile."""
    return build_linear_head(features, len(options.quantiles))


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe the quantiles in the unit of the target."""
    return OutputSpec(target.name, "quantile", (len(options.quantiles),), state={"quantiles": list(options.quantiles)})


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output."""
    from bmcli.answers.numbers import QuantileAnswers

    return QuantileAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Keep the outputs of a teacher with the same quantiles and scale: differences of quantiles cannot be rescaled."""
    if list(student.output.state["quantiles"]) != list(teacher.output.state["quantiles"]):
        raise ValueError(f"predicts other quantiles of {quoted(student.output.name)}")
    return convert_teacher_numbers(student, teacher)


def invert_predictions(student: LearnedTarget) -> Converter:
    """Refuse: only the quantiles are known, and not the network's differences of them."""
    return refuse_predictions(student)


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Quantile:
    return Quantile(output, target, options.quantiles, options.weight)


def _cumulate_quantiles(output: Any) -> Any:
    """Compute the standardised quantiles, `(batch, quantiles)`, from the lowest one and the differences."""
    from keras import ops

    output = ops.cast(output, "float32")
    steps = [output[:, :1], *(ops.softplus(output[:, at : at + 1]) for at in range(1, output.shape[1]))]
    # Added one by one: `cumsum` may add in another order, and a quantile be lower than the one before by a rounding
    # error.
    return ops.concatenate(list(accumulate(steps)), axis=-1)
