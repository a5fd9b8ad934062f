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
from bmcli.distillation.losses import LayerOptions, LayerPair, OutputForm, TargetOutputs
from bmcli.distribution import strategy
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.layers.described_output import DescribedOutput
from bmcli.networks import network
from bmcli.networks.weights import SavedNetwork, load_weights
from bmcli.objectives import Converter, LearnedTarget
from bmcli.quoting import listed, quoted
from bmcli.recipe.distill import DistillationOptions, TrainedTeacherOptions
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.windows import EncodedRows

BATCH_SIZE = 512


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
        notes: How its outputs were matched with those of its student, where that is not plain; as sentences.
    """

    display_path: str
    model: keras.Model
    recipe: Recipe | None
    spec: DataSpec | None
    digest: str
    converters: Mapping[str, Callable[[Any], Any]]
    notes: tuple[str, ...] = ()

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
        built = network.build_saved_network(teacher_recipe, teacher_spec)
        load_weights(SavedNetwork(Path(options.model), teacher_spec, options.sha256), built)
    model = built.model
    model.trainable = False
    converters = {
        output.name: _build_converter(
            LearnedTarget(output, spec.target(output.name)), teacher_spec, run.display_path, path
        )
        for output in spec.outputs
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


def _build_converter(student: LearnedTarget, teacher_spec: DataSpec, display_path: str, path: str) -> Converter:
    """Build the conversion of a teacher's outputs to those of its student."""
    name, names = student.output.name, [output.name for output in teacher_spec.outputs]
    if name not in names:
        raise BmcliError(
            f"teacher {display_path} does not predict {quoted(name)}.", path=path,
            suggestion=parts.did_you_mean(name, names),
        )  # fmt: skip
    teacher = LearnedTarget(teacher_spec.output(name), teacher_spec.target(name))
    if teacher.output.objective != student.output.objective:
        raise _make_objective_error(display_path, teacher.output.objective, student, path)
    try:
        converter: Converter = parts.load("objectives", student.output.objective).convert_teacher(student, teacher)
    except ValueError as error:
        raise BmcliError(
            f"teacher {display_path} {error}.", path=path, suggestion="Give a teacher of the same targets."
        ) from None
    return converter


def _load_teacher_file(
    file: Path, digest: str, path: str, recipe: Recipe, spec: DataSpec, placement: Placement
) -> TeacherNetwork:
    """Load a teacher that predicts from raw rows."""
    with placement.strategy.scope(), _locate_faults(path):
        model = network.load_serving_model(file, digest)
    model.trainable = False
    display_path = format_path(file)
    if not isinstance(model.input, dict) or set(model.input) - {column.name for column in spec.inputs}:
        names = listed(map(str, model.input)) if isinstance(model.input, dict) else "an input without a name"
        raise BmcliError(
            f"the inputs of teacher {display_path} are not columns of these data: {names}.", path=path,
            suggestion="Build it as keras.Model({column: input}, {target: output}), by the names of the data.",
        )  # fmt: skip
    records = {layer.recorded_output: layer for layer in model.layers if isinstance(layer, DescribedOutput)}
    outputs = model.output if isinstance(model.output, dict) else {}
    matches = {
        output.name: _match_output(
            LearnedTarget(output, spec.target(output.name)), outputs, records.get(output.name), display_path, path
        )
        for output in spec.outputs
    }
    converters = {name: converter for name, (converter, _) in matches.items()}
    notes = tuple(note for _, note in matches.values() if note)
    return TeacherNetwork(display_path, model, None, None, digest, converters, notes)


def _match_output(
    student: LearnedTarget, outputs: Mapping[str, Any], record: DescribedOutput | None, display_path: str, path: str
) -> tuple[Converter, str]:
    """Match an output of a file with that of a student.

    Args:
        outputs: Of the file, by name.
        record: What the file records of the output; None in a file that bmcli did not write.

    Returns:
        The conversion of the file's predictions to outputs of the student, and a note, or an empty text.

    Raises:
        BmcliError: The file has no such output, or it means something else.
    """
    name, kind = student.output.name, parts.load("objectives", student.output.objective)
    if name not in outputs:
        raise BmcliError(
            f"teacher {display_path} has no output {quoted(name)}.", path=path,
            suggestion=parts.did_you_mean(name, list(map(str, outputs)))
            or "Build it as keras.Model({column: input}, {target: output}), by the names of the data.",
        )  # fmt: skip
    if record is not None and record.objective != student.output.objective:
        raise _make_objective_error(display_path, record.objective, student, path)
    shape, names = tuple(outputs[name].shape[1:]), student.output.names if record is None else record.names
    expected = (*student.output.shape[:-1], len(names)) if names else student.output.shape
    if not _fits(shape, expected):
        what, received = "classes" if student.output.names else "numbers", shape[-1] if shape else 1
        raise BmcliError(
            f"teacher {display_path} predicts {received} {what} of {quoted(name)}, expected "
            f"{expected[-1] if expected else 1}"
            f"{f': {listed(student.output.names)}' if student.output.names else ''}.",
            path=path, suggestion="Give a teacher of the same target.",
        )  # fmt: skip
    teacher = LearnedTarget(replace(student.output, names=names, shape=expected), student.target)
    try:
        invert: Converter = kind.invert_predictions(teacher)
    except ValueError as error:
        raise BmcliError(f"{error}.", path=path, suggestion="Give the teacher's run instead of its file.") from None
    try:
        convert: Converter = kind.convert_teacher(student, teacher)
    except ValueError as error:
        raise BmcliError(
            f"teacher {display_path} {error}.", path=path, suggestion="Give a teacher of the same classes."
        ) from None
    return lambda predictions: convert(invert(predictions)), _describe_match(student, record, display_path)


def _describe_match(student: LearnedTarget, record: DescribedOutput | None, display_path: str) -> str:
    """Describe in which order the classes of a file are taken, if it is not plainly that of the student."""
    names, of = student.output.names, quoted(student.output.name)
    if record is None and names:
        return f"teacher {display_path} has no names of the classes of {of}; they are read in the order {listed(names)}"
    if record is None or record.names == names:
        return ""
    return (
        f"teacher {display_path} predicts {of} as {listed(record.names)}; its student takes the classes by name, as "
        f"{listed(names)}"
    )


def _make_objective_error(display_path: str, objective: str, student: LearnedTarget, path: str) -> BmcliError:
    return BmcliError(
        f"teacher {display_path} has the objective {objective} for {quoted(student.output.name)}, its student "
        f"{student.output.objective}.",
        path=path, suggestion="Give both the same objective.",
    )  # fmt: skip


def _fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether shapes may be the same; None is any size, and a number may have an axis of its own."""
    shape = () if shape == (1,) and not expected else shape
    return len(shape) == len(expected) and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(shape, expected, strict=True)
    )


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
        if isinstance(loss, LayerOptions)
        for number, pair in enumerate(loss.pairs)
    ]


def list_output_forms(recipe: Recipe) -> dict[str, OutputForm]:
    """Get the form of the outputs of each target."""
    return {name: parts.load("objectives", options.kind).FORM for name, options in recipe.objectives().items()}
