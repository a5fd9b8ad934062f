"""Classification: one of several classes, by a softmax over the network's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bmcli import parts
from bmcli.data.targets import match_class
from bmcli.errors import BmcliError
from bmcli.models import VECTOR, Features, build_linear_head
from bmcli.objectives import (
    AUTO,
    ClassNameField,
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
    compute_binary_crossentropy,
    compute_categorical_focal_crossentropy,
    compute_class_weights,
    compute_log_odds,
    convert_teacher_classes,
    create_metric_variables,
    decide_ordered,
    describe_classes,
    invert_softmax,
    make_keras_metric,
    serve_classes,
)
from bmcli.quoting import quoted
from bmcli.raw_columns import NO_WORDS, YES_WORDS
from bmcli.recipe import catalogue, fields
from bmcli.recipe.fields import KerasObject, KerasObjectField, fault, fault_at
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers, ServedRole

TARGETS = ("category", "ordered")
REQUEST = VECTOR
FORM = "softmax"

_EPSILON = 1e-7
_CERTAIN_LOGIT = 20.0  # above others, from which on a class has a probability of 1 in float32

# Arguments of each loss: the target as class indices, one-hot vectors, 0 or 1 for the second of two classes, or -1 or 1
# for it, whichever the positive class is, so that it changes no weights; the output as logits, probabilities, or the
# second logit minus the first.
_LOSSES = {
    "sparse_categorical_crossentropy": ("indices", "logits"),
    "categorical_crossentropy": ("one_hot", "logits"),
    "categorical_focal_crossentropy": ("one_hot", "logits"),
    "categorical_generalized_cross_entropy": ("indices", "probabilities"),
    "categorical_hinge": ("one_hot", "logits"),
    "kl_divergence": ("one_hot", "probabilities"),
    "mean_squared_error": ("one_hot", "probabilities"),
    "mean_absolute_error": ("one_hot", "probabilities"),
    "cosine_similarity": ("one_hot", "probabilities"),
    "binary_crossentropy": ("second", "margin"),
    "binary_focal_crossentropy": ("second", "margin"),
    "hinge": ("sign", "margin"),
    "squared_hinge": ("sign", "margin"),
}
_CANNOT_SMOOTH = (
    "sparse_categorical_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "hinge",
    "squared_hinge",
)
_FOR_TWO_CLASSES = {
    "binary_crossentropy": "categorical_crossentropy",
    "binary_focal_crossentropy": "categorical_focal_crossentropy",
    "hinge": "categorical_hinge",
    "squared_hinge": "categorical_hinge",
}

# Arguments of each metric in the same way; `threshold` and `two_classes` are the positive one of two classes, and the
# former all if there are more.
_METRICS: Mapping[str, tuple[str, Direction]] = {
    "sparse_categorical_accuracy": ("indices", "max"),
    "sparse_top_k_categorical_accuracy": ("indices", "max"),
    "sparse_categorical_crossentropy": ("indices", "min"),
    "categorical_accuracy": ("one_hot", "max"),
    "top_k_categorical_accuracy": ("one_hot", "max"),
    "categorical_crossentropy": ("one_hot", "min"),
    "kl_divergence": ("one_hot", "min"),
    "cosine_similarity": ("one_hot", "max"),
    "mean_squared_error": ("one_hot", "min"),
    "mean_absolute_error": ("one_hot", "min"),
    "root_mean_squared_error": ("one_hot", "min"),
    "auc": ("threshold", "max"),
    "precision": ("threshold", "max"),
    "recall": ("threshold", "max"),
    "f1_score": ("threshold", "max"),
    "f_beta_score": ("threshold", "max"),
    "precision_at_recall": ("threshold", "max"),
    "recall_at_precision": ("threshold", "max"),
    "sensitivity_at_specificity": ("threshold", "max"),
    "specificity_at_sensitivity": ("threshold", "max"),
    "true_positives": ("threshold", "max"),
    "true_negatives": ("threshold", "max"),
    "false_positives": ("threshold", "min"),
    "false_negatives": ("threshold", "min"),
    "binary_accuracy": ("two_classes", "max"),
    "binary_crossentropy": ("two_classes", "min"),
}
METRICS: Mapping[str, Direction] = {name: direction for name, (_, direction) in _METRICS.items()}


class ThresholdOptions(fields.Options):
    """Probability above which the positive one of two classes is predicted."""

    goal: Literal["f1", "cost", "recall"] = Field(
        description="Criterion on the validation rows: best F1, lowest cost of errors, or highest recall at a "
        "minimum precision."
    )
    false_positive: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Cost of a false positive, for goal cost."
    )
    false_negative: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Cost of a false negative, for goal cost."
    )
    precision: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Minimum precision, for goal recall."
    )

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> ThresholdOptions:
        if self.goal == "recall" and self.precision is None:
            raise fault("precision", "goal recall needs a precision to keep.", "Write precision: 0.9.")
        if self.goal != "recall" and self.precision is not None:
            raise fault_at(("precision",), f"`precision` does nothing with goal {self.goal}.", "Leave it out.")
        for name in ("false_positive", "false_negative"):
            if self.goal != "cost" and getattr(self, name) != 1:
                raise fault_at((name,), f"`{name}` does nothing with goal {self.goal}.", "Leave it out.")
        return self


class Options(ClassOptions):
    """Cross-entropy of the classes, or another Keras loss."""

    kind: Literal["classification"] = Field(default="classification", description="One of several classes.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Label smoothing e over K classes: the true class gets 1 - e + e/K, the others e/K (Szegedy et "
        "al. 2016).",
    )
    loss: Annotated[KerasObject, KerasObjectField("losses")] | None = Field(
        default=None,
        description="A Keras loss by name; by default cross-entropy. Hinge losses are computed from logits, squared "
        "and absolute errors from probabilities.",
    )

    positive: Annotated[str, ClassNameField()] = Field(
        default="auto",
        description="The class of two that precision, recall, F1, PR AUC, threshold and fairness speak of; it changes "
        "no weights. `auto`: the one that means yes, such as true or 1, where the other means no; otherwise the one "
        "with fewer training rows.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | ThresholdOptions | None = Field(
        default=None,
        description="Probability above which the positive class of two is predicted: a number, or chosen on the "
        "validation rows after training, such as {goal: f1}, {goal: cost, false_negative: 5} or {goal: recall, "
        "precision: 0.9}. By default the more probable class is predicted.",
    )

    def list_resolved(self, state: Mapping[str, Any]) -> dict[str, Any]:
        found = state.get("positive")
        return {"positive": found} if self.positive == AUTO and found is not None else {}

    @property
    def decides(self) -> bool:
        return super().decides or self.threshold is not None

    @property
    def decides_on_validation(self) -> bool:
        return super().decides_on_validation or isinstance(self.threshold, ThresholdOptions)

    @field_validator("loss")
    @classmethod
    def _loss_suits(cls, value: KerasObject | None) -> KerasObject | None:
        return check_loss(value, list(_LOSSES), "classification")

    @model_validator(mode="after")
    def _loss_can_smooth(self) -> Options:
        if self.loss is None or not self.label_smoothing:
            return self
        if self.loss.kind in _CANNOT_SMOOTH:
            raise fault(
                "label_smoothing",
                f"{self.loss.kind} cannot smooth labels.",
                "Use categorical_crossentropy, or leave label_smoothing out.",
            )
        if "label_smoothing" in self.loss.options:
            raise fault("label_smoothing", "label_smoothing is given twice.", "Leave out that of the loss.")
        return self


@dataclass(frozen=True)
class Classification(TargetObjective):
    """Classification of one target.

    Args:
        per_example_loss: Computes the loss of each example from a target and an output.
        loss_inputs: Forms in which the loss takes them, from `_LOSSES`.
        class_weights: `(classes,)` in float32, or None.
    """

    output: OutputSpec
    target: Column
    per_example_loss: Callable[[Any, Any], Any]
    loss_inputs: tuple[str, str]
    label_smoothing: float
    class_weights: np.ndarray | None
    weight: float

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        target_form, output_form = self.loss_inputs
        losses = self.per_example_loss(self._convert_target(target_form, target), _convert_output(output_form, output))
        if self.class_weights is None:
            return losses
        return losses * ops.take(ops.convert_to_tensor(self.class_weights), target)

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """List the logits of the shares of the classes, and those of the most frequent class alone.

        Half of the former suit focal losses, for which certainty counts less; the latter suit losses such as hinge,
        which need a margin, and absolute errors.
        """
        import numpy as np

        weights = weights if self.class_weights is None else weights * self.class_weights[targets]
        shares = np.bincount(targets, weights, len(self.target.classes)) / weights.sum()
        most_frequent = np.eye(len(shares))[shares.argmax()]
        logits = np.log(np.maximum(shares, _EPSILON))
        return np.stack([logits, logits / 2, most_frequent, _CERTAIN_LOGIT * most_frequent]).astype("float32")

    def predict(self, output: Any) -> Any:
        from keras import ops

        return ops.softmax(apply_temperature(self.output, output))

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> dict[str, MetricAdapter]:
        check_metrics(extra, _list_suitable_metrics(len(self.target.classes)), self.target)
        return collect_metrics({"accuracy": KerasObject("sparse_categorical_accuracy")}, extra, self._make_metric)

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the log-odds of the chosen class."""
        return compute_log_odds(prediction, chosen)

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        return serve_classes(self.target.classes, prediction, role, lambda names: self._decide(prediction, names))

    def with_output(self, output: OutputSpec) -> Classification:
        return replace(self, output=output)

    def _decide(self, probabilities: Any, names: Any) -> Any:
        """Decide as `CategoryAnswers.predict_points` and `OrderedAnswers.predict_points` do, `(batch,)`."""
        import tensorflow as tf

        if self.target.kind == "ordered":
            return decide_ordered(probabilities, names)
        if "threshold" in self.output.state:
            positive = get_positive_index(self.output)
            is_reached = probabilities[:, positive] >= self.output.state["threshold"]
            return tf.gather(names, tf.where(is_reached, positive, 1 - positive))
        return tf.gather(names, tf.argmax(probabilities, axis=1))

    def _convert_target(self, form: str, target: Any) -> Any:
        """Convert class indices `(batch,)` to the form of a loss."""
        from keras import ops

        if form == "indices":
            return target
        if form == "one_hot":
            count = len(self.target.classes)
            one_hot = ops.one_hot(target, count, dtype="float32")
            return one_hot * (1 - self.label_smoothing) + self.label_smoothing / count
        second = ops.expand_dims(ops.cast(target, "float32"), -1)
        if form == "sign":
            return 2 * second - 1
        return second * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _make_metric(self, config: KerasObject, name: str, position: int) -> MetricAdapter:
        import numpy as np

        count = len(self.target.classes)
        form, direction = _METRICS[config.kind]
        if form == "threshold":
            by_class = count > 2 or {"class_id", "top_k"} & set(config.options)
            form = "one_hot" if by_class else "positive"
        config = KerasObject(config.kind, {**_default_options(config.kind, form), **config.options})
        check_class_limits(config, self.target, position)
        arguments = _convert_arguments(form, count, get_positive_index(self.output))
        metric = MetricAdapter(make_keras_metric(config, name, position), direction, arguments)
        create_metric_variables(metric, np.zeros(2, "int32"), np.full((2, count), 1 / count, "float32"))
        return metric


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build one logit per class."""
    return build_linear_head(features, len(target.classes))


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe the probability of each class, and which of two classes is the positive one.

    Raises:
        BmcliError: The recipe names a positive class that the target does not have, or that has no effect.
    """
    positive = _choose_positive(options.positive, target)
    return describe_classes("classification", target, "softmax", {"positive": positive} if positive else {})


def _choose_positive(requested: str, target: Column) -> str | None:
    """Choose the positive one of two classes without an order; None for other targets."""
    if target.kind != "category" or len(target.classes) != 2:
        if requested == AUTO:
            return None
        order = " ordered ones" if target.kind == "ordered" else ""
        raise BmcliError(
            f"a positive class needs a category of two classes, but target {quoted(target.name)} has "
            f"{len(target.classes)}{order}.",
            path="objective.positive",
            suggestion="Leave it out.",
        )
    if requested == AUTO:
        return _guess_positive(target)
    found = match_class(requested, target)
    if found is None:
        raise BmcliError(
            f"target {quoted(target.name)} has no class {quoted(requested)}.",
            path="objective.positive",
            suggestion=parts.did_you_mean(requested, target.classes),
        )
    return found


def _guess_positive(target: Column) -> str:
    """Guess the positive one of two classes: the one that means yes, or the rarer one; the last in a tie.

    Of yes and no, or 1 and 0, the former is positive by convention, also where it is the more frequent one: a share
    of yes that turned into one of no without a word would be misread.
    """
    first, last = target.classes
    meanings = [_to_meaning(each) for each in (first, last)]
    if set(meanings) == {True, False}:
        return target.classes[meanings.index(True)]
    return first if target.class_counts and target.class_counts[0] < target.class_counts[1] else last


def _to_meaning(name: str) -> bool | None:
    """Return whether a class means yes or no; None if neither."""
    word = name.strip().lower()
    return True if word in YES_WORDS else False if word in NO_WORDS else None


def make_answers(output: OutputSpec, target: Column) -> Answers:
    """Make the answers of an output, those of ordered classes for a target in order."""
    from bmcli.answers.classes import CategoryAnswers, OrderedAnswers

    return (OrderedAnswers if target.kind == "ordered" else CategoryAnswers)(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Select the logits of the student's classes."""
    return convert_teacher_classes(student, teacher)


invert_predictions = invert_softmax


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Classification:
    """Build the objective of a target.

    Raises:
        BmcliError: A class weight names a class that does not exist, or the loss needs two classes.
    """
    # The sparse loss has no label smoothing.
    kind = "categorical_crossentropy" if options.label_smoothing else "sparse_categorical_crossentropy"
    loss = options.loss or KerasObject(kind)
    if loss.kind in _FOR_TWO_CLASSES and len(target.classes) != 2:
        raise BmcliError(
            f"{loss.kind} is for two classes, but target {quoted(target.name)} has {len(target.classes)}.",
            path="objective.loss",
            suggestion=f"Use {_FOR_TWO_CLASSES[loss.kind]}.",
        )
    if options.threshold is not None and (target.kind != "category" or len(target.classes) != 2):
        raise BmcliError(
            f"a threshold needs a category of two classes, but target {quoted(target.name)} has "
            f"{len(target.classes)}{' ordered ones' if target.kind == 'ordered' else ''}.",
            path="objective.threshold",
            suggestion="Leave it out.",
        )
    return Classification(
        output=output,
        target=target,
        per_example_loss=_focal_loss(loss) if "focal" in loss.kind else _keras_loss(loss),
        loss_inputs=_LOSSES[loss.kind],
        label_smoothing=options.label_smoothing,
        class_weights=compute_class_weights(options, target, train_targets),
        weight=options.weight,
    )


def _keras_loss(loss: KerasObject) -> Callable[[Any, Any], Any]:
    from bmcli.layers.keras_objects import make_keras_object

    fixed: dict[str, Any] = {"reduction": "none", "dtype": "float32"}
    if catalogue.get_entry("losses", loss.kind)["from_logits"]:
        fixed["from_logits"] = True
    try:
        keras_loss: Callable[[Any, Any], Any] = make_keras_object("losses", loss, **fixed)
    except (ValueError, TypeError) as error:
        raise BmcliError(f"{loss.kind}: {error}", path="objective.loss") from error
    return keras_loss


def _focal_loss(loss: KerasObject) -> Callable[[Any, Any], Any]:
    options = {**catalogue.get_entry("losses", loss.kind)["options"], **loss.options}
    if loss.kind == "categorical_focal_crossentropy":
        return lambda truth, logits: compute_categorical_focal_crossentropy(truth, logits, options)
    return lambda truth, margin: compute_binary_crossentropy(truth, margin, options)[:, 0]


def _convert_output(form: str, output: Any) -> Any:
    """Convert logits `(batch, classes)` to the form of a loss."""
    from keras import ops

    logits = ops.cast(output, "float32")
    if form == "margin":
        return logits[:, 1:] - logits[:, :1]
    # Powers and logarithms of a probability that underflowed to 0 have no finite gradient.
    return ops.clip(ops.softmax(logits), _EPSILON, 1.0) if form == "probabilities" else logits


def _list_suitable_metrics(classes: int) -> Mapping[str, Direction]:
    return {
        name: direction for name, direction in METRICS.items() if classes == 2 or _METRICS[name][0] != "two_classes"
    }


def _default_options(kind: str, form: str) -> dict[str, Any]:
    """Default options of a metric, with which it is one number."""
    if kind not in ("f1_score", "f_beta_score"):
        # Written out, so that `check_class_limits` sees the default of k.
        k = catalogue.get_entry("metrics", kind)["options"].get("k")
        return {} if k is None else {"k": k}
    # By default Keras returns a score for each class.
    return {"average": "macro", **({"threshold": 0.5} if form == "positive" else {})}


def get_positive_index(output: OutputSpec) -> int:
    """Get the index of the positive class, the last if the output has none."""
    return output.names.index(output.state.get("positive", output.names[-1]))


def _convert_arguments(form: str, classes: int, positive: int) -> Any:
    """Make the conversion of class indices `(batch,)` and probabilities `(batch, classes)` to a metric's arguments."""
    from keras import ops

    if form == "indices":
        return lambda target, prediction: (target, prediction)
    if form == "one_hot":
        return lambda target, prediction: (ops.one_hot(target, classes, dtype="float32"), prediction)
    return lambda target, prediction: (
        ops.expand_dims(ops.cast(ops.equal(target, positive), "float32"), -1),
        prediction[:, positive : positive + 1],
    )
