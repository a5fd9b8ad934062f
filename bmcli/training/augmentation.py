"""Augmentation inside the training step; random numbers depend on position and step, never on the devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import inputs as input_kinds
from bmcli import parts
from bmcli.augmentations import Mixer, MovingTransform, Transform
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import quoted
from bmcli.recipe.augment import find_input_problem, resolve_by_input
from bmcli.recipe.fields import dump
from bmcli.recipe.paths import join_steps
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData
from bmcli.training.feed import gather_rows, separate_columns

_MIXING = "mixing"


class StatelessRandom:
    """A `RandomSource` for the examples at some positions of a batch.

    The numbers are a function of the recipe's seed, the name, the number of earlier draws, and the step.

    Args:
        name: Purpose of the numbers, which keeps the streams of different purposes apart.
        step: Optimizer steps done, a scalar.
        size: Number of examples in the whole batch; without places it may be known only at run time.
        places: Positions of the examples in it, `(examples,)`, or None for the whole batch.
    """

    # Numbers are drawn for the whole batch, and those of the positions are picked out: an example gets the same ones
    # whichever replica or part of a batch computes it. A stateful generator would depend on that, and on resuming.

    def __init__(self, seed: int, name: str, step: Any, size: Any, places: Any) -> None:
        self._prefix, self._step, self._size, self._places = f"{seed} {name}", tf.cast(step, tf.int32), size, places
        self._count = 0

    def uniform(self, *shape: int) -> Any:
        return self._take_places(tf.random.stateless_uniform((self._size, *shape), self.seed()))

    def normal(self, *shape: int) -> Any:
        return self._take_places(tf.random.stateless_normal((self._size, *shape), self.seed()))

    def beta(self, alpha: float) -> Any:
        # TensorFlow has no stateless beta distribution; X / (X + Y) of two gamma variables has it.
        first, second = (tf.random.stateless_gamma((self._size,), self.seed(), alpha) for _ in range(2))
        total = first + second  # both underflow to 0 for a small alpha
        return self._take_places(tf.where(total > 0, first / tf.where(total > 0, total, 1.0), 0.5))

    def apply_layer(self, layer: keras.layers.Layer, pictures: Any) -> Any:
        # Keras draws from the shape of its argument alone, so a symbolic tensor stands for the whole batch.
        batch = keras.KerasTensor((self._size, *pictures.shape[1:]), "float32")
        drawn = layer.get_random_transformation(batch, training=True, seed=_FunctionSeeds(self.seed))
        return layer.transform_images(pictures, tf.nest.map_structure(self._take_places, drawn), training=True)

    def draw_partners(self) -> Any:
        """Draw for each example the position of a partner in the batch, from a permutation of all positions."""
        return self._take_places(tf.random.experimental.stateless_shuffle(tf.range(self._size), self.seed()))

    def seed(self) -> Any:
        """Return the next seed, two integers."""
        self._count += 1
        # A hash and not Python's `hash`, which differs from process to process; the step is known only in the graph.
        digest = hashlib.sha256(f"{self._prefix} {self._count}".encode()).digest()
        return tf.stack([tf.constant(int.from_bytes(digest[:4], "little", signed=True)), self._step])

    def _take_places(self, value: Any) -> Any:
        """Pick the rows of the positions; values that are not per example, such as a picture's height, stay."""
        if self._places is None:
            return value
        per_example = tf.is_tensor(value) and value.shape.rank and value.shape[0] == self._size
        return tf.gather(value, self._places) if per_example else value


class _FunctionSeeds(keras.random.SeedGenerator):
    """Seeds of Keras' layers, taken from a function.

    The base class is not initialized: it would make a variable, whose state checkpoints would have to hold.
    """

    def __init__(self, draw_seed: Callable[[], Any]) -> None:
        self._draw_seed = draw_seed

    def next(self, ordered: bool = True) -> Any:
        return self._draw_seed()


@dataclass(frozen=True)
class _InputAugmentation:
    """The augmentations of one input.

    Args:
        changes: In the order in which they are applied.
        moved: Names of the targets that each of the changes moves.
        mix: The augmentation that mixes an example with another afterwards, or None.
    """

    column: Column
    changes: tuple[Transform | MovingTransform, ...]
    moved: tuple[tuple[str, ...], ...]
    mix: Mixer | None

    def to_unit_range(self, encoded: Any) -> Any:
        """Scale pictures to values from 0 to 1, which augmentations expect."""
        return input_kinds.get_traits(self.column).to_unit_range(encoded)

    def from_unit_range(self, values: Any) -> Any:
        """Undo `to_unit_range`; pictures of bytes become bytes again, as the network expects them."""
        return input_kinds.get_traits(self.column).from_unit_range(values)


class Augmenter:
    """Random changes of training examples, the same whichever device computes them.

    Args:
        cost_key: A JSON value of the recipe's augmentations, because they decide how fast a step is.
    """

    def __init__(self, inputs: Mapping[str, _InputAugmentation], seed: int, cost_key: Any = None) -> None:
        self.inputs, self.seed, self.cost_key = inputs, seed, cost_key
        self.mixes = any(each.mix is not None for each in inputs.values())

    def augment_examples(self, data: Any, rows: Any, places: Any, step: Any) -> dict[str, Any]:
        """Gather and augment some examples of a batch.

        Mixed examples also have the targets and weights of their partners, under `others`, and their own `share` of the
        mixture, `(examples,)`.

        Args:
            data: Arrays of `inputs`, `targets` and perhaps `weights`.
            rows: Row in `data` of each example of the whole batch, `(batch,)`.
            places: Positions of the examples in the batch, or None for the whole batch in its order.
            step: Optimizer steps done.
        """
        size = rows.shape[0]
        examples = separate_columns(gather_rows(data, rows if places is None else tf.gather(rows, places)))
        values, examples["targets"] = self._transform_examples(examples, places, size, step)
        if self.mixes:
            partners = StatelessRandom(self.seed, _MIXING, step, size, places).draw_partners()
            if places is None:
                others = gather_rows({**examples, "inputs": values}, partners)
            else:
                # A partner may belong to another replica or part of the batch: it is gathered and changed again here,
                # with the random numbers of its position, so that both copies are equal.
                others = separate_columns(gather_rows(data, tf.gather(rows, partners)))
                others["inputs"], others["targets"] = self._transform_examples(others, partners, size, step)
            values, share = self._mix_inputs(values, others["inputs"], places, size, step)
            kept = {name: others[name] for name in ("targets", "weights", "labelled") if name in others}
            examples |= {"others": kept, "share": share}
        encoded = {name: each.from_unit_range(values[name]) for name, each in self.inputs.items()}
        return {**examples, "inputs": {**examples["inputs"], **encoded}}

    def _transform_examples(
        self, examples: Mapping[str, Any], places: Any, size: int, step: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Apply the changes to each input that has some; returns these inputs and all targets.

        Pictures are in their unit range.
        """
        inputs, targets = {}, dict(examples["targets"])
        for name, each in self.inputs.items():
            values = each.to_unit_range(examples["inputs"][name])
            for position, (change, moved) in enumerate(zip(each.changes, each.moved, strict=True)):
                random = StatelessRandom(self.seed, f"{name} {position}", step, size, places)
                if isinstance(change, MovingTransform):
                    values, changed = change.change(values, {target: targets[target] for target in moved}, random)
                    targets |= changed
                else:
                    values = change(values, random)
            inputs[name] = values
        return inputs, targets

    def _mix_inputs(
        self, own: Mapping[str, Any], others: Mapping[str, Any], places: Any, size: int, step: Any
    ) -> tuple[dict[str, Any], Any]:
        """Mix each input with that of the partner; returns the inputs and the share of the example itself."""
        mixed, share = dict(own), None
        for name, each in self.inputs.items():
            if each.mix is not None:
                # One name for all inputs: they draw the same numbers, and so have one share, as the targets have.
                random = StatelessRandom(self.seed, f"{_MIXING} share", step, size, places)
                mixed[name], share = each.mix(own[name], others[name], random)
        return mixed, share


def build_augmenter(recipe: Recipe, spec: DataSpec) -> Augmenter | None:
    """Build the augmentation of a recipe, or None if it has none.

    Raises:
        BmcliError: There is no such input, or its kind has no such augmentation.
    """
    options = recipe.data.augment
    if not options:
        return None
    kinds = {column.name: column.kind for column in spec.inputs}
    if problem := find_input_problem(options, kinds):
        steps, message, hint = problem
        raise BmcliError(Fault(message, join_steps(("data", "augment", *steps)), suggestion=hint))
    inputs = {
        name: _build_input_augmentation(spec, spec.input(name), key, changes)
        for name, (key, changes) in resolve_by_input(options, kinds).items()
    }
    _require_one_mover(inputs)
    return Augmenter(inputs, recipe.seed, dump(options)) if inputs else None


def _build_input_augmentation(spec: DataSpec, column: Column, key: str, changes: Any) -> _InputAugmentation:
    built = []
    for position, options in enumerate(changes):
        path = join_steps(("data", "augment", key, position))
        part = parts.load("augmentations", options.kind)
        try:
            built.append(part.build(options, column))
        except BmcliError as error:
            raise BmcliError(*(replace(each, path=path) for each in error.faults)) from None
    mix = built.pop() if parts.load("augmentations", changes[-1].kind).MIXES else None
    return _InputAugmentation(column, tuple(built), tuple(_list_moved(change, spec) for change in built), mix)


def _list_moved(change: Any, spec: DataSpec) -> tuple[str, ...]:
    """List the targets that a change moves."""
    kinds = change.TARGETS if isinstance(change, MovingTransform) else ()
    return tuple(column.name for column in spec.targets if column.kind in kinds)


def _require_one_mover(inputs: Mapping[str, _InputAugmentation]) -> None:
    """Refuse changes of two inputs that move one target, which cannot follow both.

    Raises:
        BmcliError: Two inputs have such changes.
    """
    movers: dict[str, str] = {}
    for name, each in inputs.items():
        for target in {target for moved in each.moved for target in moved}:
            if movers.setdefault(target, name) != name:
                raise BmcliError(
                    f"target {quoted(target)} moves with changes of input {quoted(movers[target])}, so changes of "
                    f"{quoted(name)} cannot move it too.",
                    path=join_steps(("data", "augment", name)), suggestion="Leave out those of one input.",
                )  # fmt: skip


def augment_pictures(recipe: Recipe, prepared: PreparedData, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Augment the pictures of some training rows as the first step does.

    Args:
        rows: Positions in the training split, in any order.

    Returns:
        Encoded pictures by input, `(rows, height, width, channels)`.
    """
    augmenter = build_augmenter(recipe, prepared.spec)
    split = prepared.split("train")
    names = [c.name for c in prepared.spec.inputs if input_kinds.get_traits(c).display == "picture"]
    ascending = np.unique(rows)  # a memory-mapped array is read fastest in its own order
    data = {
        "inputs": {name: tf.constant(np.asarray(array[ascending])) for name, array in split.inputs.items()},
        "targets": {name: tf.constant(np.asarray(array[ascending])) for name, array in split.targets.items()},
    }
    places = tf.constant(np.searchsorted(ascending, rows), tf.int32)
    examples = augmenter.augment_examples(data, places, None, 0) if augmenter else gather_rows(data, places)
    return {name: examples["inputs"][name].numpy() for name in names}
