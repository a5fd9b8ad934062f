"""DIST: correlations with the teacher within an example and within a class (Huang et al. 2022)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmcli.distillation.losses import (
    LossInputs,
    OutputForm,
    SoftenedOptions,
    TargetOutputs,
    select_outputs,
    sum_losses,
)
from bmcli.recipe.distill import NotNegative, Temperature

FORMS: tuple[OutputForm, ...] = ("softmax",)
WHOLE_BATCH = True


class Options(SoftenedOptions):
    """DIST: 1 minus the correlation of teacher and student probabilities, times temperature squared.

    Correlations are between the classes of each example and between the examples of a batch for each class. The student
    matches the preferences of the teacher instead of its exact probabilities, which suits teachers far stronger than
    it.
    """

    kind: Literal["dist"] = Field(default="dist", description="Correlations.")
    temperature: Temperature = Field(
        default=1.0,
        description="Temperature that divides the logits, or a schedule over the epochs such as {start: 4, end: 1}.",
    )
    between: NotNegative = Field(default=1.0, description="Weight of the correlations between classes.")
    within: NotNegative = Field(default=1.0, description="Weight of the correlations within classes.")


def loss(options: Options, inputs: LossInputs) -> Any:
    """Compute equations 8 to 10 of the paper."""
    temperature = inputs.current_value(options.temperature)
    return sum_losses(
        [_compute_target_loss(each, temperature, options, inputs.weights) for each in select_outputs(options, inputs)]
    )


def _compute_target_loss(outputs: TargetOutputs, temperature: Any, options: Options, weights: Any) -> Any:
    from keras import ops

    student = ops.softmax(outputs.student / temperature)
    teacher = ops.softmax(outputs.teacher(temperature) / temperature)
    equal = ops.ones((1, student.shape[-1]), "float32")
    between = outputs.average_places(1 - _compute_correlations(student, teacher, equal))
    within = _compare_examples(student, teacher, weights, outputs.places)
    return outputs.weight * temperature**2 * (options.between * between + options.within * within)


def _compare_examples(student: Any, teacher: Any, weights: Any, places: Any) -> Any:
    """Compute 1 minus the mean correlation between the examples of a batch, over all classes and places."""
    from keras import ops

    student, teacher = ops.transpose(student), ops.transpose(teacher)  # (classes, ..., batch)
    if places is None:
        return 1 - ops.mean(_compute_correlations(student, teacher, weights[None, :]))
    by_place = weights * ops.transpose(places)  # (..., batch): an example counts at the places that it has
    correlations = _compute_correlations(student, teacher, by_place)
    shares = ops.sum(by_place, axis=-1)
    return 1 - ops.mean(ops.sum(shares * correlations, axis=tuple(range(1, len(correlations.shape))))) / ops.maximum(
        ops.sum(shares), 1e-12
    )


def _compute_correlations(first: Any, second: Any, weights: Any) -> Any:
    """Compute Pearson's correlation of each row of the first with that of the second, `(..., rows)`.

    Args:
        first, second: `(..., rows, columns)`.
        weights: Of the columns, `(..., columns)`.
    """
    from keras import ops

    shares = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-12)
    first, second = (values - ops.sum(shares * values, axis=-1, keepdims=True) for values in (first, second))
    covariance = ops.sum(shares * first * second, axis=-1)
    variances = ops.sum(shares * ops.square(first), axis=-1) * ops.sum(shares * ops.square(second), axis=-1)
    # Without the constant, the gradient of constant rows, which have no correlation, would be NaN.
    return covariance * ops.rsqrt(variances + 1e-16)
