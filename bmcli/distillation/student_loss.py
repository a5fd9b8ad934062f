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
from bmcli.distillation.input_adapters import View
from bmcli.distillation.losses import Given, LayerPair, Said
from bmcli.distillation.teachers import Asking, name_of
from bmcli.distribution.strategy import Placement
from bmcli.errors import BmcliError
from bmcli.networks.network import Network
from bmcli.recipe.distill import Change, TaughtOptions, over_epochs
from bmcli.recipe.fields import Kind, dump
from bmcli.recipe.schema import Recipe
from bmcli.training.feed import inputs_of
from bmcli.training.graph_ops import gather_replicas, replica_share
from bmcli.training.loss import Arrays, LossProvider, StepLosses, compute_losses, example_weights


@dataclass(frozen=True)
class _Term:
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
    hints: tuple[Hint, ...]


class Hint:
    """A layer of the student brought to the shape of one of the teacher's.

    Args:
        tensor: The student's, symbolic.
        wanted: Shape of the teacher's, without the batch axis.
        kind: Of the loss: for attention channels may differ, for relations everything.
    """

    def __init__(self, pair: LayerPair, tensor: Any, wanted: tuple[int, ...], kind: str, seed: int, path: str) -> None:
        self.tensor, self.teacher, self._wanted = tensor, name_of(pair), wanted
        self.projection: keras.layers.Dense | None = None
        shape = tuple(tensor.shape[1:])
        self._resized = kind != "relation" and shape[:-1] != wanted[:-1]
        if kind == "relation":
            return
        if len(shape) != len(wanted) or len(shape) > 3 or (kind == "attention" and len(shape) < 2):
            raise BmcliError(
                f"the student's layer has the shape {_shown(shape)} and the teacher's {_shown(wanted)}, which {kind} "
                "cannot compare.",
                path=path, suggestion="Name two layers of vectors, two of sequences, or two of feature maps."
                if kind == "feature" else "Name two layers of sequences, or two of feature maps.",
            )  # fmt: skip
        if kind == "feature" and shape[-1] != wanted[-1]:
            start = keras.initializers.GlorotUniform(seed)
            self.projection = keras.layers.Dense(wanted[-1], dtype="float32", kernel_initializer=start, name="hint")
            self.projection.build((None, *shape))

    def of(self, computed: Any) -> Any:
        """What the student computes there in the teacher's shape, float32."""
        computed = tf.cast(computed, tf.float32)
        if self._resized:
            computed = self._at_size(computed)
        return computed if self.projection is None else self.projection(computed)

    def _at_size(self, computed: Any) -> Any:
        if len(computed.shape) == 4:
            return tf.image.resize(computed, self._wanted[:2])
        return tf.image.resize(computed[:, :, None, :], (self._wanted[0], 1))[:, :, 0, :]


class DistillationLoss(LossProvider):
    """The losses of a recipe between a student and its teachers.

    Args:
        asking: The teachers, whom each step asks; None if what they say comes with the examples.
        views: For each teacher how it sees the student's inputs; empty if it is not asked.
        shapes: Of the layers of the teachers that losses compare, without the batch axis, by name.
        shares: How much each of the outputs of the teachers counts.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        taught: TaughtOptions,
        placement: Placement,
        asking: Asking | None,
        views: Sequence[View],
        shapes: Mapping[str, tuple[int, ...]],
        shares: tuple[float, ...],
    ) -> None:
        super().__init__(network)
        self._epochs, self._replicas = recipe.train.epochs, placement.replicas
        self._asking, self._views, self._shares = asking, views, shares
        self._forms = {name: parts.load("objectives", each.kind).FORM for name, each in recipe.objectives().items()}
        with placement.strategy.scope():
            self._terms = _terms(network, taught, shapes, recipe.seed)
        self.term_names = tuple(term.name for term in self._terms)
        self.compares_examples = any(term.part.WHOLE_BATCH for term in self._terms)
        self.runs_teachers = asking is not None
        asked = [teacher.model.to_json() for teacher in asking.teachers] if asking else []
        self.cost_key = [dump(taught.losses), asked]
        self._model = self._with_layers()

    @property
    def extra_weights(self) -> list[Any]:
        projections = [hint.projection for term in self._terms for hint in term.hints if hint.projection is not None]
        return [weight for projection in projections for weight in projection.trainable_variables]

    def _with_layers(self) -> Any:
        """The student with the layers that losses compare among its outputs, so that it is computed once."""
        hints = [hint for term in self._terms for hint in term.hints]
        if not hints:
            return None
        model = self.network.model
        with models.columns_as_keys():
            return keras.Model(model.input, {"outputs": model.output, "layers": [hint.tensor for hint in hints]})

    def extend(self, examples: Arrays) -> Arrays:
        if self._asking is None:
            return examples
        return {**examples, "teacher": self._asking.ask([view(inputs_of(examples)) for view in self._views])}

    def compute(self, examples: Arrays, counts: Any, size: int, step: Any) -> StepLosses:
        outputs, layers = self._computed(inputs_of(examples))
        hard = compute_losses(self.network, examples, outputs)
        weights = example_weights(examples, hard)
        at = partial(self._at, step)
        said, following = self._said(examples, outputs), iter(layers)
        found, total = {}, tf.zeros_like(hard)
        for term in self._terms:
            pairs = [(hint.of(next(following)), examples["teacher"]["layers"][hint.teacher]) for hint in term.hints]
            each = self._each(term, Given(hard, said, pairs, weights, at), counts, size)
            each = each if term.options.kind == "hard" else each * weights  # the hard loss has them
            found[term.name] = each
            total = total + at(term.options.weight) * each  # type: ignore[attr-defined]
        return StepLosses(outputs, total, found)

    def _computed(self, inputs: Any) -> tuple[Any, Any]:
        """Outputs of the student, and what the layers that losses compare compute."""
        if self._model is None:
            return self.network.model(inputs, training=True), []
        found = self._model(inputs, training=True)
        return found["outputs"], found["layers"]

    def _said(self, examples: Arrays, outputs: Mapping[str, Any]) -> dict[str, Said]:
        if "teacher" not in examples:
            return {}
        return {
            name: Said(
                tf.cast(outputs[name], tf.float32), examples["teacher"]["outputs"][name], self._shares,
                self._forms[name], objective.weight,
            )
            for name, objective in self.network.objectives.items()
        }  # fmt: skip

    def _each(self, term: _Term, given: Given, counts: Any, size: int) -> Any:
        """A loss of each example here; one that compares examples is given those of all replicas."""
        if not term.part.WHOLE_BATCH or self._replicas == 1:
            return term.part.loss(term.options, given)

        def gathered(value: Any) -> Any:
            return gather_replicas(value, counts, size, self._replicas)

        said = {
            name: replace(each, student=gathered(each.student), teachers=gathered(each.teachers))
            for name, each in given.said.items()
        }
        layers = [(gathered(student), gathered(teacher)) for student, teacher in given.layers]
        places, _ = replica_share(tf.range(size), self._replicas)
        every = replace(given, said=said, layers=layers, weights=gathered(given.weights))
        return tf.gather(term.part.loss(term.options, every), places)

    def _at(self, step: Any, value: float | Change) -> Any:
        """What a number is in the epoch of a step: computed, so that the step need not be traced again."""
        if not isinstance(value, Change):
            return value
        epoch = tf.cast(step, tf.int32) // self.steps_per_epoch
        values = over_epochs(value, self._epochs)
        return tf.gather(tf.constant(values, tf.float32), tf.minimum(epoch, len(values) - 1))


def _terms(
    network: Network, taught: TaughtOptions, shapes: Mapping[str, tuple[int, ...]], seed: int
) -> tuple[_Term, ...]:
    counted: Counter[str] = Counter()
    found = []
    for place, options in enumerate(taught.losses):
        counted[options.kind] += 1
        number = counted[options.kind]
        name = options.kind if number == 1 else f"{options.kind}_{number}"
        hints = []
        for position, pair in enumerate(getattr(options, "pairs", ())):
            path = f"taught.losses.{place}.pairs.{position}"
            tensor = layer_lookup.find(network.model, pair.student, "the student", f"{path}.student")
            hints.append(Hint(pair, tensor, shapes[name_of(pair)], options.kind, seed + 31 * place + position, path))
        found.append(_Term(name, options, parts.load("distillation.losses", options.kind), tuple(hints)))
    return tuple(found)


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
