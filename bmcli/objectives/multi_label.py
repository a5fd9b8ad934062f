"""Multi-label classification: any number of labels per example, each by the sigmoid of a separate logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    ClassOptions,
    Converter,
    Direction,
    LearnedTarget,
    MetricAdapter,
    TargetObjective,
    apply_temperature,
    check_class_limits,
    check_loss,
    check_metrics,
    collect_metrics,
    compute_balanced_weights,
    compute_binary_crossentropy,
    compute_log_odds,
    compute_logits,
    convert_teacher_classes,
    create_metric_variables,
    describe_classes,
    make_keras_metric,
    order_class_weights,
    serve_classes,
)
from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject, KerasObjectField
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers, ServedRole

TARGETS = ("labels",)
REQUEST = VECTOR
FORM = "sigmoid"
METRICS: Mapping[str, Direction] = {
    "binary_accuracy": "max",
    "binary_crossentropy": "min",
    "auc": "max",
    "precision": "max",
    "recall": "max",
    "f1_score": "max",
    "f_beta_score": "max",
    "precision_at_recall": "max",
    "recall_at_precision": "max",
    "sensitivity_at_specificity": "max",
    "specificity_at_sensitivity": "max",
    "true_positives": "max",
    "true_negatives": "max",
    "false_positives": "min",
    "false_negatives": "min",
}

_LOSSES = ("binary_crossentropy", "binary_focal_crossentropy")
_SMALL = 1e-7  # of a probability before its logarithm


class Options(ClassOptions):
    """Binary cross-entropy of each label, averaged over the labels.

    `class_weights` by label weight the examples with that label; `balanced` and `effective` weight, for each label, the
    examples with it against those without it.
    """

    kind: Literal["multi_label"] = Field(default="multi_label", description="Any number of several labels.")
    loss: Annotated[KerasObject, KerasObjectField("losses")] = Field(
        default=KerasObject("binary_crossentropy"),
        description="A Keras loss by name: binary_crossentropy, or binary_focal_crossentropy, which gives less "
        "weight to examples that are classified well (Lin et al. 2017).",
    )

    @field_validator("loss")
    @classmethod
    def _loss_suits(cls, value: KerasObject) -> KerasObject | None:
        return check_loss(value, _LOSSES, "multi_label")


@dataclass(frozen=True)
class MultiLabel(TargetObjective):
    """The labels of one target.

    Args:
        loss_options: Options of the Keras loss, including its defaults.
        class_weights: Weights of the absence and the presence of each label, `(labels, 2)` in float32, or None.
    """

    output: OutputSpec
    target: Column
    loss_options: Mapping[str, Any]
    class_weights: np.ndarray | None
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        truth, logits = ops.cast(target, "float32"), ops.cast(output, "float32")
        losses = compute_binary_crossentropy(truth, logits, self.loss_options)
        if self.class_weights is not None:
            absent, present = ops.convert_to_tensor(self.class_weights[:, 0]), self.class_weights[:, 1]
            losses = losses * (truth * ops.convert_to_tensor(present) + (1 - truth) * absent)
        return ops.mean(losses, axis=-1)

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the logits of the shares of the labels, and half of them, which suit the focal loss."""
        import numpy as np

        present, every = weights @ targets.astype("float64"), weights.sum(dtype="float64")
        counts = np.stack([every - present, present], axis=-1)
        counts = counts if self.class_weights is None else counts * self.class_weights
        logits = compute_logits(counts[:, 1], counts[:, 0])
        return np.stack([logits, logits / 2]).astype("float32")

    def predict(self, output: Any) -> Any:
        from keras import ops

        return ops.sigmoid(apply_temperature(self.output, output))

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        check_metrics(extra, METRICS, self.target)
        own = {
            "binary_accuracy": KerasObject("binary_accuracy"),
            "f1_micro": KerasObject("f1_score", {"average": "micro"}),
        }
        return collect_metrics(own, extra, self._make_metric)

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the log-odds of the chosen label."""
        return compute_log_odds(prediction, chosen)

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        return serve_classes(self.target.classes, prediction, role, lambda names: self._decide(prediction, names))

    def with_output(self, output: OutputSpec) -> MultiLabel:
        return replace(self, output=output)

    def _decide(self, probabilities: Any, names: Any) -> Any:
        """Join the names of the labels whose probability exceeds 0.5, `(batch,)`."""
        import tensorflow as tf

        all_names = tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1])
        chosen_names = tf.ragged.boolean_mask(all_names, probabilities > 0.5)
        return tf.strings.reduce_join(chosen_names, axis=1, separator=self.output.state["separator"])

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        # By default Keras returns an F-score for each label, and predicts only the most probable label.
        defaults = {"average": "macro", "threshold": 0.5} if config.kind in ("f1_score", "f_beta_score") else {}
        config = KerasObject(config.kind, {**defaults, **config.options})
        check_class_limits(config, self.target, position)
        metric = MetricAdapter(make_keras_metric(config, name, position), METRICS[config.kind], _cast_target)
        labels = len(self.target.classes)
        create_metric_variables(metric, np.zeros((2, labels), "uint8"), np.full((2, labels), 0.5, "float32"))
        return metric


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one logit per label."""
    return build_linear_head(features, len(target.classes))


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe the probability of each label."""
    return describe_classes("multi_label", target, "sigmoid", {"separator": target.state["separator"]})


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output."""
    from bmcli.answers.classes import LabelAnswers

    return LabelAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Select the logits of the student's labels."""
    return convert_teacher_classes(student, teacher)


def invert_predictions(student: LearnedTarget) -> Converter:
    """Compute the logits of probabilities."""
    from keras import ops

    return lambda p: ops.log(ops.maximum(p, _SMALL)) - ops.log(ops.maximum(1 - p, _SMALL))


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> MultiLabel:
    """Build the objective of a target.

    Raises:
        BmcliError: A class weight names a label that does not exist.
    """
    defaults = catalogue.get_entry("losses", options.loss.kind)["options"]
    weights = _compute_weights(options, target, train_targets)
    return MultiLabel(output, target, {**defaults, **options.loss.options}, weights, options.weight)


def _compute_weights(options: ClassOptions, target: Column, train_targets: Any) -> np.ndarray | None:
    import numpy as np

    if options.class_weights in ("balanced", "effective"):
        present = np.asarray(train_targets).sum(axis=0, dtype="int64")
        return compute_balanced_weights(options, np.stack([len(train_targets) - present, present], axis=-1))
    named = order_class_weights(options.class_weights, target)
    return None if named is None else np.stack([np.ones_like(named), named], axis=-1)


def _cast_target(target: Any, prediction: Any) -> tuple[Any, Any]:
    from keras import ops

    return ops.cast(target, "float32"), prediction
