"""Augmentation inside the training step: random numbers by place and step, so that they are the same on any devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.quoting import quoted
from bmcli.recipe.augment import find_input_problem, resolve_by_input
from bmcli.recipe.fields import dump
from bmcli.recipe.paths import join_steps
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData
from bmcli.training.feed import gather_rows, inputs_of

_MIXING = "mixing"


class StatelessRandom:
    """Random numbers for the examples at some places of a batch: a `RandomSource`.

    Numbers are drawn for the whole batch, a few for each example, and those of the places are taken out. They follow
    from the recipe's seed, what they are for, how many were drawn before, and the step.

    Args:
        name: What they are for.
        step: Optimizer steps done, a scalar.
        size: Examples of the whole batch.
        places: Of the examples in it, `(examples,)`, or None if they are the whole batch.
    """

    def __init__(self, seed: int, name: str, step: Any, size: int, places: Any) -> None:
        self._prefix, self._step, self._size, self._places = f"{seed} {name}", tf.cast(step, tf.int32), size, places
        self._count = 0

    def uniform(self, *shape: int) -> Any:
        return self._take_places(tf.random.stateless_uniform((self._size, *shape), self.seed()))

    def normal(self, *shape: int) -> Any:
        return self._take_places(tf.random.stateless_normal((self._size, *shape), self.seed()))

    def beta(self, alpha: float) -> Any:
        first, second = (tf.random.stateless_gamma((self._size,), self.seed(), alpha) for _ in range(2))
        total = first + second
        return self._take_places(tf.where(total > 0, first / tf.where(total > 0, total, 1.0), 0.5))

    def apply_layer(self, layer: keras.layers.Layer, pictures: Any) -> Any:
        batch = keras.KerasTensor((self._size, *pictures.shape[1:]), "float32")
        drawn = layer.get_random_transformation(batch, training=True, seed=_FunctionSeeds(self.seed))
        return layer.transform_images(pictures, tf.nest.map_structure(self._take_places, drawn), training=True)

    def draw_partners(self) -> Any:
        """For each example the place of another in the batch, by a permutation of all."""
        return self._take_places(tf.random.experimental.stateless_shuffle(tf.range(self._size), self.seed()))

    def seed(self) -> Any:
        """The next seed, two whole numbers."""
        self._count += 1
        digest = hashlib.sha256(f"{self._prefix} {self._count}".encode()).digest()
        return tf.stack([tf.constant(int.from_bytes(digest[:4], "little", signed=True)), self._step])

    def _take_places(self, value: Any) -> Any:
        """What belongs to the places; what is not by example, as the height of the pictures, stays."""
        by_example = tf.is_tensor(value) and value.shape.rank and value.shape[0] == self._size
        return tf.gather(value, self._places) if by_example and self._places is not None else value


class _FunctionSeeds(keras.random.SeedGenerator):
    """What Keras' layers draw their seeds from: a function, and no variable whose state would have to be kept."""

    def __init__(self, following: Callable[[], Any]) -> None:
        self._following = following

    def next(self, ordered: bool = True) -> Any:
        return self._following()


@dataclass(frozen=True)
class _InputAugmentation:
    """What changes one input.

    Args:
        changes: In their order.
        mix: What mixes it with another example afterwards, or None.
    """

    column: Column
    changes: tuple[Any, ...]
    mix: Any

    def to_unit_range(self, encoded: Any) -> Any:
        """As augmentations take it: pictures from 0 to 1."""
        if self.column.kind != "image":
            return encoded
        low, high = self.column.state["range"]
        return (tf.cast(encoded, tf.float32) - low) / ((high - low) or 1.0)

    def from_unit_range(self, values: Any) -> Any:
        """As the network takes it; bytes stay bytes."""
        if self.column.kind != "image":
            return values
        low, high = self.column.state["range"]
        values = values * ((high - low) or 1.0) + low
        return tf.saturate_cast(tf.round(values), tf.uint8) if self.column.dtype == "uint8" else values


class Augmenter:
    """Changes training examples at random, the same whichever device computes them.

    Args:
        described: What the recipe asks for, as it decides how fast a step is.
    """

    def __init__(self, inputs: Mapping[str, _InputAugmentation], seed: int, described: Any = None) -> None:
        self.inputs, self.seed, self.cost_key = inputs, seed, described
        self.mixes = any(each.mix is not None for each in inputs.values())

    def augment_examples(self, data: Any, rows: Any, places: Any, step: Any) -> dict[str, Any]:
        """Some examples of a batch, gathered and changed.

        Mixed ones have the targets and weights of their partners beside their own, as `others`, and their `share` of
        the mixture, `(examples,)`.

        Args:
            data: Arrays of `inputs`, `targets` and perhaps `weights`.
            rows: Where in `data` each example of the whole batch lies, `(batch,)`.
            places: Of the examples in the batch, or None for the whole batch in its order.
            step: Optimizer steps done.
        """
        size = rows.shape[0]
        found = _by_column(gather_rows(data, rows if places is None else tf.gather(rows, places)))
        values = self._transform_inputs(found["inputs"], places, size, step)
        if self.mixes:
            partners = StatelessRandom(self.seed, _MIXING, step, size, places).draw_partners()
            if places is None:
                others = gather_rows({**found, "inputs": values}, partners)
            else:
                others = _by_column(gather_rows(data, tf.gather(rows, partners)))
                others["inputs"] = self._transform_inputs(others["inputs"], partners, size, step)
            values, share = self._mix_inputs(values, others["inputs"], places, size, step)
            found |= {"others": {name: others[name] for name in ("targets", "weights", "labelled") if name in others}}
            found["share"] = share
        closed = {name: each.from_unit_range(values[name]) for name, each in self.inputs.items()}
        return {**found, "inputs": {**found["inputs"], **closed}}

    def _transform_inputs(self, inputs: Mapping[str, Any], places: Any, size: int, step: Any) -> dict[str, Any]:
        """The inputs that change, opened and changed one by one."""
        changed = {}
        for name, each in self.inputs.items():
            values = each.to_unit_range(inputs[name])
            for position, change in enumerate(each.changes):
                values = change(values, StatelessRandom(self.seed, f"{name} {position}", step, size, places))
            changed[name] = values
        return changed

    def _mix_inputs(
        self, own: Mapping[str, Any], others: Mapping[str, Any], places: Any, size: int, step: Any
    ) -> tuple[dict[str, Any], Any]:
        """The inputs that mix, and the share of the first: the same in all, since all draw the same numbers."""
        mixed, share = dict(own), None
        for name, each in self.inputs.items():
            if each.mix is not None:
                dice = StatelessRandom(self.seed, f"{_MIXING} share", step, size, places)
                mixed[name], share = each.mix(own[name], others[name], dice)
        return mixed, share


def _by_column(examples: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every input apart."""
    return {**{name: value for name, value in examples.items() if name != "stacks"}, "inputs": inputs_of(examples)}


def build_augmenter(recipe: Recipe, spec: DataSpec) -> Augmenter | None:
    """The augmentation of a recipe, or None if it has none.

    Raises:
        BmcliError: An input is not there, or cannot be changed so.
    """
    asked = recipe.data.augment
    if not asked:
        return None
    kinds = {column.name: column.kind for column in spec.inputs}
    if problem := find_input_problem(asked, kinds):
        steps, message, hint = problem
        raise BmcliError(Fault(message, join_steps(("data", "augment", *steps)), suggestion=hint))
    inputs = {
        name: _build_input_augmentation(spec.input(name), key, changes)
        for name, (key, changes) in resolve_by_input(asked, kinds).items()
    }
    return Augmenter(inputs, recipe.seed, dump(asked)) if inputs else None


def _build_input_augmentation(column: Column, key: str, changes: Any) -> _InputAugmentation:
    built = []
    for position, options in enumerate(changes):
        path = join_steps(("data", "augment", key, position))
        part = parts.load("augmentations", options.kind)
        _require_vectors(column, options.kind, path)
        try:
            built.append(part.build(options, column))
        except BmcliError as error:
            raise BmcliError(*(replace(each, path=path) for each in error.faults)) from None
    mixes = parts.load("augmentations", changes[-1].kind).MIXES
    return _InputAugmentation(column, tuple(built[:-1] if mixes else built), built[-1] if mixes else None)


def _require_vectors(column: Column, kind: str, path: str) -> None:
    """Refuses numbers that cannot be changed one by one."""
    if column.kind != "number":
        return
    if len(column.shape) != 1:
        raise BmcliError(f"column {quoted(column.name)}: {kind} changes numbers and vectors, not sequences.", path=path)
    if "edges" in column.state and kind != "column_dropout":
        raise BmcliError(
            f"column {quoted(column.name)}: {kind} changes numbers, but the column is cut into bins.", path=path,
            suggestion="Leave out one of `bins` and the augmentation.",
        )  # fmt: skip


def augment_pictures(recipe: Recipe, prepared: PreparedData, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Encoded pictures of some training rows by input, `(rows, height, width, channels)`, as a first step sees them.

    Args:
        rows: Their positions in the training split, any order.
    """
    augment = build_augmenter(recipe, prepared.spec)
    split = prepared.split("train")
    names = [column.name for column in prepared.spec.inputs if column.kind == "image"]
    ascending = np.unique(rows)  # as a memory-mapped array is read fastest
    data = {
        "inputs": {name: tf.constant(np.asarray(array[ascending])) for name, array in split.inputs.items()},
        "targets": {},
    }
    places = tf.constant(np.searchsorted(ascending, rows), tf.int32)
    found = augment.augment_examples(data, places, None, 0) if augment else gather_rows(data, places)
    return {name: found["inputs"][name].numpy() for name in names}
