"""Ordinal regression: the probability of passing each category, given that it was reached (Shi et al. 2021, CORN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    ClassOptions,
    Converter,
    Direction,
    LearnedTarget,
    MetricAdapter,
    TargetObjective,
    check_class_limits,
    check_metrics,
    collect_metrics,
    compute_class_weights,
    compute_log_odds,
    compute_logits,
    convert_teacher_classes,
    create_metric_variables,
    decide_ordered,
    describe_classes,
    keep,
    make_keras_metric,
    refuse_predictions,
    serve_classes,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers, ServedRole

TARGETS = ("ordered",)
REQUEST = VECTOR
FORM = "sigmoid"

# Arguments of each metric: ranks, or the probabilities of the categories.
_METRICS: Mapping[str, tuple[str, Direction]] = {
    "mean_absolute_error": ("ranks", "min"),
    "mean_squared_error": ("ranks", "min"),
    "root_mean_squared_error": ("ranks", "min"),
    "sparse_categorical_crossentropy": ("probabilities", "min"),
    "sparse_top_k_categorical_accuracy": ("probabilities", "max"),
}
METRICS: Mapping[str, Direction] = {name: direction for name, (_, direction) in _METRICS.items()}


class Options(ClassOptions):
    """Sequential (continuation-ratio) model of ordered categories, trained with cross-entropy.

    Each logit but that of the highest category is that of passing the category, given that it was reached. The
    probability of reaching a category is the product of those before it, so it never increases from one category to the
    next.
    """

    kind: Literal["ordinal"] = Field(default="ordinal", description="One of several categories in order.")


@dataclass(frozen=True)
class Ordinal(TargetObjective):
    """Ordinal regression of one target.

    Args:
        class_weights: `(classes,)` in float32, or None.
    """

    output: OutputSpec
    target: Column
    class_weights: np.ndarray | None
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        logits = ops.cast(output, "float32")
        rank = ops.expand_dims(ops.cast(target, "int32"), -1)
        steps = ops.arange(len(self.target.classes) - 1, dtype="int32")
        # Of each example only the steps that it has reached count: those it passed, and the one at which it stopped.
        passed = ops.cast(rank > steps, "float32")
        stopped = ops.cast(ops.equal(rank, steps), "float32")
        losses = ops.sum(passed * ops.softplus(-logits) + stopped * ops.softplus(logits), axis=-1)
        if self.class_weights is None:
            return losses
        return losses * ops.take(ops.convert_to_tensor(self.class_weights), target)

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the logits of the shares of rows that pass a category among those that reach it."""
        import numpy as np

        weights = weights if self.class_weights is None else weights * self.class_weights[targets]
        stopped = np.bincount(targets, weights, len(self.target.classes))
        passed = stopped.sum() - stopped.cumsum()
        return compute_logits(passed[:-1], stopped[:-1])[np.newaxis].astype("float32")

    def predict(self, output: Any) -> Any:
        """Predict probabilities `(batch, classes)`."""
        from keras import ops

        logits = ops.cast(output, "float32")
        # The product of the sigmoids so far, as a sum of logarithms, in which small factors do not underflow.
        passed = ops.exp(ops.cumsum(-ops.softplus(-logits), axis=-1))
        one = ops.ones_like(logits[:, :1])
        reached = ops.concatenate([one, passed], axis=-1)
        return reached * ops.concatenate([ops.sigmoid(-logits), one], axis=-1)

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        import keras

        check_metrics(extra, METRICS, self.target)
        accuracy = MetricAdapter(keras.metrics.Mean(name="accuracy"), "max", _compute_hits)
        others = collect_metrics({"mae": KerasObject("mean_absolute_error")}, extra, self._make_metric)
        return {"accuracy": accuracy, **others}

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the log-odds of the chosen category."""
        return compute_log_odds(prediction, chosen)

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        return serve_classes(self.target.classes, prediction, role, lambda names: self._decide(prediction, names))

    def with_output(self, output: OutputSpec) -> Ordinal:
        return replace(self, output=output)

    def _decide(self, probabilities: Any, names: Any) -> Any:
        return decide_ordered(probabilities, names)

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        form, direction = _METRICS[config.kind]
        check_class_limits(config, self.target, position)
        arguments = _convert_to_ranks if form == "ranks" else _keep_probabilities
        metric = MetricAdapter(make_keras_metric(config, name, position), direction, arguments)
        count = len(self.target.classes)
        create_metric_variables(metric, np.zeros(2, "int32"), np.full((2, count), 1 / count, "float32"))
        return metric


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one logit per step from a category to the next."""
    return build_linear_head(features, len(target.classes) - 1)


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe the probability of each category."""
    return describe_classes("ordinal", target, "sigmoid")


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output."""
    from bmcli.answers.classes import OrderedAnswers

    return OrderedAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Keep the logits of a teacher with the same categories in the same order: each depends on the ones before it."""
    convert_teacher_classes(student, teacher)
    if student.output.names != teacher.output.names:
        raise ValueError(f"has other categories, or in another order, of {quoted(student.output.name)}")
    return keep


def invert_predictions(student: LearnedTarget) -> Converter:
    """Refuse: the logits of categories after a certain one are not known."""
    return refuse_predictions(student)


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Ordinal:
    """Build the objective of a target.

    Raises:
        BmcliError: A class weight names a category that does not exist.
    """
    return Ordinal(output, target, compute_class_weights(options, target, train_targets), options.weight)


def _find_median(prediction: Any) -> Any:
    """Find the rank of the highest category that is reached with a probability above 0.5, `(batch,)`."""
    from keras import ops

    reached = 1 - ops.cumsum(prediction[:, :-1], axis=-1)
    return ops.sum(ops.cast(reached > 0.5, "float32"), axis=-1)


def _compute_hits(target: Any, prediction: Any) -> tuple[Any]:
    from keras import ops

    return (ops.cast(ops.equal(ops.cast(target, "float32"), _find_median(prediction)), "float32"),)


def _convert_to_ranks(target: Any, prediction: Any) -> tuple[Any, Any]:
    from keras import ops

    return ops.expand_dims(ops.cast(target, "float32"), -1), ops.expand_dims(_find_median(prediction), -1)


def _keep_probabilities(target: Any, prediction: Any) -> tuple[Any, Any]:
    return target, prediction
