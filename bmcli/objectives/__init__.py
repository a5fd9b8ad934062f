"""Objectives: the interpretation of a network's outputs, their loss, and their metrics during training."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from bmcli import parts
from bmcli.data import targets as target_kinds
from bmcli.errors import BmcliError
from bmcli.models import VECTOR, FeatureRequest, Features, build_linear_head
from bmcli.quoting import listed, quoted
from bmcli.recipe.fields import FieldType, KerasObject, Kind, check_mapping, fault, fault_at
from bmcli.recipe.nodes import format_value
from bmcli.recipe.objective import ObjectiveOptions
from bmcli.specs import Column, DataSpec, OutputSpec

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bmcli.answers import Answers, ServedRole
    from bmcli.augmentations import RandomSource

Direction = Literal["min", "max"]

_SMALL = 1e-7  # of a probability before its logarithm
_LEAST_PROBABILITY = 1e-30  # of a teacher before its logarithm


@dataclass(frozen=True)
class Batch:
    """Examples as the network and the loss of one target take them.

    Args:
        inputs: Encoded inputs by name, `(batch, ...)`; `(batch, views, ...)` for an objective of several views.
        target: Encoded target, `(batch, ...)`, or a nested structure of such tensors. For an objective without a target
            it is a mapping of the inputs that it learns from, augmented in training.
    """

    inputs: Mapping[str, Any]
    target: Any


class TargetObjective(ABC):
    """The objective of one target.

    `prepare`, `compute_place_weights` and `count_units` run inside a training step, in which the size of a batch may be
    known only at run time. All other methods accept eager, graph and symbolic Keras tensors.
    """

    weight: float
    """Weight of this target's loss among those of several targets."""
    views: int = 1
    """Rows of the network for each example, such as 2 for two versions of a picture that are compared. With several,
    `prepare` gives every input a second axis of this size, outputs and predictions have it too, and the network has no
    other objective."""
    couples_examples: bool = False
    """Whether the loss of an example depends on the others of its batch. `loss` then receives the whole batch, also
    where it is computed in parts or on several devices."""
    changes_batch: ClassVar[bool] = False
    """Whether the class has its own `prepare`."""
    has_place_weights: ClassVar[bool] = False
    """Whether the class has its own `compute_place_weights`."""
    hides_inputs: ClassVar[bool] = False
    """Whether the class has its own `prepare_prediction`; the network then has no other objective."""
    counts_units: ClassVar[bool] = False
    """Whether the class has its own `count_units` or `compute_place_weights`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.hides_inputs = cls.prepare_prediction is not TargetObjective.prepare_prediction
        cls.changes_batch = cls.prepare is not TargetObjective.prepare
        cls.has_place_weights = cls.compute_place_weights is not TargetObjective.compute_place_weights
        cls.counts_units = cls.has_place_weights or cls.count_units is not TargetObjective.count_units

    def prepare(self, batch: Batch, draws: RandomSource, training: bool) -> Batch:
        """Change a batch before the network computes it, for instance by noise, masks, or targets that are shifted.

        Args:
            batch: Examples as they were encoded, augmented in training.
            draws: In training other numbers in every step; otherwise the same ones in every pass over the rows.
            training: Whether the examples are trained on, and not measured.
        """
        return batch

    def compute_place_weights(self, target: Any) -> Any:
        """Compute the weights of the places of the output, such as steps, `(batch, ...)` in float32: 0 for padding.

        An output `(batch, ..., width)` has such places, of which each has a unit in the target. Losses between student
        and teacher are averaged by these weights, as `loss` is by its units.

        Args:
            target: Encoded target, as `prepare` returned it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no places")

    def count_units(self, target: Any) -> Any:
        """Count the units of each example, such as tokens or boxes, `(batch,)` in float32.

        By default they are the sum of `compute_place_weights`, or 1 without such weights.

        The losses of a whole batch are divided by the sum of its units. If units have weights, it is their sum.

        Args:
            target: Encoded target, as `prepare` returned it.
        """
        from keras import ops, tree

        if self.has_place_weights:
            weights = self.compute_place_weights(target)
            return ops.sum(weights, axis=tuple(range(1, len(weights.shape))))
        return ops.ones((ops.shape(tree.flatten(target)[0])[0],))

    @abstractmethod
    def loss(self, target: Any, output: Any) -> Any:
        """Compute the loss of each example, `(batch,)` in float32, the sum over its units, including their weights.

        Args:
            target: Encoded target, `(batch, ...)`, as `prepare` returned it.
            output: What `ObjectiveKind.build_head` built, `(batch, width)`; `(batch, views, width)` for several views.
        """

    def list_constant_outputs(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
        """List outputs of which one is the best for all rows alike, float32 `(candidates, width)`.

        A training whose loss stays at the lowest of theirs learns nothing from the inputs. None, the default, for
        objectives without such outputs.

        Args:
            targets: Encoded targets of the training rows, `(rows, ...)`.
            weights: Of the rows, float32 `(rows,)`.
        """
        return None

    @abstractmethod
    def predict(self, output: Any) -> Any:
        """Predict probabilities `(batch, classes)`, or numbers in the target's unit, `(batch,)` or per quantile."""

    def prepare_prediction(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change the inputs of an objective without a target before the network predicts from them.

        By default nothing is changed. Without random numbers: equal rows change alike, whichever others there are. It
        is part of the served model.

        Args:
            inputs: Encoded inputs by name, those of `OutputSpec.inputs`.
        """
        return inputs

    def predict_inputs(self, output: Any, inputs: Mapping[str, Any]) -> Any:
        """Predict for an objective without a target, whose predictions may speak of the inputs that it learns from.

        By default the inputs are not needed. A language model reads from them how probable a text is.

        Args:
            inputs: Encoded inputs by name, those of `OutputSpec.inputs`, before `prepare_prediction`.
        """
        return self.predict(output)

    def metrics(self, extra: tuple[KerasObject, ...] = ()) -> Mapping[str, Metric]:
        """Make new metrics by name, for passes over one split: those of the objective, then the extra ones.

        By default there are none beside the loss.

        Raises:
            BmcliError: A metric does not suit the target.
        """
        return {}

    def explain(self, prediction: Any, chosen: Any) -> Any:
        """Compute the score that attributions explain, `(batch,)` float32; by default the sum of the predicted numbers.

        Args:
            prediction: Result of `predict`.
            chosen: Index of the score of each row, from `Answers.choose_scores`.
        """
        from keras import ops

        score = ops.cast(prediction, "float32")
        axes = tuple(range(1, len(score.shape)))
        return ops.sum(score, axis=axes) if axes else score

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        """Compute a tensor of an exported model, one of `Answers.list_served`; by default the prediction in float32.

        Args:
            prediction: Result of `predict`.
        """
        import tensorflow as tf

        return tf.identity(tf.cast(prediction, "float32"))

    def with_output(self, output: OutputSpec) -> TargetObjective:
        """Make the same objective with another state of its output, such as a temperature.

        By default the same one, for predictions that do not depend on it.
        """
        return self


@dataclass(frozen=True)
class PlainObjective(TargetObjective):
    """An objective of nothing but its output, target and weight, such as those of `ObjectivePart`.

    By default it predicts its outputs in float32.
    """

    output: OutputSpec
    target: Column
    weight: float

    def predict(self, output: Any) -> Any:
        from keras import ops

        return ops.cast(output, "float32")

    def with_output(self, output: OutputSpec) -> TargetObjective:
        return replace(self, output=output)


@dataclass(frozen=True)
class TokenObjective(PlainObjective):
    """An objective that learns tokens of one input, without a target; outputs are logits `(batch, steps, tokens)`."""

    @property
    def input(self) -> str:
        """The text input."""
        return self.output.inputs[0]

    def predict(self, output: Any) -> Any:
        """Predict a distribution over the tokens for each step, `(batch, steps, tokens)`."""
        from keras import ops

        return ops.softmax(ops.cast(output, "float32"))

    def serve(self, prediction: Any, role: ServedRole) -> Any:
        import tensorflow as tf

        return tf.identity(prediction)


class NumberObjective(PlainObjective):
    """An objective of a target of kind `number`: outputs are scaled as the encoded target, `(batch, 1)`."""

    def predict(self, output: Any) -> Any:
        return unscale_target(self.target, output[:, 0])


class Metric(Protocol):
    """A Keras metric with the conversion of its arguments."""

    @property
    def keras_metric(self) -> keras.metrics.Metric: ...

    @property
    def direction(self) -> Direction | None:
        """Direction in which the metric is better; None if in neither, such as for the coverage of an interval."""

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        """Add a batch.

        Args:
            target: Encoded targets.
            prediction: Results of `TargetObjective.predict`.
            counts: 1 for each example that counts and 0 for others, or None if all do.
        """


class ObjectiveKind(Protocol):
    """The interface of a module in this folder."""

    Options: type[Kind]
    TARGETS: tuple[str, ...]  # kinds of target; none for an `UnlabelledKind`
    REQUEST: FeatureRequest  # features that `build_head` reads
    FORM: Literal["softmax", "sigmoid", "number"]  # logits of one distribution, of one for each output, or numbers
    METRICS: Mapping[str, Direction]  # Keras metrics that suit these targets, and the direction in which each is better

    def build_head(self, options: Any, target: Column, features: Features) -> Any:
        """Build the network's output for a target, a Keras tensor, from features of the form of `REQUEST`."""

    def describe(self, options: Any, target: Column) -> OutputSpec:
        """Describe the output for a target."""

    def make_answers(self, output: OutputSpec, target: Column) -> Answers:
        """Make the answers of an output, from what a run keeps of it."""

    def convert_teacher(self, student: LearnedTarget, teacher: LearnedTarget) -> Converter:
        """Make the conversion of a teacher's outputs to those of its student, whose objective is of the same kind.

        Raises:
            ValueError: They have different meanings; the message completes `teacher X ...`.
        """

    def invert_predictions(self, student: LearnedTarget) -> Converter:
        """Make the conversion of predictions to outputs, for a teacher of which only predictions are known.

        Raises:
            ValueError: Outputs do not follow from predictions; `refuse_predictions` raises it.
        """

    def build(self, options: Any, output: OutputSpec, target: Column, train_targets: Any) -> TargetObjective:
        """Build the objective of a target.

        Args:
            output: Result of `describe`, or that of a run.
            train_targets: Encoded targets of the training split, from which class weights are computed; None without a
                target.
        """


class UnlabelledKind(ObjectiveKind, Protocol):
    """The interface of a module whose objective learns from inputs, and has no target: `TARGETS` is empty.

    In the other methods, `target` is the column that `describe_inputs` made. The encoded target, of which
    `Answers.decode` makes the truth, is a mapping of the inputs `OutputSpec.inputs`.
    """

    def describe_inputs(self, options: Any, name: str, inputs: Sequence[Column]) -> LearnedTarget:
        """Choose the inputs to learn from, and describe the output; called instead of `describe`.

        Args:
            name: Of the output.
            inputs: All of the data, as they were fitted.

        Returns:
            The output with its `inputs`, and a column of the same name that describes the truth: its shape, and values
            of the fitted inputs that the objective needs.

        Raises:
            BmcliError: The objective cannot learn from these inputs.
        """


Converter = Callable[[Any], Any]
"""From tensors of one meaning to tensors of another, of the same batch."""


class ObjectivePart:
    """Base class of an objective of a plug-in, an instance of which is an `ObjectiveKind`.

    A class has `Options`, `TARGETS`, and the classes of its two halves. The defaults suit outputs that are numbers in
    the shape of the target, from a vector of features.
    """

    Options: ClassVar[type[ObjectiveOptions]]
    TARGETS: ClassVar[tuple[str, ...]] = ()
    REQUEST: ClassVar[FeatureRequest] = VECTOR
    FORM: ClassVar[Literal["softmax", "sigmoid", "number"]] = "number"
    METRICS: ClassVar[Mapping[str, Direction]] = {}
    objective: ClassVar[type[PlainObjective]]
    answers: ClassVar[type[Answers]]

    def describe(self, options: Any, target: Column) -> OutputSpec:
        """Describe numbers in the shape of the target, with `make_state`."""
        return OutputSpec(target.name, options.kind, target.shape, state=self.make_state(options, target))

    def make_state(self, options: Any, target: Column) -> Mapping[str, Any]:
        """Make the values that predictions or answers depend on, as plain JSON values; `Answers.state_names`."""
        return {}

    def build_head(self, options: Any, target: Column, features: Features) -> Any:
        """Build a linear map from a vector, `(batch, *target.shape)`, or `(batch, 1)` for single numbers."""
        import keras

        output = build_linear_head(features, math.prod(target.shape))
        return keras.layers.Reshape(target.shape)(output) if len(target.shape) > 1 else output

    def make_answers(self, output: OutputSpec, target: Column) -> Answers:
        return self.answers(output, target)

    def build(self, options: Any, output: OutputSpec, target: Column, train_targets: Any) -> TargetObjective:
        return self.objective(output, target, options.weight)

    def convert_teacher(self, student: LearnedTarget, teacher: LearnedTarget) -> Converter:
        """Keep the outputs of a teacher that learned the same; refuse others."""
        own, other = ((each.output.shape, each.output.names, each.target.state) for each in (student, teacher))
        if own != other:
            raise ValueError(f"learned another {quoted(student.output.name)} than its student")
        return keep

    def invert_predictions(self, student: LearnedTarget) -> Converter:
        return refuse_predictions(student)


class NumberPart(ObjectivePart):
    """Base class of a part whose objective is a `NumberObjective`."""

    TARGETS: ClassVar[tuple[str, ...]] = ("number",)

    def convert_teacher(self, student: LearnedTarget, teacher: LearnedTarget) -> Converter:
        return convert_teacher_numbers(student, teacher)

    def invert_predictions(self, student: LearnedTarget) -> Converter:
        return invert_number(student)


class LearnedTarget(NamedTuple):
    """An output with the column of its target, or of what is learned without one."""

    output: OutputSpec
    target: Column


@dataclass(frozen=True)
class MetricAdapter:
    """A metric of an objective.

    Args:
        direction: Direction in which it is better; None if in neither.
        arguments: Converts encoded targets and predictions to the arguments of the Keras metric.
    """

    keras_metric: keras.metrics.Metric
    direction: Direction | None
    arguments: Callable[[Any, Any], tuple[Any, ...]]

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        self.keras_metric.update_state(*self.arguments(target, prediction), sample_weight=counts)


@dataclass(frozen=True)
class PlaceMean(MetricAdapter):
    """A mean over places of the output, such as tokens; the arguments are values and weights, `(batch, places)`."""

    def update(self, target: Any, prediction: Any, counts: Any = None) -> None:
        values, weights = self.arguments(target, prediction)
        self.keras_metric.update_state(values, weights if counts is None else weights * counts[:, None])


NUMBER_METRICS: Mapping[str, Direction] = {
    "mean_absolute_error": "min",
    "mean_squared_error": "min",
    "root_mean_squared_error": "min",
    "mean_absolute_percentage_error": "min",
    "mean_squared_logarithmic_error": "min",
    "log_cosh_error": "min",
    "r2_score": "max",
}
"""Keras metrics of one number per example."""


@dataclass(frozen=True)
class ClassWeightsField(FieldType):
    """`balanced`, `effective`, or a weight for each class that differs from 1."""

    def check(self, value: Any) -> Any:
        if value is None or value in ("balanced", "effective"):
            return value
        if not isinstance(value, Mapping) or not value:
            raise fault(
                "class_weights",
                f"expected balanced, effective or weights by class, received {format_value(value)}.",
                "Write {CLASS: 2.0}; the weight of other classes is 1.",
            )
        # Classes are text; YAML reads a class called 0 as a number.
        return {str(name): weight for name, weight in check_mapping(_check_weight, value).items()}

    def json_schema(self) -> dict[str, Any]:
        weights = {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0},
            "minProperties": 1,
        }
        return {"anyOf": [{"enum": ["balanced", "effective"]}, weights, {"type": "null"}]}


AUTO = "auto"


@dataclass(frozen=True)
class ClassNameField(FieldType):
    """The name of a class, or `auto`; numbers and truth values are read as the text of the class."""

    def check(self, value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (str, int, float)) and str(value):
            return str(value)
        raise fault("class_name", f"expected the name of a class, or auto, received {format_value(value)}.")

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, {"type": "number"}, {"type": "boolean"}]}


def _check_weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise fault("class_weight", f"expected a number of at least 0, received {format_value(value)}.")
    return float(value)


class ClassWeightOptions(ObjectiveOptions):
    """Options of objectives whose units, such as rows or words, have classes of different weights."""

    class_weights: Annotated[Any, ClassWeightsField()] = Field(
        default=None,
        description="Class weights: a mapping from class to weight; `balanced`: rows / (classes * rows of the "
        "class) in training (King and Zeng 2001); or `effective`: (1 - beta) / (1 - beta^rows of the class), "
        "normalised to sum to the number of classes (Cui et al. 2019).",
    )
    beta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="beta of effective class weights, by default 0.999; values nearer to 1 give more weight to rare "
        "classes.",
    )

    @model_validator(mode="after")
    def _beta_has_an_effect(self) -> Self:
        if self.beta is not None and self.class_weights != "effective":
            raise fault_at(
                ("beta",), "`beta` does nothing without effective class weights.", "Write class_weights: effective."
            )
        return self


class ClassOptions(ClassWeightOptions):
    """Options of objectives with classes."""

    calibrate: Literal["none", "temperature"] = Field(
        default="none",
        description="`temperature`: after training, divide the logits by the temperature that maximises the "
        "likelihood of the validation rows (Guo et al. 2017). Exported models include it.",
    )

    @property
    def decides(self) -> bool:
        return self.calibrate != "none"

    @property
    def decides_on_validation(self) -> bool:
        return self.calibrate != "none"


def describe_outputs(options: Mapping[str, Any], spec: DataSpec) -> DataSpec:
    """Describe what a network learns from data.

    Args:
        options: Of the objective of each output.

    Raises:
        BmcliError: An objective without a target cannot learn from the inputs, or has the name of one.
    """
    outputs, derived = [], []
    for name, each in options.items():
        kind = parts.load("objectives", each.kind)
        if kind.TARGETS:
            outputs.append(kind.describe(each, spec.target(name)))
            continue
        learned = _describe_inputs(kind, each, name, spec)
        outputs.append(learned.output)
        derived.append(learned.target)
    return replace(spec, outputs=tuple(outputs), derived=tuple(derived))


def _describe_inputs(kind: UnlabelledKind, options: Any, name: str, spec: DataSpec) -> LearnedTarget:
    """Describe what an objective learns from inputs."""
    if name in (column.name for column in spec.inputs):
        raise BmcliError(
            f"the output of {options.kind} is named {quoted(name)}, as an input is.", path="objective",
            suggestion=f"Give it another name: {{learned: {{kind: {options.kind}}}}}.",
        )  # fmt: skip
    return kind.describe_inputs(options, name, spec.inputs)


def open_answers(spec: DataSpec) -> dict[str, Answers]:
    """Make the answers of all outputs, by their names."""
    return {
        output.name: parts.load("objectives", output.objective).make_answers(output, spec.target(output.name))
        for output in spec.outputs
    }


def describe_classes(
    objective: str,
    target: Column,
    activation: Literal["softmax", "sigmoid"],
    state: Mapping[str, Any] | None = None,
) -> OutputSpec:
    """Describe an output of a probability for each class of a target."""
    shape = (len(target.classes),)
    return OutputSpec(target.name, objective, shape, names=target.classes, activation=activation, state=state or {})


def convert_teacher_classes(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Select the teacher's outputs for the student's classes, in their order."""
    names, known = student.output.names, teacher.output.names
    if missing := [name for name in names if name not in known]:
        raise ValueError(
            f"does not know the class {quoted(missing[0])} of {quoted(student.output.name)}: it predicts "
            f"{listed(known)}, its student {listed(names)}"
        )
    if names == known:
        return keep
    indices = [known.index(name) for name in names]

    def select(outputs: Any) -> Any:
        from keras import ops

        return ops.take(outputs, ops.convert_to_tensor(indices, "int32"), axis=-1)

    return select


def convert_teacher_numbers(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Convert the teacher's standardised numbers to the scale of the student's."""
    own, other = student.target.state, teacher.target.state
    if bool(own.get("log")) != bool(other.get("log")):
        raise ValueError(
            f"scales {quoted(student.output.name)} differently, by its logarithm or not; give both the same `scale` in "
            "data.targets"
        )
    factor = float(other["scale"]) / float(own["scale"])
    offset = (float(other["mean"]) - float(own["mean"])) / float(own["scale"])
    return keep if (factor, offset) == (1.0, 0.0) else lambda outputs: outputs * factor + offset


def convert_teacher_tokens(student: LearnedTarget, teacher: LearnedTarget) -> Converter:
    """Keep the outputs of a teacher with the same tokens; refuse others, as `ObjectiveKind.convert_teacher` does."""
    if (student.target.state, student.target.shape) != (teacher.target.state, teacher.target.shape):
        raise ValueError("has other tokens, or texts of another length, than its student")
    return keep


def choose_text(
    kind: str, wanted: str | None, texts: Iterable[Column], *, needed: str, several: str, advice: str
) -> Column:
    """Choose the text that an objective without a target learns from.

    Args:
        wanted: Name of the input, if the recipe has one.
        texts: Inputs that are suitable.
        needed, several: What a suitable input is, and what several of them are or have, for messages.
        advice: How to write one.

    Raises:
        BmcliError: There is none, or more than one.
    """
    suitable = [column for column in texts if wanted in (None, column.name)]
    if len(suitable) == 1:
        return suitable[0]
    if suitable:
        names = ", ".join(quoted(column.name) for column in suitable)
        raise BmcliError(
            f"{kind} learns from one text, but {names} {several}.",
            path="objective.input", suggestion=f"Choose one: {{kind: {kind}, input: {suitable[0].name}}}.",
        )  # fmt: skip
    raise BmcliError(f"{kind} learns from {needed}, and no input is one.", path="data.inputs", suggestion=advice)


def pick_at_places(values: Any, indices: Any) -> Any:
    """Pick one of the values at each place, `(batch, places)`.

    Args:
        values: `(batch, places, width)`.
        indices: Integers below the width, `(batch, places)`.
    """
    from keras import ops

    chosen = ops.expand_dims(ops.cast(indices, "int32"), -1)
    return ops.squeeze(ops.take_along_axis(values, chosen, axis=-1), -1)


def compute_place_losses(logs: Any, indices: Any, label_smoothing: float) -> Any:
    """Compute the cross-entropy at each place, with label smoothing (Szegedy et al. 2016), `(batch, places)`.

    Args:
        logs: Log-probabilities, `(batch, places, width)`.
        indices: The true ones, `(batch, places)`.
    """
    from keras import ops

    losses = -pick_at_places(logs, indices)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * ops.mean(logs, axis=-1)
    return losses


def keep(tensor: Any) -> Any:
    """Return a tensor unchanged."""
    return tensor


def refuse_predictions(student: LearnedTarget) -> Converter:
    """Refuse a teacher of which only predictions are known.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"the outputs of the objective {student.output.objective} do not follow from predictions alone")


def compute_logits(for_it: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Compute the logits of shares from the weights of the rows for and against something."""
    import numpy as np

    return np.log(np.maximum(for_it, _SMALL)) - np.log(np.maximum(against, _SMALL))


def invert_softmax(student: LearnedTarget) -> Converter:
    """Take logarithms of probabilities, which are logits up to a constant that the softmax removes."""
    from keras import ops

    return lambda probabilities: ops.log(ops.maximum(ops.cast(probabilities, "float32"), _LEAST_PROBABILITY))


def invert_number(student: LearnedTarget) -> Converter:
    """Scale numbers as the values of a number target are encoded."""
    state = student.target.state

    def scale(values: Any) -> Any:
        from keras import ops

        values = ops.reshape(ops.cast(values, "float32"), (-1, 1))
        values = ops.log1p(ops.maximum(values, 0.0)) if state.get("log") else values
        return (values - float(state["mean"])) / float(state["scale"])

    return scale


def compute_log_odds(probabilities: Any, chosen: Any) -> Any:
    """Compute the log-odds of one class in each row, `(batch,)` float32.

    Args:
        probabilities: `(batch, classes)`.
        chosen: Class indices, `(batch,)`.
    """
    from keras import ops

    picked = ops.take_along_axis(ops.cast(probabilities, "float32"), ops.expand_dims(chosen, -1), axis=1)[:, 0]
    return ops.log(ops.maximum(picked, _SMALL)) - ops.log(ops.maximum(1 - picked, _SMALL))


def serve_classes(names: Sequence[str], probabilities: Any, role: ServedRole, decide: Callable[[Any], Any]) -> Any:
    """Compute a tensor of an exported model with classes.

    Args:
        names: Of the classes.
        decide: Computes the decisions as texts, `(batch,)`, from the names as a tensor.
    """
    import tensorflow as tf

    if role == "probabilities":
        return tf.identity(tf.cast(probabilities, "float32"))
    name_tensor = tf.constant(names)
    if role == "classes":
        return tf.tile(name_tensor[tf.newaxis], [tf.shape(probabilities)[0], 1])
    return decide(name_tensor)


def decide_ordered(probabilities: Any, names: Any) -> Any:
    """Decide for the median category as `OrderedAnswers.predict_points` does, as texts `(batch,)`."""
    import tensorflow as tf

    reached = 1 - tf.cumsum(tf.cast(probabilities[:, :-1], "float64"), axis=1)
    return tf.gather(names, tf.reduce_sum(tf.cast(reached > 0.5, "int32"), axis=1))


def apply_temperature(output_spec: OutputSpec, output: Any) -> Any:
    """Convert logits to float32, and divide them by the temperature of a calibrated output."""
    from keras import ops

    # The calibration stores the temperature in the output's state after training; before, there is none.
    logits, temperature = ops.cast(output, "float32"), output_spec.state.get("temperature", 1.0)
    return logits if temperature == 1 else logits / temperature


def compute_class_weights(options: ClassOptions, target: Column, train_targets: Any) -> np.ndarray | None:
    """Compute a weight for each class index, float32 `(classes,)`; None if all weights are 1.

    Args:
        train_targets: Class indices of the training rows.

    Raises:
        BmcliError: A weight names a class that does not exist.
    """
    import numpy as np

    chosen = options.class_weights
    if chosen is None or isinstance(chosen, Mapping):
        return order_class_weights(chosen, target)
    return compute_balanced_weights(options, np.bincount(np.asarray(train_targets), minlength=len(target.classes)))


def order_class_weights(chosen: Mapping[str, float] | None, target: Column) -> np.ndarray | None:
    """Order the weights of a recipe by the target's classes; classes without a weight get 1."""
    if chosen is None:
        return None
    spelling = target_kinds.get_spelling(target)
    return order_weights(chosen, {target_kinds.name_to_class(name, spelling): name for name in chosen}, target.classes)


def order_weights(chosen: Mapping[str, float], names: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Order the weights of a recipe by classes, float32 `(classes,)`; classes without a weight get 1.

    Args:
        names: The name of each class that is in `chosen`.

    Raises:
        BmcliError: A weight names a class that does not exist.
    """
    import numpy as np

    for each, name in names.items():
        if each not in classes:
            raise BmcliError(
                f"there is no class {quoted(name)}.",
                path=f"objective.class_weights.{name}",
                suggestion=parts.did_you_mean(name, classes),
            )
    return np.array([chosen[names[each]] if each in names else 1.0 for each in classes], "float32")


def compute_balanced_weights(options: ClassWeightOptions, counts: np.ndarray) -> np.ndarray:
    """Compute weights that compensate for different numbers of units per class, float32, by `options.class_weights`.

    Args:
        counts: Number of training rows or words of each class, along the last axis.
    """
    import numpy as np

    rows = np.maximum(counts, 1).astype("float64")  # a class may have no training row
    if options.class_weights == "balanced":
        weights = counts.sum(axis=-1, keepdims=True) / (counts.shape[-1] * rows)
    else:
        beta = 0.999 if options.beta is None else options.beta
        # 1 / (1 - beta^n), by `expm1`, because the difference loses digits for a beta close to 1.
        weights = -1 / np.expm1(rows * math.log(beta))
        weights *= counts.shape[-1] / weights.sum(axis=-1, keepdims=True)
    return weights.astype("float32")


def compute_binary_crossentropy(truth: Any, logits: Any, options: Mapping[str, Any]) -> Any:
    """Compute Keras' binary_crossentropy or binary_focal_crossentropy (Lin et al. 2017) of each number.

    Args:
        truth: 0 or 1, float32.
        logits: Float32 of the same shape.
        options: Options of the Keras loss, including its defaults; `gamma` for the focal loss.
    """
    from keras import ops

    # From the logits: Keras clips probabilities, and clipped ones have no gradient.
    truth = truth * (1 - options["label_smoothing"]) + options["label_smoothing"] / 2
    losses = truth * ops.softplus(-logits) + (1 - truth) * ops.softplus(logits)
    if "gamma" not in options:
        return losses
    # 1 - sigmoid(z) would lose digits for a large z; sigmoid(-z) does not.
    wrong = truth * ops.sigmoid(-logits) + (1 - truth) * ops.sigmoid(logits)
    losses = losses * _compute_focal_factor(wrong, options["gamma"])
    if not options["apply_class_balancing"]:
        return losses
    return losses * (truth * options["alpha"] + (1 - truth) * (1 - options["alpha"]))


def compute_categorical_focal_crossentropy(truth: Any, logits: Any, options: Mapping[str, Any]) -> Any:
    """Compute Keras' categorical_focal_crossentropy of each example, `(batch,)`.

    Args:
        truth: Probability of each class, `(batch, classes)` in float32.
        logits: Float32 of the same shape.
        options: Options of the Keras loss, including its defaults.
    """
    from keras import ops

    # From the logits, for the reason given in `compute_binary_crossentropy`.
    truth = truth * (1 - options["label_smoothing"]) + options["label_smoothing"] / truth.shape[-1]
    logs = ops.log_softmax(logits)
    losses = -truth * logs * _compute_focal_factor(1 - ops.exp(logs), options["gamma"])
    return options["alpha"] * ops.sum(losses, axis=-1)


def _compute_focal_factor(wrong: Any, gamma: float) -> Any:
    """Compute the factors of the focal loss from the probabilities of the wrong classes."""
    from keras import ops

    # The gradient of a power of 0 is infinite if gamma is below 1.
    return ops.power(ops.maximum(wrong, 1e-7), gamma)


def unscale_target(target: Column, encoded: Any) -> Any:
    """Convert encoded values of a number target, of any shape, to its unit and float32."""
    from keras import ops

    values = ops.cast(encoded, "float32") * float(target.state["scale"]) + float(target.state["mean"])
    if not target.state.get("log"):
        return values
    # Not `expm1`, which few export formats have. The limit is below 89, at which exp overflows in float32.
    return ops.exp(ops.minimum(values, 80.0)) - 1


def check_loss(loss: KerasObject | None, suitable: Sequence[str], objective: str) -> KerasObject | None:
    """Return the loss if it suits an objective; raises `fault` otherwise."""
    if loss is None:
        return None
    if loss.kind not in suitable:
        raise fault("loss", f"{loss.kind} does not suit {objective}.", f"Suitable: {', '.join(sorted(suitable))}.")
    if "axis" in loss.options:
        raise fault("loss", f"{loss.kind}: `axis` is always -1 here.", "Leave it out.")
    return loss


def check_metrics(extra: Sequence[KerasObject], suitable: Mapping[str, Any], target: Column) -> None:
    """Require that every metric suits the target.

    Raises:
        BmcliError: A metric does not; the first one is named.
    """
    for position, metric in enumerate(extra):
        if metric.kind not in suitable:
            near = parts.nearest(metric.kind, suitable)
            hint = f"Did you mean {quoted(near)}? " if near else ""
            raise BmcliError(
                f"{metric.kind} does not suit target {quoted(target.name)} of kind {target.kind}.",
                path=f"train.metrics.{position}",
                suggestion=f"{hint}Suitable: {', '.join(sorted(suitable))}.",
            )


def check_class_limits(config: KerasObject, target: Column, position: int) -> None:
    """Require that options of a metric that count or number classes are below the number of classes.

    Args:
        position: Index of the metric in `train.metrics`.
    """
    count = len(target.classes)
    for limit in ("k", "class_id", "top_k"):
        if (config.options.get(limit) or 0) >= count:
            raise BmcliError(
                f"{config.kind}: {limit} is {config.options[limit]}, but {quoted(target.name)} has {count} classes.",
                path=f"train.metrics.{position}",
                suggestion=f"Write {limit}: {count - 1}." if count > 2 else "Leave it out.",
            )


def collect_metrics(
    own: Mapping[str, KerasObject], extra: Sequence[KerasObject], make: Callable[[KerasObject, str, int], MetricAdapter]
) -> dict[str, MetricAdapter]:
    """Make the metrics of an objective, then the extra ones that are not among them, named by their options.

    Raises:
        BmcliError: Two extra metrics are the same.

    Args:
        own: Metrics of the objective by name.
        make: Makes a metric from its description, its name, and its index in `train.metrics`.
    """
    metrics = {name: make(config, name, 0) for name, config in own.items()}
    for position, config in enumerate(extra):
        name = name_metric(config)
        if config in extra[:position]:
            raise BmcliError(
                f"{config.kind} is listed twice with the same options.", path=f"train.metrics.{position}",
                suggestion="Remove one of them.",
            )  # fmt: skip
        if own.get(name) != config:
            metrics[name] = make(config, name, position)
    return metrics


def make_keras_metric(config: KerasObject, name: str, position: int) -> keras.metrics.Metric:
    """Make a Keras metric.

    Raises:
        BmcliError: Keras refuses the options; with the path in `train.metrics`.
    """
    from bmcli.layers.keras_objects import make_keras_object

    try:
        return make_keras_object("metrics", config, name=name)
    except (ValueError, TypeError) as error:
        raise BmcliError(f"{config.kind}: {error}", path=f"train.metrics.{position}") from error


def create_metric_variables(metric: MetricAdapter, target: Any, prediction: Any) -> None:
    """Create the variables of a metric.

    Args:
        target, prediction: Any batch.
    """
    # Some Keras metrics create variables with their first batch, but a compiled step cannot create any.
    if hasattr(metric.keras_metric, "_build"):
        metric.update(target, prediction)
        metric.keras_metric.reset_state()


def name_metric(config: KerasObject) -> str:
    """Name a metric by its kind and the options of the recipe, such as `precision_thresholds_0.7`.

    The name of an option that ends the kind is left out, as in `precision_at_recall_0.9`.
    """
    options = [
        _to_name(value) if config.kind.endswith(f"_{option}") else f"{option}_{_to_name(value)}"
        for option, value in config.options.items()
    ]
    return "_".join([config.kind, *options])


def _to_name(value: Any) -> str:
    """Write the value of an option in letters that the name of a metric may have."""
    if isinstance(value, (list, tuple)):
        return "_".join(map(_to_name, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.-]", "_", text)
