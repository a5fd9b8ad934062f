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
from bmcli.recipe.augment import of_inputs, problem_with_inputs
from bmcli.recipe.check import dotted
from bmcli.recipe.fields import dump
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, Prepared
from bmcli.training.feed import gather, inputs_of

_MIXING = "mixing"


class Drawn:
    """Random numbers for the examples at some places of a batch: a `Dice`.

    Numbers are drawn for the whole batch, a few for each example, and those of the places are taken out. They follow
    from the recipe's seed, what they are for, how many were drawn before, and the step.

    Args:
        name: What they are for.
        step: Optimizer steps done, a scalar.
        size: Examples of the whole batch.
        places: Of the examples in it, `(examples,)`, or None if they are the whole batch.
    """

    def __init__(self, seed: int, name: str, step: Any, size: int, places: Any) -> None:
        self._words, self._step, self._size, self._places = f"{seed} {name}", tf.cast(step, tf.int32), size, places
        self._count = 0

    def uniform(self, *shape: int) -> Any:
        return self._mine(tf.random.stateless_uniform((self._size, *shape), self.seed()))

    def normal(self, *shape: int) -> Any:
        return self._mine(tf.random.stateless_normal((self._size, *shape), self.seed()))

    def beta(self, alpha: float) -> Any:
        first, second = (tf.random.stateless_gamma((self._size,), self.seed(), alpha) for _ in range(2))
        total = first + second
        return self._mine(tf.where(total > 0, first / tf.where(total > 0, total, 1.0), 0.5))

    def transformed(self, layer: keras.layers.Layer, pictures: Any) -> Any:
        batch = keras.KerasTensor((self._size, *pictures.shape[1:]), "float32")
        drawn = layer.get_random_transformation(batch, training=True, seed=_Seeds(self.seed))
        return layer.transform_images(pictures, tf.nest.map_structure(self._mine, drawn), training=True)

    def partners(self) -> Any:
        """For each example the place of another in the batch, by a permutation of all."""
        return self._mine(tf.random.experimental.stateless_shuffle(tf.range(self._size), self.seed()))

    def seed(self) -> Any:
        """The next seed, two whole numbers."""
        self._count += 1
        digest = hashlib.sha256(f"{self._words} {self._count}".encode()).digest()
        return tf.stack([tf.constant(int.from_bytes(digest[:4], "little", signed=True)), self._step])

    def _mine(self, value: Any) -> Any:
        """What belongs to the places; what is not by example, as the height of the pictures, stays."""
        by_example = tf.is_tensor(value) and value.shape.rank and value.shape[0] == self._size
        return tf.gather(value, self._places) if by_example and self._places is not None else value


class _Seeds(keras.random.SeedGenerator):
    """What Keras' layers draw their seeds from: a function, and no variable whose state would have to be kept."""

    def __init__(self, following: Callable[[], Any]) -> None:
        self._following = following

    def next(self, ordered: bool = True) -> Any:
        return self._following()


@dataclass(frozen=True)
class _Input:
    """What changes one input.

    Args:
        changes: In their order.
        mix: What mixes it with another example afterwards, or None.
    """

    column: Column
    changes: tuple[Any, ...]
    mix: Any

    def opened(self, encoded: Any) -> Any:
        """As augmentations take it: pictures from 0 to 1."""
        if self.column.kind != "image":
            return encoded
        low, high = self.column.state["range"]
        return (tf.cast(encoded, tf.float32) - low) / ((high - low) or 1.0)

    def closed(self, values: Any) -> Any:
        """As the network takes it; bytes stay bytes."""
        if self.column.kind != "image":
            return values
        low, high = self.column.state["range"]
        values = values * ((high - low) or 1.0) + low
        return tf.saturate_cast(tf.round(values), tf.uint8) if self.column.dtype == "uint8" else values


class Augment:
    """Changes training examples at random, the same whichever device computes them.

    Args:
        described: What the recipe asks for, as it decides how fast a step is.
    """

    def __init__(self, inputs: Mapping[str, _Input], seed: int, described: Any = None) -> None:
        self.inputs, self.seed, self.described = inputs, seed, described
        self.mixes = any(each.mix is not None for each in inputs.values())

    def examples(self, data: Any, rows: Any, places: Any, step: Any) -> dict[str, Any]:
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
        found = _by_column(gather(data, rows if places is None else tf.gather(rows, places)))
        values = self._changed(found["inputs"], places, size, step)
        if self.mixes:
            partners = Drawn(self.seed, _MIXING, step, size, places).partners()
            if places is None:
                others = gather({**found, "inputs": values}, partners)
            else:
                others = _by_column(gather(data, tf.gather(rows, partners)))
                others["inputs"] = self._changed(others["inputs"], partners, size, step)
            values, share = self._mixed(values, others["inputs"], places, size, step)
            found |= {"others": {name: others[name] for name in ("targets", "weights", "labelled") if name in others}}
            found["share"] = share
        closed = {name: each.closed(values[name]) for name, each in self.inputs.items()}
        return {**found, "inputs": {**found["inputs"], **closed}}

    def _changed(self, inputs: Mapping[str, Any], places: Any, size: int, step: Any) -> dict[str, Any]:
        """The inputs that change, opened and changed one by one."""
        changed = {}
        for name, each in self.inputs.items():
            values = each.opened(inputs[name])
            for position, change in enumerate(each.changes):
                values = change(values, Drawn(self.seed, f"{name} {position}", step, size, places))
            changed[name] = values
        return changed

    def _mixed(
        self, own: Mapping[str, Any], others: Mapping[str, Any], places: Any, size: int, step: Any
    ) -> tuple[dict[str, Any], Any]:
        """The inputs that mix, and the share of the first: the same in all, since all draw the same numbers."""
        mixed, share = dict(own), None
        for name, each in self.inputs.items():
            if each.mix is not None:
                dice = Drawn(self.seed, f"{_MIXING} share", step, size, places)
                mixed[name], share = each.mix(own[name], others[name], dice)
        return mixed, share


def _by_column(examples: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every input apart."""
    return {**{name: value for name, value in examples.items() if name != "stacks"}, "inputs": inputs_of(examples)}


def build(recipe: Recipe, spec: DataSpec) -> Augment | None:
    """The augmentation of a recipe, or None if it has none.

    Raises:
        BmcliError: An input is not there, or cannot be changed so.
    """
    asked = recipe.data.augment
    if not asked:
        return None
    kinds = {column.name: column.kind for column in spec.inputs}
    if problem := problem_with_inputs(asked, kinds):
        steps, message, hint = problem
        raise BmcliError(Fault(message, dotted(("data", "augment", *steps)), suggestion=hint))
    inputs = {name: _input(spec.input(name), key, changes) for name, (key, changes) in of_inputs(asked, kinds).items()}
    return Augment(inputs, recipe.seed, dump(asked)) if inputs else None


def _input(column: Column, key: str, changes: Any) -> _Input:
    built = []
    for position, options in enumerate(changes):
        path = dotted(("data", "augment", key, position))
        part = parts.load("augmentations", options.kind)
        _require_vectors(column, options.kind, path)
        try:
            built.append(part.build(options, column))
        except BmcliError as error:
            raise BmcliError(*(replace(each, path=path) for each in error.faults)) from None
    mixes = parts.load("augmentations", changes[-1].kind).MIXES
    return _Input(column, tuple(built[:-1] if mixes else built), built[-1] if mixes else None)


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


def pictures(recipe: Recipe, prepared: Prepared, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Encoded pictures of some training rows by input, `(rows, height, width, channels)`, as a first step sees them.

    Args:
        rows: Their positions in the training split, any order.
    """
    augment = build(recipe, prepared.spec)
    split = prepared.split("train")
    names = [column.name for column in prepared.spec.inputs if column.kind == "image"]
    ascending = np.unique(rows)  # as a memory-mapped array is read fastest
    data = {
        "inputs": {name: tf.constant(np.asarray(array[ascending])) for name, array in split.inputs.items()},
        "targets": {},
    }
    places = tf.constant(np.searchsorted(ascending, rows), tf.int32)
    found = augment.examples(data, places, None, 0) if augment else gather(data, places)
    return {name: found["inputs"][name].numpy() for name in names}
