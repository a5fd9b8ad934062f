"""Tagging: a tag for each word of a text, by a softmax over the tags of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bmcli.errors import BmcliError
from bmcli.models import STEPS, Features
from bmcli.objectives import (
    ClassWeightOptions,
    Converter,
    Direction,
    LearnedTarget,
    PlaceMean,
    PlainObjective,
    compute_balanced_weights,
    compute_place_losses,
    convert_teacher_classes,
    invert_softmax,
    order_weights,
)
from bmcli.quoting import quoted
from bmcli.recipe.fields import KerasObject
from bmcli.specs import Column, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from bmcli.answers import Answers, ServedRole

TARGETS = ("tags",)
REQUEST = STEPS
FORM = "softmax"
METRICS: Mapping[str, Direction] = {}

_CERTAIN = 30.0  # logit of a step that has no word
_SMALL = 1e-7  # of a probability before its logarithm


class Options(ClassWeightOptions):
    """Cross-entropy of the tag of each word, in a short text and in a long one alike.

    `class_weights` weight the words by their tag.
    """

    kind: Literal["tagging"] = Field(default="tagging", description="A tag for each word of a text.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Label smoothing over the tags (Szegedy et al. 2016)."
    )


@dataclass(frozen=True)
class Tagging(PlainObjective):
    """Tags of the words of a text.

    The encoded target is the index of each tag, or -1 for no word, `(batch, steps)`. Outputs are logits
    `(batch, steps, tags + 1)`: the last class is that of steps without a word, whose logits are constant.
    """

    label_smoothing: float
    class_weights: np.ndarray | None
    """`(tags,)` in float32."""

    def compute_place_weights(self, target: Any) -> Any:
        from keras import ops

        return ops.cast(target >= 0, "float32")

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        logs = ops.log_softmax(ops.cast(output, "float32")[..., :-1])
        tags = ops.maximum(target, 0)
        losses = compute_place_losses(logs, tags, self.label_smoothing)
        if self.class_weights is not None:
            losses = losses * ops.take(ops.convert_to_tensor(self.class_weights), tags)
        return ops.sum(ops.where(target >= 0, losses, 0.0), axis=1)

    def predict(self, output: Any) -> Any:
        """Predict the distribution over the tags and no word, `(batch, steps, tags + 1)`."""
        from keras import ops

        return ops.softmax(ops.cast(output, "float32"))

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> Mapping[str, Any]:
        import keras

        return {"token_accuracy": PlaceMean(keras.metrics.Mean(name="token_accuracy"), "max", _find_hits)}

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the log-probability of the predicted tags together."""
        from keras import ops

        best = ops.max(ops.cast(prediction, "float32"), axis=-1)
        return ops.sum(ops.log(ops.maximum(best, _SMALL)), axis=1)

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        import tensorflow as tf

        if role != "decision":
            return super().serve(prediction, role)
        # A step without a word has the empty name; such steps are the last ones.
        names = tf.gather(tf.constant(self.output.names), tf.argmax(prediction, axis=-1))
        return tf.strings.strip(tf.strings.reduce_join(names, axis=1, separator=" "))


def _find_hits(target: Any, prediction: Any) -> tuple[Any, Any]:
    from keras import ops

    hits = ops.cast(ops.argmax(prediction, axis=-1), "int32") == ops.cast(target, "int32")
    return ops.cast(hits, "float32"), ops.cast(target >= 0, "float32")


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build the logits of each step, `(batch, steps, tags + 1)`.

    Raises:
        BmcliError: The network has another number of steps than the target.
    """
    import keras
    from keras import ops

    (length,), steps = target.shape, features.tensor.shape[1]
    if steps != length:
        text = target.state["columns"][1]
        raise BmcliError(
            f"target {quoted(target.name)} has up to {length} tags, but the network {steps} steps.",
            path="data.inputs",
            suggestion=f"Let the input {quoted(text)} be the only sequence, with `encoding: sequence` and "
            "`tokens: {kind: words, punctuation: keep}`, give it and the target the same `length`. "
            "Let the model keep all steps, such as cnn with `pool: 1`.",
        )
    # In float32 even in mixed precision: the softmax of 16-bit logits loses digits.
    logits = keras.layers.Dense(len(target.state["tags"]), dtype="float32")(features.tensor)
    padded = ops.pad(logits, ((0, 0), (0, 0), (0, 1)), constant_values=-_CERTAIN)
    if features.mask is None:
        return padded
    nothing = ops.concatenate([ops.full_like(logits, -_CERTAIN), ops.full_like(logits[..., :1], _CERTAIN)], axis=-1)
    return ops.where(ops.expand_dims(features.mask, -1), padded, nothing)


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe a distribution over the tags, and no word, for each step."""
    names = (*target.state["tags"], "")
    return OutputSpec(target.name, "tagging", (*target.shape, len(names)), names=names, activation="softmax")


def make_answers(output: OutputSpec, target: Column) -> Answers:
    from bmcli.answers.tags import TagAnswers

    return TagAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Select the teacher's outputs for the student's tags, in their order.

    Raises:
        ValueError: The teacher does not know a tag, or reads texts of another length.
    """
    if student.target.shape != teacher.target.shape:
        raise ValueError(f"tags up to {teacher.target.shape[0]} words, its student up to {student.target.shape[0]}")
    return convert_teacher_classes(student, teacher)


invert_predictions = invert_softmax


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Tagging:
    return Tagging(
        output, target, options.weight, options.label_smoothing, _compute_weights(options, target, train_targets)
    )


def _compute_weights(options: Options, target: Column, train_targets: Any) -> np.ndarray | None:
    """Compute the weight of each tag, float32 `(tags,)`; None if all are 1."""
    import numpy as np

    chosen, tags = options.class_weights, target.state["tags"]
    if chosen is None:
        return None
    if isinstance(chosen, Mapping):
        return order_weights(chosen, {name: name for name in chosen}, tags)
    # One more, since the index of no word is -1.
    counts = np.bincount(np.asarray(train_targets).ravel() + 1, minlength=len(tags) + 1)
    return compute_balanced_weights(options, counts[1:])
