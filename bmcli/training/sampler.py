"""The order in which each epoch visits the training rows: shuffled, or at first from short sequences to long ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import inputs, parts
from bmcli.errors import BmcliError
from bmcli.quoting import quoted
from bmcli.recipe.schema import Recipe
from bmcli.specs import Column, DataSpec, PreparedData
from bmcli.training import feed

_BLOCK_BYTES = 16 * 2**20  # Encoded rows whose lengths are counted at once.
_PATH = "train.curriculum"


class Sampler:
    """The training rows in the order of each epoch.

    An order is a function of the recipe's seed, the epoch and the data, so that resuming needs no state, and every
    worker finds the same.

    Raises:
        BmcliError: No input has the length that a curriculum goes by, or several have one and none is named.
    """

    def __init__(self, recipe: Recipe, prepared: PreparedData) -> None:
        self._seed, self._count = recipe.seed, len(prepared.split("train"))
        curriculum = recipe.train.curriculum
        self._sorted_epochs = 0 if curriculum is None else curriculum.epochs
        self._lengths = np.zeros(0, np.int32)
        if curriculum is not None:
            column = _find_length_column(prepared.spec, curriculum.input)
            self._lengths = count_steps(column, prepared.split("train").inputs[column.name])

    def of(self, epoch: int) -> tf.Tensor:
        """The rows in the order of an epoch, which counts from 0, `(rows,)`."""
        rows = self.shuffled_order(epoch)
        if epoch >= self._sorted_epochs:
            return rows
        # Sorting keeps the order of equals, so that rows of one length stay shuffled.
        return tf.gather(rows, np.argsort(self._lengths[rows.numpy()], kind="stable"))

    def shuffled_order(self, epoch: int) -> tf.Tensor:
        """The rows as an epoch without a curriculum visits them, `(rows,)`."""
        return feed.shuffle_rows(self._seed, epoch, self._count)


def count_steps(column: Column, encoded: np.ndarray) -> np.ndarray:
    """The steps of each row that are no padding, int32 `(rows,)`.

    They are counted by the mask of the network, a block of rows after the other.

    Args:
        encoded: Rows of a column that has a mask, `(rows, *column.shape)`; only a block of them has to fit into memory.
    """
    masked = _build_mask_model(column)
    assert masked is not None, f"{column.name} has no padding"
    found = np.zeros(len(encoded), np.int32)
    each = max(1, _BLOCK_BYTES * len(encoded) // max(encoded.nbytes, 1))
    for start in range(0, len(encoded), each):
        mask = masked(tf.constant(encoded[start : start + each]))
        found[start : start + each] = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1).numpy()
    return found


def _find_length_column(spec: DataSpec, name: str | None) -> Column:
    """The input whose length counts."""
    names = [column.name for column in spec.inputs]
    if name is not None and name not in names:
        raise BmcliError(f"no input {quoted(name)}.", path=f"{_PATH}.input", suggestion=parts.did_you_mean(name, names))
    asked = spec.inputs if name is None else [spec.input(name)]
    found = [column for column in asked if _build_mask_model(column) is not None]
    if not found:
        raise BmcliError(
            "no input has a length." if name is None else f"input {quoted(name)} has no length.",
            path=_PATH if name is None else f"{_PATH}.input",
            suggestion="Texts have one with `encoding: sequence`, and numbers in sequences of which some end early.",
        )
    if len(found) > 1:
        raise BmcliError(
            f"several inputs have a length: {', '.join(column.name for column in found)}.", path=_PATH,
            suggestion=f"Name one: {{input: {found[0].name}}}.",
        )  # fmt: skip
    return found[0]


def _build_mask_model(column: Column) -> keras.Model | None:
    """From encoded rows to the mask of their steps; None for an input without padding."""
    tensor: Any = keras.Input(column.shape, dtype=column.dtype)
    mask = inputs.kind_of(column).build_feature(column, tensor).mask
    return None if mask is None else keras.Model(tensor, mask)
