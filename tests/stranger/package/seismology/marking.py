"""Marking: a mark for each reading, by a softmax over the marks and one more class for steps without a reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from bmcli.errors import BmcliError
from bmcli.models import STEPS, Features
from bmcli.objectives import Converter, LearnedTarget, TargetObjective, invert_softmax, keep
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec

TARGETS = ("marks",)
REQUEST = STEPS
FORM = "softmax"
METRICS: dict[str, Any] = {}

_NONE = "none"
_CERTAIN = 30.0  # logit of a step that is known to have no reading


class Options(ObjectiveOptions):
    """Cross-entropy of the mark of each reading."""

    kind: Literal["marking"] = Field(default="marking", description="A mark for each reading.")
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="Label smoothing (Szegedy et al. 2016).")


@dataclass(frozen=True)
class Marking(TargetObjective):
    """Marks of one target, whose encoded values are indices, or -1 for no reading."""

    output: OutputSpec
    smoothing: float
    weight: float

    def compute_place_weights(self, target: Any) -> Any:
        from keras import ops

        return ops.cast(target >= 0, "float32")

    def loss(self, target: Any, output: Any) -> Any:
        from keras import ops

        logs = ops.log_softmax(ops.cast(output, "float32"))
        marks = len(self.output.names) - 1
        truth = ops.one_hot(target, marks + 1)
        truth = truth * (1 - self.smoothing) + self.smoothing / marks * ops.cast(
            ops.arange(marks + 1) < marks, "float32"
        )
        losses = -ops.sum(truth * logs, axis=-1)
        return ops.sum(ops.where(target >= 0, losses, 0.0), axis=1)

    def predict(self, output: Any) -> Any:
        from keras import ops

        return ops.softmax(ops.cast(output, "float32"))

    def metrics(self, extra: tuple[Any, ...] = ()) -> dict[str, Any]:
        import keras

        return {"mark_accuracy": MarkAccuracy(keras.metrics.Mean(name="mark_accuracy"))}

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the log-probability of the marks."""
        from keras import ops

        return ops.sum(ops.log(ops.maximum(ops.max(prediction, axis=-1), 1e-7)), axis=1)

    def serve(self, prediction: Any, role: str) -> Any:
        import tensorflow as tf

        if role != "decision":
            return super().serve(prediction, role)
        # A step without a reading has no word.
        words = tf.gather(tf.constant([*self.output.names[:-1], ""]), tf.argmax(prediction, axis=-1))
        return tf.strings.strip(tf.strings.reduce_join(words, axis=1, separator=" "))

    def with_output(self, output: OutputSpec) -> Marking:
        return replace(self, output=output)


@dataclass(frozen=True)
class MarkAccuracy:
    """Share of the readings whose mark is predicted."""

    keras_metric: Any
    direction: Literal["max"] = "max"

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        from keras import ops

        weights = ops.cast(target >= 0, "float32")
        hits = ops.cast(ops.argmax(prediction, axis=-1) == ops.cast(target, "int32"), "float32")
        self.keras_metric.update_state(hits, weights if counts is None else weights * counts[:, None])


def build_head(options: Options, target: Column, features: Features) -> Any:
    """Build the logits of each step, `(batch, steps, marks + 1)`."""
    import keras
    from keras import ops

    steps, width = features.tensor.shape[1], len(target.state["marks"])
    if steps != target.shape[0]:
        raise BmcliError(
            f"target '{target.name}' has up to {target.shape[0]} marks, but the network {steps} steps.",
            path="data.inputs", suggestion=f"Give the trace steps: {target.shape[0]}.",
        )  # fmt: skip
    logits = keras.layers.Dense(width, dtype="float32")(features.tensor)
    padded = ops.pad(logits, ((0, 0), (0, 0), (0, 1)), constant_values=-_CERTAIN)
    if features.mask is None:
        return padded
    nothing = ops.concatenate([ops.zeros_like(logits), ops.full_like(logits[..., :1], _CERTAIN)], axis=-1)
    return ops.where(ops.expand_dims(features.mask, -1), padded, nothing)


def describe(options: Options, target: Column) -> OutputSpec:
    """Describe a distribution over the marks for each step."""
    names = (*target.state["marks"], _NONE)
    return OutputSpec(target.name, "marking", (*target.shape, len(names)), names=names, activation="softmax")


def make_answers(output: OutputSpec, target: Column) -> Any:
    from seismology.mark_answers import MarkAnswers

    return MarkAnswers(output, target)


def convert_teacher(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    if student.output.names != teacher.output.names:
        raise ValueError("knows other marks")
    return keep


invert_predictions = invert_softmax


def build(options: Options, output: OutputSpec, target: Column, train_targets: Any) -> Marking:
    return Marking(output, options.smoothing, options.weight)
