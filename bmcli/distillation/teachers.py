"""Trained networks as teachers: loading, and prediction of their outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import models, parts
from bmcli.disk import format_path
from bmcli.distillation import layer_lookup
from bmcli.distillation.losses import LayerPair, OutputForm, TargetOutputs
from bmcli.distribution import strategy
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.networks import network
from bmcli.networks.weights import SavedNetwork, load_weights
from bmcli.quoting import quoted
from bmcli.recipe.distill import DistillationOptions, TrainedTeacherOptions
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from bmcli.windows import EncodedRows

BATCH_SIZE = 512
_MIN_PROBABILITY = 1e-30  # before the logarithm


@dataclass(frozen=True)
class TeacherNetwork:
    """A trained network with converters of its outputs to those of a student.

    Args:
        display_path: For messages.
        model: From its inputs by column to its outputs by target.
        recipe, spec: Of its run; None for a file without a run, which takes raw rows.
        digest: SHA-256 of its file.
        converters: For each target of the student, from the teacher's outputs to the student's outputs for the same
            predictions, `(batch, width)`.
    """

    display_path: str
    model: keras.Model
    recipe: Recipe | None
    spec: DataSpec | None
    digest: str
    converters: Mapping[str, Callable[[Any], Any]]

    def accepts_inputs_of(self, spec: DataSpec) -> bool:
        """Whether it accepts the encoded inputs of other data without conversion."""
        return self.spec is not None and self.spec.inputs == spec.inputs

    def find_layer(self, selector: str | float, path: str) -> Any:
        """Find the output of a layer; a fault at `path` if there is no such layer."""
        if self.spec is None:
            raise BmcliError(
                f"{self.display_path} is a file, whose layers cannot be compared.", path=path,
                suggestion="Give the teacher's run instead of its file.",
            )  # fmt: skip
        return layer_lookup.find_layer_output(self.model, selector, self.display_path, path)


def load_teachers(
    options: DistillationOptions, recipe: Recipe, spec: DataSpec, placement: Placement
) -> tuple[TeacherNetwork, ...]:
    """Load all teachers of a student.

    Args:
        recipe, spec: The student's.

    Raises:
        BmcliError: A file is missing or was changed, or a teacher does not predict the student's targets.
    """
    return tuple(
        _load_teacher(each, f"distillation.teachers.{index}", recipe, spec, placement)
        for index, each in enumerate(options.teachers)
    )


def _load_teacher(
    options: TrainedTeacherOptions, path: str, recipe: Recipe, spec: DataSpec, placement: Placement
) -> TeacherNetwork:
    if options.run is None:
        return _load_teacher_file(Path(options.model), options.sha256, path, recipe, spec, placement)
    run = Run(Path(options.run))
    with _locate_faults(path):
        run.require_lock()
    teacher_recipe, teacher_spec = load_recipe(str(run.lock)).recipe.after_training(), read_data_spec(run)
    strategy.set_random_state(teacher_recipe.seed, teacher_recipe.train.precision)
    with placement.strategy.scope(), _locate_faults(path):
        built = network.build_network(teacher_recipe, teacher_spec)
        load_weights(SavedNetwork(Path(options.model), teacher_spec, options.sha256), built)
    model = built.model
    model.trainable = False
    converters = {
        column.name: _build_converter(column, teacher_spec, teacher_recipe, recipe, run.display_path, path)
        for column in spec.targets
    }
    return TeacherNetwork(run.display_path, model, teacher_recipe, teacher_spec, options.sha256, converters)


@contextlib.contextmanager
def _locate_faults(path: str) -> Iterator[None]:
    """Add to faults of a teacher's file which teacher it is."""
    try:
        yield
    except BmcliError as error:
        faults = (replace(fault, message=f"teacher {fault.message}", path=path) for fault in error.faults)
        advice = "Distill again, with a teacher that can be loaded."
        raise BmcliError(*(replace(each, suggestion=each.suggestion or advice) for each in faults)) from None


def _build_converter(
    student_column: Column, teacher_spec: DataSpec, teacher_recipe: Recipe, recipe: Recipe, display_path: str, path: str
) -> Callable[[Any], Any]:
    """Build the converter of a teacher's outputs to the student's order of classes or scale of numbers."""
    names = [column.name for column in teacher_spec.targets]
    if student_column.name not in names:
        raise BmcliError(
            f"teacher {display_path} does not predict {quoted(student_column.name)}.", path=path,
            suggestion=parts.did_you_mean(student_column.name, names),
        )  # fmt: skip
    teacher_column = teacher_spec.target(student_column.name)
    teacher_objective, student_objective = (each.objectives()[student_column.name] for each in (teacher_recipe, recipe))
    if teacher_objective.kind != student_objective.kind or getattr(teacher_objective, "quantiles", None) != getattr(
        student_objective, "quantiles", None
    ):
        raise BmcliError(
            f"teacher {display_path} has the objective {teacher_objective.kind} for {quoted(student_column.name)}, its "
            f"student {student_objective.kind}.",
            path=path, suggestion="Give both the same objective.",
        )  # fmt: skip
    if student_column.classes:
        return _build_class_converter(student_column, teacher_column, teacher_objective.kind, display_path, path)
    return (
        _build_number_converter(student_column, teacher_column, display_path, path)
        if "scale" in student_column.state
        else tf.identity
    )


def _build_class_converter(
    student_column: Column, teacher_column: Column, objective: str, display_path: str, path: str
) -> Callable[[Any], Any]:
    missing = [name for name in student_column.classes if name not in teacher_column.classes]
    if missing or (objective == "ordinal" and student_column.classes != teacher_column.classes):
        problem = (
            f"does not know the class {quoted(missing[0])}" if missing else "has other categories, or in another order,"
        )
        raise BmcliError(f"teacher {display_path} {problem} of {quoted(student_column.name)}.", path=path)
    if student_column.classes == teacher_column.classes:
        return tf.identity
    indices = [teacher_column.classes.index(name) for name in student_column.classes]
    return lambda outputs: tf.gather(outputs, indices, axis=-1)


def _build_number_converter(
    student_column: Column, teacher_column: Column, display_path: str, path: str
) -> Callable[[Any], Any]:
    if bool(student_column.state.get("log")) != bool(teacher_column.state.get("log")):
        raise BmcliError(
            f"teacher {display_path} and its student scale {quoted(student_column.name)} differently: one of them by "
            "its logarithm.", path=path, suggestion="Give both the same `scale` in data.targets.",
        )  # fmt: skip
    factor = float(teacher_column.state["scale"]) / float(student_column.state["scale"])
    offset = (float(teacher_column.state["mean"]) - float(student_column.state["mean"])) / float(
        student_column.state["scale"]
    )
    return tf.identity if (factor, offset) == (1.0, 0.0) else lambda outputs: outputs * factor + offset


def _load_teacher_file(
    file: Path, digest: str, path: str, recipe: Recipe, spec: DataSpec, placement: Placement
) -> TeacherNetwork:
    """Load a teacher that predicts from raw rows."""
    with placement.strategy.scope(), _locate_faults(path):
        model = network.load_serving_model(file, digest)
    model.trainable = False
    display_path, objectives = format_path(file), recipe.objectives()
    outputs = model.output if isinstance(model.output, dict) else {}
    converters = {}
    for column in spec.targets:
        if column.name not in outputs:
            raise BmcliError(
                f"teacher {display_path} has no output {quoted(column.name)}.", path=path,
                suggestion=parts.did_you_mean(column.name, list(map(str, outputs))),
            )  # fmt: skip
        width = outputs[column.name].shape[-1] if len(outputs[column.name].shape) > 1 else 1
        if column.classes and width != len(column.classes):
            raise BmcliError(
                f"teacher {display_path} predicts {width} classes of {quoted(column.name)}, expected "
                f"{len(column.classes)}.",
                path=path,
            )
        converters[column.name] = _build_prediction_converter(column, objectives[column.name].kind, path)
    if not isinstance(model.input, dict) or set(model.input) - {column.name for column in spec.inputs}:
        names = ", ".join(map(str, model.input)) if isinstance(model.input, dict) else "an input without a name"
        raise BmcliError(f"the inputs of teacher {display_path} are not columns of these data: {names}.", path=path)
    return TeacherNetwork(display_path, model, None, None, digest, converters)


def _build_prediction_converter(column: Column, objective: str, path: str) -> Callable[[Any], Any]:
    """Build the converter of predictions to outputs of an objective."""
    if objective == "classification":
        return lambda p: tf.math.log(tf.maximum(tf.cast(p, tf.float32), _MIN_PROBABILITY))
    if objective == "multi_label":
        return lambda p: tf.math.log(tf.maximum(p, _MIN_PROBABILITY)) - tf.math.log(tf.maximum(1 - p, 1e-7))
    if objective == "regression":
        mean, scale = float(column.state["mean"]), float(column.state["scale"])
        logarithm = bool(column.state.get("log"))

        def encode(values: Any) -> Any:
            values = tf.reshape(tf.cast(values, tf.float32), (-1, 1))
            return ((tf.math.log1p(tf.maximum(values, 0.0)) if logarithm else values) - mean) / scale

        return encode
    raise BmcliError(
        f"the outputs of the objective {objective} do not follow from predictions alone.", path=path,
        suggestion="Give the teacher's run instead of its file.",
    )  # fmt: skip


class TeacherPredictor:
    """Prediction of the outputs of teachers, and of some of their layers.

    Args:
        pairs: The pairs of layers that losses compare, with their paths in the recipe.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherNetwork],
        options: DistillationOptions,
        output_forms: Mapping[str, OutputForm],
        pairs: Sequence[tuple[LayerPair, str]] = (),
    ) -> None:
        self.teachers, self.average, self.output_forms = teachers, options.average, output_forms
        total = sum(each.weight for each in options.teachers)
        self.teacher_weights = tuple(each.weight / total for each in options.teachers)
        self.layers: dict[str, tuple[int, Any]] = {}
        for pair, path in pairs:
            if pair.of >= len(teachers):
                raise BmcliError(
                    f"there is no teacher {pair.of}, counted from 0: there are {len(teachers)}.", path=f"{path}.of"
                )
            self.layers[make_layer_key(pair)] = (pair.of, teachers[pair.of].find_layer(pair.teacher, f"{path}.teacher"))
        self._models = [self._build_layer_outputs(index) for index in range(len(teachers))]
        self._compiled = [tf.function(each, autograph=False, reduce_retracing=True) for each in self._models]

    @property
    def merged_weights(self) -> tuple[float, ...]:
        """Weight of each output of `predict`; one output if logits are averaged."""
        return (1.0,) if self.average == "logits" else self.teacher_weights

    def _build_layer_outputs(self, index: int) -> Callable[[Any], tuple[Any, Any]]:
        """Build a function from inputs to converted outputs, and layers by name, of one teacher."""
        teacher = self.teachers[index]
        layers = {name: tensor for name, (teacher_index, tensor) in self.layers.items() if teacher_index == index}
        with models.allow_column_names():
            model = keras.Model(teacher.model.input, {"outputs": teacher.model.output, "layers": layers})
        model.trainable = False

        def predict(inputs: Any) -> tuple[Any, Any]:
            results = model({name: inputs[name] for name in teacher.model.input}, training=False)
            outputs = {
                name: tf.cast(convert(results["outputs"][name]), tf.float32)
                for name, convert in teacher.converters.items()
            }
            return outputs, {name: tf.cast(results["layers"][name], tf.float32) for name in layers}

        return predict

    def predict(self, inputs: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """Predict some rows with all teachers.

        Args:
            inputs: For each teacher its inputs by column.

        Returns:
            `outputs` by target, `(batch, teachers, ..., width)`, and `layers` by name.
        """
        return self._join_outputs([model(each) for model, each in zip(self._models, inputs, strict=True)])

    def predict_arrays(
        self, inputs: Sequence[Mapping[str, EncodedRows]], rows: slice
    ) -> dict[str, dict[str, np.ndarray]]:
        """Predict some rows of arrays with compiled functions; results as of `predict`."""
        results = [
            model({name: tf.constant(np.asarray(array[rows])) for name, array in each.items()})
            for model, each in zip(self._compiled, inputs, strict=True)
        ]
        arrays: dict[str, dict[str, np.ndarray]] = tf.nest.map_structure(
            lambda tensor: tensor.numpy(), self._join_outputs(results)
        )
        return arrays

    def _join_outputs(self, results: Sequence[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
        outputs = {
            name: tf.stack([outputs_of_teacher[name] for outputs_of_teacher, _ in results], axis=1)
            for name in results[0][0]
        }
        if self.average == "logits":
            weights = tf.constant(self.teacher_weights, tf.float32)
            outputs = {
                name: tf.reduce_sum(tf.reshape(weights, (1, -1, *[1] * (each.shape.rank - 2))) * each, 1, keepdims=True)
                for name, each in outputs.items()
            }
        return {"outputs": outputs, "layers": {name: each for _, layers in results for name, each in layers.items()}}

    def merge_outputs(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the outputs of several teachers to those of one, at temperature 1, by target, `(batch, width)`."""
        return {
            name: TargetOutputs(None, each, self.merged_weights, self.output_forms[name], 1.0).teacher()
            for name, each in outputs.items()
        }


def make_layer_key(pair: LayerPair) -> str:
    """Make the name of a teacher's layer among the teacher outputs of the rows."""
    return f"{pair.of} {pair.teacher}"


def list_layer_pairs(options: DistillationOptions) -> list[tuple[LayerPair, str]]:
    """List the pairs of layers of all losses, with the paths of their options."""
    return [
        (pair, f"distillation.losses.{index}.pairs.{number}")
        for index, loss in enumerate(options.losses)
        for number, pair in enumerate(getattr(loss, "pairs", ()))
    ]


def list_output_forms(recipe: Recipe) -> dict[str, OutputForm]:
    """Get the form of the outputs of each target."""
    return {name: parts.load("objectives", options.kind).FORM for name, options in recipe.objectives().items()}
