"""Learning from teachers: what a step computes beside the loss of the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from bmcli import models, parts
from bmcli.distillation import layer_lookup
from bmcli.distillation.input_adapters import InputAdapter
from bmcli.distillation.losses import LayerPair, LossInputs, TargetOutputs
from bmcli.distillation.teachers import TeacherPredictor, layer_key
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.networks.network import Network
from bmcli.recipe.distill import DistillationOptions, EpochSchedule, expand_over_epochs
from bmcli.recipe.fields import Kind, dump
from bmcli.recipe.schema import Recipe
from bmcli.training.feed import inputs_of
from bmcli.training.graph_ops import gather_replicas, replica_share
from bmcli.training.loss import Arrays, LossProvider, StepLosses, compute_losses, example_weights


@dataclass(frozen=True)
class _LossTerm:
    """One of the losses.

    Args:
        name: It is told by.
        options: Those of the recipe.
        part: Its module.
        hints: Between which layers it compares.
    """

    name: str
    options: Kind
    part: Any
    hints: tuple[HintProjection, ...]


class HintProjection:
    """A layer of the student brought to the shape of one of the teacher's.

    Args:
        tensor: The student's, symbolic.
        wanted: Shape of the teacher's, without the batch axis.
        kind: Of the loss: for attention channels may differ, for relations everything.
    """

    def __init__(self, pair: LayerPair, tensor: Any, wanted: tuple[int, ...], kind: str, seed: int, path: str) -> None:
        self.tensor, self.teacher, self._target_shape = tensor, layer_key(pair), wanted
        self.projection: keras.layers.Dense | None = None
        shape = tuple(tensor.shape[1:])
        self._is_resized = kind != "relation" and shape[:-1] != wanted[:-1]
        if kind == "relation":
            return
        if len(shape) != len(wanted) or len(shape) > 3 or (kind == "attention" and len(shape) < 2):
            raise BmcliError(
                f"the student's layer has the shape {_format_shape(shape)} and the teacher's "
                f"{_format_shape(wanted)}, which {kind} "
                "cannot compare.",
                path=path, suggestion="Name two layers of vectors, two of sequences, or two of feature maps."
                if kind == "feature" else "Name two layers of sequences, or two of feature maps.",
            )  # fmt: skip
        if kind == "feature" and shape[-1] != wanted[-1]:
            start = keras.initializers.GlorotUniform(seed)
            self.projection = keras.layers.Dense(wanted[-1], dtype="float32", kernel_initializer=start, name="hint")
            self.projection.build((None, *shape))

    def project(self, computed: Any) -> Any:
        """What the student computes there in the teacher's shape, float32."""
        computed = tf.cast(computed, tf.float32)
        if self._is_resized:
            computed = self._resize(computed)
        return computed if self.projection is None else self.projection(computed)

    def _resize(self, computed: Any) -> Any:
        if len(computed.shape) == 4:
            return tf.image.resize(computed, self._target_shape[:2])
        return tf.image.resize(computed[:, :, None, :], (self._target_shape[0], 1))[:, :, 0, :]


class DistillationLoss(LossProvider):
    """The losses of a recipe between a student and its teachers.

    Args:
        teachers: The teachers, whom each step asks; None if what they say comes with the examples.
        adapters: For each teacher how it sees the student's inputs; empty if it is not asked.
        layer_shapes: Of the layers of the teachers that losses compare, without the batch axis, by name.
        teacher_weights: How much each of the outputs of the teachers counts.
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
        super().__init__(network)
        self._epochs, self._replicas = recipe.train.epochs, placement.replicas
        self._teachers, self._adapters, self._teacher_weights = teachers, adapters, teacher_weights
        self._output_forms = {
            name: parts.load("objectives", each.kind).FORM for name, each in recipe.objectives().items()
        }
        with placement.strategy.scope():
            self._terms = _build_terms(network, options, layer_shapes, recipe.seed)
        self.term_names = tuple(term.name for term in self._terms)
        self.compares_examples = any(term.part.WHOLE_BATCH for term in self._terms)
        self.runs_teachers = teachers is not None
        asked = [teacher.model.to_json() for teacher in teachers.teachers] if teachers else []
        self.cost_key = [dump(options.losses), asked]
        self._model = self._build_layer_outputs()

    @property
    def extra_weights(self) -> list[Any]:
        projections = [hint.projection for term in self._terms for hint in term.hints if hint.projection is not None]
        return [weight for projection in projections for weight in projection.trainable_variables]

    def _build_layer_outputs(self) -> Any:
        """The student with the layers that losses compare among its outputs, so that it is computed once."""
        hints = [hint for term in self._terms for hint in term.hints]
        if not hints:
            return None
        model = self.network.model
        with models.allow_column_names():
            return keras.Model(model.input, {"outputs": model.output, "layers": [hint.tensor for hint in hints]})

    def extend(self, examples: Arrays) -> Arrays:
        if self._teachers is None:
            return examples
        return {**examples, "teacher": self._teachers.predict([view(inputs_of(examples)) for view in self._adapters])}

    def compute(self, examples: Arrays, counts: Any, size: int, step: Any) -> StepLosses:
        outputs, layers = self._run_model(inputs_of(examples))
        hard = compute_losses(self.network, examples, outputs)
        weights = example_weights(examples, hard)
        at = partial(self._value_at_step, step)
        said, following = self._collect_outputs(examples, outputs), iter(layers)
        found, total = {}, tf.zeros_like(hard)
        for term in self._terms:
            pairs = [
                (hint.project(next(following)), examples["teacher"]["layers"][hint.teacher]) for hint in term.hints
            ]
            each = self._compute_term(term, LossInputs(hard, said, pairs, weights, at), counts, size)
            each = each if term.options.kind == "hard" else each * weights  # the hard loss has them
            found[term.name] = each
            total = total + at(term.options.weight) * each  # type: ignore[attr-defined]
        return StepLosses(outputs, total, found)

    def _run_model(self, inputs: Any) -> tuple[Any, Any]:
        """Outputs of the student, and what the layers that losses compare compute."""
        if self._model is None:
            return self.network.model(inputs, training=True), []
        found = self._model(inputs, training=True)
        return found["outputs"], found["layers"]

    def _collect_outputs(self, examples: Arrays, outputs: Mapping[str, Any]) -> dict[str, TargetOutputs]:
        if "teacher" not in examples:
            return {}
        return {
            name: TargetOutputs(
                tf.cast(outputs[name], tf.float32), examples["teacher"]["outputs"][name], self._teacher_weights,
                self._output_forms[name], objective.weight,
            )
            for name, objective in self.network.objectives.items()
        }  # fmt: skip

    def _compute_term(self, term: _LossTerm, inputs: LossInputs, counts: Any, size: int) -> Any:
        """A loss of each example here; one that compares examples is given those of all replicas."""
        if not term.part.WHOLE_BATCH or self._replicas == 1:
            return term.part.loss(term.options, inputs)

        def gathered(value: Any) -> Any:
            return gather_replicas(value, counts, size, self._replicas)

        said = {
            name: replace(each, student=gathered(each.student), teachers=gathered(each.teachers))
            for name, each in inputs.outputs.items()
        }
        layers = [(gathered(student), gathered(teacher)) for student, teacher in inputs.layers]
        places, _ = replica_share(tf.range(size), self._replicas)
        every = replace(inputs, outputs=said, layers=layers, weights=gathered(inputs.weights))
        return tf.gather(term.part.loss(term.options, every), places)

    def _value_at_step(self, step: Any, value: float | EpochSchedule) -> Any:
        """What a number is in the epoch of a step: computed, so that the step need not be traced again."""
        if not isinstance(value, EpochSchedule):
            return value
        epoch = tf.cast(step, tf.int32) // self.steps_per_epoch
        values = expand_over_epochs(value, self._epochs)
        return tf.gather(tf.constant(values, tf.float32), tf.minimum(epoch, len(values) - 1))


def _build_terms(
    network: Network, distillation: DistillationOptions, layer_shapes: Mapping[str, tuple[int, ...]], seed: int
) -> tuple[_LossTerm, ...]:
    counted: Counter[str] = Counter()
    found = []
    for place, options in enumerate(distillation.losses):
        counted[options.kind] += 1
        number = counted[options.kind]
        name = options.kind if number == 1 else f"{options.kind}_{number}"
        hints = []
        for position, pair in enumerate(getattr(options, "pairs", ())):
            path = f"distillation.losses.{place}.pairs.{position}"
            tensor = layer_lookup.find_layer_output(network.model, pair.student, "the student", f"{path}.student")
            hints.append(
                HintProjection(
                    pair, tensor, layer_shapes[layer_key(pair)], options.kind, seed + 31 * place + position, path
                )
            )
        found.append(_LossTerm(name, options, parts.load("distillation.losses", options.kind), tuple(hints)))
    return tuple(found)


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
