"""A target whose answers differ in length, with its objective: colours named in a cell, such as `red blue red`."""

from types import ModuleType
from typing import ClassVar, Literal

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from bmcli.answers import Answers, AnswerTable
from bmcli.metrics.info import SHARE
from bmcli.models import build_linear_head
from bmcli.objectives import ObjectivePart, PlainObjective
from bmcli.raw_columns import RowFault, to_texts
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.recipe.targets import TargetOptions
from bmcli.specs import Column, OutputSpec

COLOURS, MOST, PADDING = ("red", "green", "blue"), 4, -1


class ColoursOptions(TargetOptions):
    """Up to four colours in a cell."""

    kind: Literal["colours"] = "colours"


def check(rows, options):
    encode(rows, None)


def fit(name, rows, options):
    encode(rows, None)
    return Column(name, "colours", (MOST,), "int32", raw_dtype="string")


def encode(rows, column):
    encoded = np.full((len(rows), MOST), PADDING, "int32")
    for row, text in enumerate(to_texts(rows).to_pylist()):
        words = (text or "").split()
        if len(words) > MOST or not set(words) <= set(COLOURS):
            raise RowFault(row, f"expected up to {MOST} of {', '.join(COLOURS)}.")
        encoded[row, : len(words)] = [COLOURS.index(word) for word in words]
    return encoded


class Options(ObjectiveOptions):
    """A colour for each place, and the number of places."""

    kind: Literal["colouring"] = "colouring"


class ColourAccuracy:
    """Share of the colours that are predicted."""

    direction = "max"

    def __init__(self):
        self.keras_metric = keras.metrics.Mean(name="accuracy")

    def update(self, target, prediction, counts=None):
        weights = tf.cast(target != PADDING, tf.float32)
        weights = weights if counts is None else weights * counts[:, None]
        hits = tf.cast(tf.argmax(prediction, axis=-1, output_type=target.dtype) == target, tf.float32)
        self.keras_metric.update_state(hits, sample_weight=weights)


class Colouring(PlainObjective):
    def compute_place_weights(self, target):
        return tf.cast(target != PADDING, tf.float32)

    def loss(self, target, output):
        logits = tf.cast(output[..., : len(COLOURS)], tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(target, 0), logits)
        return tf.reduce_sum(losses * tf.cast(target != PADDING, tf.float32), axis=-1)

    def predict(self, output):
        return keras.ops.softmax(keras.ops.cast(output, "float32"))

    def metrics(self, extra=()):
        return {"colour_accuracy": ColourAccuracy()}


class ColourAnswers(Answers):
    """Probabilities of the colours at each place; the places are those of the truth."""

    means: ClassVar = {"colour_accuracy": SHARE}

    def predict_points(self, predictions):
        return predictions.argmax(axis=-1)

    def format_value(self, value):
        return " ".join(COLOURS[index] for index in value if index != PADDING)

    def compute_terms(self, truth, predictions):
        known = truth != PADDING
        hits = ((self.predict_points(predictions) == truth) & known).sum(axis=1)
        return {"colour_accuracy": hits / np.maximum(known.sum(axis=1), 1)}

    def make_columns(self, predictions):
        points = self.predict_points(predictions)
        rows = np.repeat(np.arange(len(points)), MOST)
        colours = pa.array([COLOURS[index] for index in points.reshape(-1)], pa.string())
        return AnswerTable({"place": pa.array(np.tile(np.arange(MOST), len(points))), self.name: colours}, rows)

    served_prediction = "probabilities"

    def describe_decision(self):
        return "the most probable colour of each place"

    def describe_agreement(self, tolerance):
        return "the same colours"

    def agree(self, expected, predicted, differences, tolerance):
        return (self.predict_points(expected) == self.predict_points(predicted)).all(axis=1)


class Objective(ObjectivePart):
    Options, TARGETS, FORM = Options, ("colours",), "softmax"
    objective, answers = Colouring, ColourAnswers

    def describe(self, options, target):
        return OutputSpec(target.name, "colouring", (MOST, len(COLOURS)), names=COLOURS)

    def build_head(self, options, target, features):
        return keras.layers.Reshape((MOST, len(COLOURS)))(build_linear_head(features, MOST * len(COLOURS)))


def make_part(name, **members):
    part = ModuleType(name)
    vars(part).update(members)
    return part


PARTS = {
    "data.targets.colours": make_part(
        "colours", Options=ColoursOptions, OBJECTIVE="colouring", ONE_CLASS=False, State=None,
        guess=lambda profile: None, fit=fit, check=check, encode=encode,
        decode=lambda encoded, column: encoded, index_classes=lambda rows, options: None,
        count_classes=lambda truth, column: None,
    ),
    "objectives.colouring": Objective(),
}  # fmt: skip
