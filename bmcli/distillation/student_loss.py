"""The loss of a student: the losses of a step between student and teachers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from bmcli import models, parts
from bmcli.distillation import layer_lookup
from bmcli.distillation.input_adapters import InputAdapter
from bmcli.distillation.losses import LayerOptions, LayerPair, LossInputs, TargetOutputs
from bmcli.distillation.teachers import TeacherPredictor, make_layer_key
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.networks.network import Network
from bmcli.quoting import quoted
from bmcli.recipe.distill import DistillationOptions, EpochSchedule, expand_over_epochs
from bmcli.recipe.fields import Kind, dump
from bmcli.recipe.schema import Recipe
from bmcli.specs import Split
from bmcli.training.feed import unstack_inputs
from bmcli.training.loss import ExampleLosses, LossProvider, StepLosses, compute_losses, example_weights
from bmcli.training.objective_batch import Arrays, compute_place_weights


@dataclass(frozen=True)
class _LossTerm:
    """One of the losses.

    Args:
        name: In metrics.
        options: Those of the recipe.
        part: Its module.
        hints: The pairs of layers that it compares.
    """

    name: str
    options: Kind
    part: Any
    hints: tuple[HintProjection, ...]


class HintProjection:
    """Projection of a layer of the student to the shape of one of the teacher's.

    Args:
        tensor: Output of the student's layer, symbolic.
        teacher_shape: Of the teacher's layer, without the batch axis.
        kind: Of the loss: for `attention` channels may differ, for `relation` all axes.
    """

    def __init__(
        self, pair: LayerPair, tensor: Any, teacher_shape: tuple[int, ...], kind: str, seed: int, path: str
    ) -> None:
        self.tensor, self.teacher, self._target_shape = tensor, make_layer_key(pair), teacher_shape
        self.projection: keras.layers.Dense | None = None
        shape = tuple(tensor.shape[1:])
        self._is_resized = kind != "relation" and shape[:-1] != teacher_shape[:-1]
        if kind == "relation":
            return
        if len(shape) != len(teacher_shape) or len(shape) > 3 or (kind == "attention" and len(shape) < 2):
            raise BmcliError(
                f"{kind} cannot compare the student's layer of shape {_format_shape(shape)} with the teacher's of "
                f"shape {_format_shape(teacher_shape)}.",
                path=path, suggestion="Name two layers of vectors, two of sequences, or two of feature maps."
                if kind == "feature" else "Name two layers of sequences, or two of feature maps.",
            )  # fmt: skip
        if kind == "feature" and shape[-1] != teacher_shape[-1]:
            initializer = keras.initializers.GlorotUniform(seed)
            self.projection = keras.layers.Dense(
                teacher_shape[-1], dtype="float32", kernel_initializer=initializer, name="hint"
            )
            self.projection.build((None, *shape))

    def project(self, activations: Any) -> Any:
        """Project the student's activations to the teacher's shape, float32."""
        activations = tf.cast(activations, tf.float32)
        if self._is_resized:
            activations = self._resize(activations)
        return activations if self.projection is None else self.projection(activations)

    def _resize(self, activations: Any) -> Any:
        if len(activations.shape) == 4:
            return tf.image.resize(activations, self._target_shape[:2])
        # A sequence gets a second spatial axis of size 1, which tf.image.resize requires.
        return tf.image.resize(activations[:, :, None, :], (self._target_shape[0], 1))[:, :, 0, :]


class DistillationLoss(LossProvider):
    """The weighted sum of a recipe's losses between a student and its teachers.

    Args:
        teachers: Teachers that predict in each step; None if their outputs come with the examples.
        adapters: Input adapter of each teacher that predicts in each step.
        layer_shapes: Of the layers of the teachers that losses compare, without the batch axis, by name.
        teacher_weights: Weight of each of the teachers' outputs.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        options: DistillationOptions,
        placement: Placement,
        teachers: TeacherPredictor | None,
        adapters: Sequence[InputAdapter],
        layer_shapes: Mapping[str, tuple[int, ...]],
        teacher_weights: tuple[float, ...],
    ) -> None:
        super().__init__(network, recipe.seed)
        _require_one_view(network)
        self._epochs = recipe.train.epochs
        self._teachers, self._adapters, self._teacher_weights = teachers, adapters, teacher_weights
        self._output_forms = {
            name: parts.load("objectives", each.kind).FORM for name, each in recipe.objectives().items()
        }
        with placement.strategy.scope():
            self._terms = _build_terms(network, options, layer_shapes, recipe.seed)
        self.term_names = tuple(term.name for term in self._terms)
        self.compares_examples = self.compares_examples or any(term.part.WHOLE_BATCH for term in self._terms)
        self.runs_teachers = teachers is not None
        teacher_models = [teacher.model.to_json() for teacher in teachers.teachers] if teachers else []
        self.cost_key = [dump(options.losses), teacher_models]
        self._model = self._build_layer_outputs()

    @property
    def extra_weights(self) -> list[Any]:
        projections = [hint.projection for term in self._terms for hint in term.hints if hint.projection is not None]
        return [weight for projection in projections for weight in projection.trainable_variables]

    def compute_constant_loss(self, train: Split, rows: Split) -> None:
        """Return None: the loss has terms of the teachers too."""

    def _build_layer_outputs(self) -> Any:
        """Build the student with the compared layers as further outputs, so that one forward pass computes all."""
        hints = [hint for term in self._terms for hint in term.hints]
        if not hints:
            return None
        model = self.network.model
        with models.allow_column_names():
            return keras.Model(model.input, {"outputs": model.output, "layers": [hint.tensor for hint in hints]})

    def prepare(self, examples: Arrays, step: Any, size: Any, places: Any) -> Arrays:
        prepared = super().prepare(examples, step, size, places)
        if self._teachers is None or not self.changes_batch:
            return prepared
        # Teachers see the rows without the changes of objectives, as they do where their outputs are cached.
        return {**prepared, "teacher_inputs": unstack_inputs(examples)}

    def extend(self, examples: Arrays) -> Arrays:
        if self._teachers is None:
            return examples
        inputs = examples["teacher_inputs"] if self.changes_batch else unstack_inputs(examples)
        return {**examples, "teacher": self._teachers.predict([adapt(inputs) for adapt in self._adapters])}

    def forward(self, examples: Arrays) -> dict[str, Any]:
        """Run the student: its outputs, and the projected outputs of the compared layers."""
        if self._model is None:
            return {"outputs": super().forward(examples), "layers": []}
        results = self._model(unstack_inputs(examples), training=True)
        hints = [hint for term in self._terms for hint in term.hints]
        layers = [hint.project(layer) for hint, layer in zip(hints, results["layers"], strict=True)]
        return {"outputs": results["outputs"], "layers": layers}

    def compute(self, examples: Arrays, results: Any, size: Any, step: Any, divisors: Mapping[str, Any]) -> StepLosses:
        outputs = results["outputs"]
        scales = {name: size / divisor for name, divisor in divisors.items()}
        label_loss = compute_losses(self.network, examples, outputs, scales)
        weights = example_weights(examples, label_loss)
        value_at_step = partial(self._value_at_step, step)
        target_outputs, layers = self._collect_outputs(examples, outputs, scales), iter(results["layers"])
        losses, total = {}, tf.zeros_like(label_loss)
        for term in self._terms:
            pairs = [(next(layers), examples["teacher"]["layers"][hint.teacher]) for hint in term.hints]
            term_loss = term.part.loss(
                term.options, LossInputs(label_loss, target_outputs, pairs, weights, value_at_step)
            )
            term_loss = (
                term_loss if term.options.kind == "hard" else term_loss * weights
            )  # the label loss has them already
            losses[term.name] = term_loss
            weight = value_at_step(term.options.weight)  # type: ignore[attr-defined]  # all losses have a weight
            total = total + weight * term_loss
        return StepLosses(outputs, ExampleLosses(total, {}), losses)

    def _collect_outputs(
        self, examples: Arrays, outputs: Mapping[str, Any], scales: Mapping[str, Any]
    ) -> dict[str, TargetOutputs]:
        if "teacher" not in examples:
            return {}
        return {
            name: TargetOutputs(
                tf.cast(outputs[name], tf.float32), examples["teacher"]["outputs"][name], self._teacher_weights,
                self._output_forms[name], objective.weight,
                compute_place_weights(self.network, name, examples, scales.get(name)),
            )
            for name, objective in self.network.objectives.items()
        }  # fmt: skip

    def _value_at_step(self, step: Any, value: float | EpochSchedule) -> Any:
        """Get the value of a schedule at a step, as a tensor, so that the step is not retraced for each epoch."""
        if not isinstance(value, EpochSchedule):
            return value
        epoch = tf.cast(step, tf.int32) // self.steps_per_epoch
        values = expand_over_epochs(value, self._epochs)
        return tf.gather(tf.constant(values, tf.float32), tf.minimum(epoch, len(values) - 1))


def _require_one_view(network: Network) -> None:
    """Refuse objectives of several views or hidden parts, whose outputs those of teachers cannot be compared with."""
    for name, objective in network.objectives.items():
        if objective.views > 1:
            raise BmcliError(
                f"the objective of target {quoted(name)} computes {objective.views} views of each example, so that a "
                "teacher has no outputs to compare with.",
                path="objective", suggestion="Distil networks of other objectives.",
            )  # fmt: skip
        if objective.hides_inputs:
            raise BmcliError(
                f"the objective of target {quoted(name)} hides parts of each example, which a teacher sees as a whole.",
                path="objective", suggestion="Distil networks of other objectives.",
            )  # fmt: skip


def _build_terms(
    network: Network, distillation: DistillationOptions, layer_shapes: Mapping[str, tuple[int, ...]], seed: int
) -> tuple[_LossTerm, ...]:
    counts: Counter[str] = Counter()
    terms = []
    for index, options in enumerate(distillation.losses):
        counts[options.kind] += 1
        number = counts[options.kind]
        name = options.kind if number == 1 else f"{options.kind}_{number}"
        hints = []
        for position, pair in enumerate(options.pairs if isinstance(options, LayerOptions) else ()):
            path = f"distillation.losses.{index}.pairs.{position}"
            tensor = layer_lookup.find_layer_output(network.model, pair.student, "the student", f"{path}.student")
            hints.append(
                HintProjection(
                    pair, tensor, layer_shapes[make_layer_key(pair)], options.kind, seed + 31 * index + position, path
                )
            )
        terms.append(_LossTerm(name, options, parts.load("distillation.losses", options.kind), tuple(hints)))
    return tuple(terms)


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
