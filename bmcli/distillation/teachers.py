"""Trained networks as teachers: opened from their files, and asked what they say of rows."""

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
from bmcli.quoting import quoted
from bmcli.recipe.distill import DistillationOptions, TrainedTeacherOptions
from bmcli.recipe.load import load_recipe
from bmcli.recipe.schema import Recipe
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec

BATCH_SIZE = 512
_MIN_PROBABILITY = 1e-30  # the least probability whose logarithm is taken


@dataclass(frozen=True)
class TeacherNetwork:
    """A trained network that tells its outputs in the terms of a student.

    Args:
        display_path: What a user calls it.
        model: From its inputs by column to its outputs by target.
        recipe, spec: Of its run; None if it is a file of its own, which takes raw rows.
        digest: SHA-256 of its file.
        converters: For each target of the student from the teacher's outputs to those that the student would have to
            give for the same predictions, `(batch, width)`.
    """

    display_path: str
    model: keras.Model
    recipe: Recipe | None
    spec: DataSpec | None
    digest: str
    converters: Mapping[str, Callable[[Any], Any]]

    def accepts_inputs_of(self, spec: DataSpec) -> bool:
        """Whether it takes the encoded inputs of other data as they are."""
        return self.spec is not None and self.spec.inputs == spec.inputs

    def find_layer(self, where: str | float, path: str) -> Any:
        """A symbolic tensor inside of it; a fault at `path` if there is no such layer."""
        if self.spec is None:
            raise BmcliError(
                f"{self.display_path} is a file, inside of which no layer can be named.", path=path,
                suggestion="Name its run.",
            )  # fmt: skip
        return layer_lookup.find_layer_output(self.model, where, self.display_path, path)


def load_teachers(
    options: DistillationOptions, recipe: Recipe, spec: DataSpec, placement: Placement
) -> tuple[TeacherNetwork, ...]:
    """All teachers of a student.

    Args:
        recipe, spec: The student's.

    Raises:
        BmcliError: A file is gone, was changed, or tells something else than the student learns.
    """
    return tuple(
        _load_teacher(each, f"distillation.teachers.{place}", recipe, spec, placement)
        for place, each in enumerate(options.teachers)
    )


def _load_teacher(
    options: TrainedTeacherOptions, path: str, recipe: Recipe, spec: DataSpec, placement: Placement
) -> TeacherNetwork:
    if options.run is None:
        return _load_teacher_file(Path(options.model), options.sha256, path, recipe, spec, placement)
    run = Run(Path(options.run))
    with _locate_faults(path):
        run.require_lock()
    its_recipe, its_spec = load_recipe(str(run.lock)).recipe.after_training(), read_data_spec(run)
    strategy.set_random_state(its_recipe.seed, its_recipe.train.precision)
    with placement.strategy.scope(), _locate_faults(path):
        model = network.require_model(its_recipe, its_spec)
        network.load_model_weights(Path(options.model), model, its_spec, digest=options.sha256)
    model.trainable = False
    terms = {
        column.name: _build_converter(column, its_spec, its_recipe, recipe, run.display_path, path)
        for column in spec.targets
    }
    return TeacherNetwork(run.display_path, model, its_recipe, its_spec, options.sha256, terms)


@contextlib.contextmanager
def _locate_faults(path: str) -> Iterator[None]:
    """Tells of a teacher's file which teacher it is."""
    try:
        yield
    except BmcliError as error:
        faults = (replace(fault, message=f"teacher {fault.message}", path=path) for fault in error.faults)
        advice = "Distill again, with a teacher that can be loaded."
        raise BmcliError(*(replace(each, suggestion=each.suggestion or advice) for each in faults)) from None


def _build_converter(
    mine: Column, its_spec: DataSpec, its_recipe: Recipe, recipe: Recipe, shown: str, path: str
) -> Callable[[Any], Any]:
    """From a teacher's outputs of a target to the student's terms: its order of classes, its scale of numbers."""
    known = [column.name for column in its_spec.targets]
    if mine.name not in known:
        raise BmcliError(
            f"teacher {shown} does not predict {quoted(mine.name)}.", path=path,
            suggestion=parts.did_you_mean(mine.name, known),
        )  # fmt: skip
    its = its_spec.target(mine.name)
    one, other = (each.objectives()[mine.name] for each in (its_recipe, recipe))
    if one.kind != other.kind or getattr(one, "quantiles", None) != getattr(other, "quantiles", None):
        raise BmcliError(
            f"teacher {shown} learned {quoted(mine.name)} by {one.kind}, and its student is to learn "
            f"it by {other.kind}.",
            path=path, suggestion="Give both one objective.",
        )  # fmt: skip
    if mine.classes:
        return _build_class_converter(mine, its, one.kind, shown, path)
    return _build_number_converter(mine, its, shown, path) if "scale" in mine.state else tf.identity


def _build_class_converter(mine: Column, its: Column, objective: str, shown: str, path: str) -> Callable[[Any], Any]:
    missing = [name for name in mine.classes if name not in its.classes]
    if missing or (objective == "ordinal" and mine.classes != its.classes):
        what = (
            f"does not know the class {quoted(missing[0])}" if missing else "has other categories, or in another order,"
        )
        raise BmcliError(f"teacher {shown} {what} of {quoted(mine.name)}.", path=path)
    if mine.classes == its.classes:
        return tf.identity
    places = [its.classes.index(name) for name in mine.classes]
    return lambda outputs: tf.gather(outputs, places, axis=-1)


def _build_number_converter(mine: Column, its: Column, shown: str, path: str) -> Callable[[Any], Any]:
    if bool(mine.state.get("log")) != bool(its.state.get("log")):
        raise BmcliError(
            f"teacher {shown} and its student do not both learn the logarithm of {quoted(mine.name)}.", path=path,
            suggestion="Give both one `scale` in data.targets.",
        )  # fmt: skip
    factor = float(its.state["scale"]) / float(mine.state["scale"])
    added = (float(its.state["mean"]) - float(mine.state["mean"])) / float(mine.state["scale"])
    return tf.identity if (factor, added) == (1.0, 0.0) else lambda outputs: outputs * factor + added


def _load_teacher_file(
    file: Path, digest: str, path: str, recipe: Recipe, spec: DataSpec, placement: Placement
) -> TeacherNetwork:
    """A teacher that takes raw rows and gives predictions."""
    with placement.strategy.scope(), _locate_faults(path):
        model = network.load_serving_model(file, digest)
    model.trainable = False
    shown, objectives = format_path(file), recipe.objectives()
    given = model.output if isinstance(model.output, dict) else {}
    terms = {}
    for column in spec.targets:
        if column.name not in given:
            raise BmcliError(
                f"teacher {shown} does not predict {quoted(column.name)} by that name.", path=path,
                suggestion=parts.did_you_mean(column.name, list(map(str, given))),
            )  # fmt: skip
        width = given[column.name].shape[-1] if len(given[column.name].shape) > 1 else 1
        if column.classes and width != len(column.classes):
            raise BmcliError(
                f"teacher {shown} tells {width} classes of {quoted(column.name)}, which has {len(column.classes)}.",
                path=path,
            )
        terms[column.name] = _build_prediction_converter(column, objectives[column.name].kind, path)
    if not isinstance(model.input, dict) or set(model.input) - {column.name for column in spec.inputs}:
        wanted = ", ".join(map(str, model.input)) if isinstance(model.input, dict) else "one without a name"
        raise BmcliError(f"teacher {shown} takes other inputs than these data have: {wanted}.", path=path)
    return TeacherNetwork(shown, model, None, None, digest, terms)


def _build_prediction_converter(column: Column, objective: str, path: str) -> Callable[[Any], Any]:
    """From predictions to the outputs that an objective would make them of."""
    if objective == "classification":
        return lambda p: tf.math.log(tf.maximum(tf.cast(p, tf.float32), _MIN_PROBABILITY))
    if objective == "multi_label":
        return lambda p: tf.math.log(tf.maximum(p, _MIN_PROBABILITY)) - tf.math.log(tf.maximum(1 - p, 1e-7))
    if objective == "regression":
        mean, scale = float(column.state["mean"]), float(column.state["scale"])
        logarithm = bool(column.state.get("log"))

        def encoded(values: Any) -> Any:
            values = tf.reshape(tf.cast(values, tf.float32), (-1, 1))
            return ((tf.math.log1p(tf.maximum(values, 0.0)) if logarithm else values) - mean) / scale

        return encoded
    raise BmcliError(
        f"from predictions alone the outputs of the objective {objective} cannot be told.", path=path,
        suggestion="Name the teacher's run.",
    )  # fmt: skip


class TeacherPredictor:
    """Teachers asked for their outputs and for what some of their layers compute.

    Args:
        pairs: The pairs of layers that losses compare, and where the recipe names each.
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
            self.layers[layer_key(pair)] = (pair.of, teachers[pair.of].find_layer(pair.teacher, f"{path}.teacher"))
        self._models = [self._build_layer_outputs(place) for place in range(len(teachers))]
        self._compiled = [tf.function(each, autograph=False, reduce_retracing=True) for each in self._models]

    @property
    def merged_weights(self) -> tuple[float, ...]:
        """How much each of the outputs told counts: one if logits are averaged at once."""
        return (1.0,) if self.average == "logits" else self.teacher_weights

    def _build_layer_outputs(self, place: int) -> Callable[[Any], tuple[Any, Any]]:
        """Outputs in the student's terms, and layers by name, of one teacher."""
        teacher = self.teachers[place]
        wanted = {name: tensor for name, (of, tensor) in self.layers.items() if of == place}
        with models.allow_column_names():
            model = keras.Model(teacher.model.input, {"outputs": teacher.model.output, "layers": wanted})
        model.trainable = False

        def ask(inputs: Any) -> tuple[Any, Any]:
            found = model({name: inputs[name] for name in teacher.model.input}, training=False)
            told = {
                name: tf.cast(terms(found["outputs"][name]), tf.float32) for name, terms in teacher.converters.items()
            }
            return told, {name: tf.cast(found["layers"][name], tf.float32) for name in wanted}

        return ask

    def predict(self, inputs: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """What all teachers say of some rows.

        Args:
            inputs: For each teacher its inputs by column.

        Returns:
            `outputs` by target, `(batch, teachers, width)`, and `layers` by name.
        """
        return self._join_outputs([model(each) for model, each in zip(self._models, inputs, strict=True)])

    def predict_arrays(
        self, inputs: Sequence[Mapping[str, np.ndarray]], rows: slice
    ) -> dict[str, dict[str, np.ndarray]]:
        """The same of some rows of arrays, compiled."""
        found = [
            model({name: tf.constant(array[rows]) for name, array in each.items()})
            for model, each in zip(self._compiled, inputs, strict=True)
        ]
        told: dict[str, dict[str, np.ndarray]] = tf.nest.map_structure(
            lambda tensor: tensor.numpy(), self._join_outputs(found)
        )
        return told

    def _join_outputs(self, found: Sequence[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
        outputs = {name: tf.stack([told[name] for told, _ in found], axis=1) for name in found[0][0]}
        if self.average == "logits":
            shares = tf.reshape(tf.constant(self.teacher_weights, tf.float32), (1, -1, 1))
            outputs = {name: tf.reduce_sum(shares * each, axis=1, keepdims=True) for name, each in outputs.items()}
        return {"outputs": outputs, "layers": {name: each for _, layers in found for name, each in layers.items()}}

    def merge_outputs(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """What several teachers say as one would, at the temperature 1, by target, `(batch, width)`."""
        return {
            name: TargetOutputs(None, each, self.merged_weights, self.output_forms[name], 1.0).teacher()
            for name, each in outputs.items()
        }


def layer_key(pair: LayerPair) -> str:
    """What the layer of a teacher is called among what is told of a row."""
    return f"{pair.of} {pair.teacher}"


def list_layer_pairs(options: DistillationOptions) -> list[tuple[LayerPair, str]]:
    """The pairs of layers of all losses, and the paths of their options."""
    return [
        (pair, f"distillation.losses.{place}.pairs.{number}")
        for place, loss in enumerate(options.losses)
        for number, pair in enumerate(getattr(loss, "pairs", ()))
    ]


def list_output_forms(recipe: Recipe) -> dict[str, OutputForm]:
    """What the outputs of each target are."""
    return {name: parts.load("objectives", options.kind).FORM for name, options in recipe.objectives().items()}
