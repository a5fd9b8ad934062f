"""An objective without a target: the inputs that are numbers are reconstructed from themselves with noise."""

from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
import pyarrow as pa
from keras import ops

from bmcli.answers import Answers, AnswerTable
from bmcli.errors import BmcliError
from bmcli.metrics.info import ERROR
from bmcli.objectives import Batch, LearnedTarget, MetricAdapter, ObjectivePart, PlainObjective
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, OutputSpec


class Options(ObjectiveOptions):
    """Squared error of numbers that are reconstructed from noisy ones."""

    kind: Literal["denoising"] = "denoising"
    noise: float = 0.3


@dataclass(frozen=True)
class Denoising(PlainObjective):
    def prepare(self, batch, draws, training):
        names, noise = self.output.inputs, self.output.state["noise"]
        noisy = {name: batch.inputs[name] + noise * draws.normal(1) for name in names}
        return Batch({**batch.inputs, **noisy}, ops.concatenate([batch.target[name] for name in names], axis=-1))

    def loss(self, target, output):
        return ops.mean(ops.square(target - ops.cast(output, "float32")), axis=-1)

    def predict(self, output):
        return ops.cast(output, "float32") * self._get("scale") + self._get("offset")

    def metrics(self, extra=()):
        return {"error": MetricAdapter(keras.metrics.Mean(name="error"), "min", self._compute_errors)}

    def _compute_errors(self, target, prediction):
        scaled = (prediction - self._get("offset")) / self._get("scale")
        return (ops.mean(ops.abs(scaled - target), axis=-1),)

    def _get(self, key):
        return ops.convert_to_tensor(self.target.state[key], "float32")


class DenoisingAnswers(Answers):
    """Numbers in their units; errors are in standard deviations."""

    means, state_names = {"error": ERROR}, ("noise",)

    def decode(self, encoded):
        values = np.concatenate([np.asarray(encoded[name]) for name in self.output.inputs], axis=-1)
        return values * np.array(self.target.state["scale"]) + np.array(self.target.state["offset"])

    def compute_terms(self, truth, predictions):
        return {"error": (np.abs(predictions - truth) / np.array(self.target.state["scale"])).mean(axis=1)}

    def make_columns(self, predictions):
        columns = zip(self.output.inputs, predictions.T, strict=True)
        return AnswerTable({f"{name}_reconstructed": pa.array(values) for name, values in columns})

    def measure_differences(self, expected, predicted, reference):
        return np.abs(expected - predicted) / reference.std()


class Part(ObjectivePart):
    Options, objective, answers = Options, Denoising, DenoisingAnswers

    def describe_inputs(self, options, name, inputs):
        numbers = [column for column in inputs if column.kind == "number" and column.shape == (1,)]
        if not numbers:
            raise BmcliError("there is no input of numbers to reconstruct.", path="objective")
        scales = {key: [column.state[key][0] for column in numbers] for key in ("offset", "scale")}
        names, shape = tuple(column.name for column in numbers), (len(numbers),)
        output = OutputSpec(name, "denoising", shape, state={"noise": options.noise}, inputs=names)
        return LearnedTarget(output, Column(name, "numbers", shape, "float32", state=scales))


PARTS = {"objectives.denoising": Part()}
