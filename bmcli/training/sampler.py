"""Order in which each epoch visits the training rows: shuffled, or in the first epochs from short to long sequences."""

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
from bmcli.windows import EncodedRows, count_row_bytes

_BLOCK_BYTES = 16 * 2**20  # encoded rows whose steps are counted at once
_PATH = "train.curriculum"


class Sampler:
    """Sampler of the training rows in the order of each epoch.

    An order is a function of the recipe's seed, the epoch and the data, so that resuming needs no state, and every
    worker computes the same.

    Raises:
        BmcliError: The recipe has a curriculum, but no input has a length, or several have one and none is named.
    """

    def __init__(self, recipe: Recipe, prepared: PreparedData) -> None:
        self._seed, self._count = recipe.seed, len(prepared.split("train"))
        curriculum = recipe.train.curriculum
        self._sorted_epochs = 0 if curriculum is None else curriculum.epochs
        self._lengths = np.zeros(0, np.int32)
        if curriculum is not None:
            column = _find_length_column(prepared.spec, curriculum.input)
            self._lengths = count_steps(column, prepared.split("train").inputs[column.name])

    def epoch_order(self, epoch: int) -> tf.Tensor:
        """Order the rows for an epoch, which counts from 0, `(rows,)`."""
        rows = self.shuffled_order(epoch)
        if epoch >= self._sorted_epochs:
            return rows
        # A stable sort keeps rows of equal length in their shuffled order.
        return tf.gather(rows, np.argsort(self._lengths[rows.numpy()], kind="stable"))

    def shuffled_order(self, epoch: int) -> tf.Tensor:
        """Shuffle the rows for an epoch, regardless of a curriculum, `(rows,)`."""
        return feed.shuffle_rows(self._seed, epoch, self._count)


def count_steps(column: Column, encoded: EncodedRows) -> np.ndarray:
    """Count the steps of each row that are not padding, int32 `(rows,)`.

    Args:
        encoded: Rows of a column that has a mask, `(rows, *column.shape)`; they are read block by block, so that they
            need not fit into memory.
    """
    # The network's own mask counts, so that there is only one definition of padding.
    mask_model = _build_mask_model(column)
    assert mask_model is not None, f"{column.name} has no padding"
    steps = np.zeros(len(encoded), np.int32)
    block = max(1, _BLOCK_BYTES // max(count_row_bytes(encoded), 1))
    for start in range(0, len(encoded), block):
        mask = mask_model(tf.constant(np.asarray(encoded[start : start + block])))
        steps[start : start + block] = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1).numpy()
    return steps


def _find_length_column(spec: DataSpec, name: str | None) -> Column:
    """Find the input by whose length the rows are sorted."""
    names = [column.name for column in spec.inputs]
    if name is not None and name not in names:
        raise BmcliError(f"no input {quoted(name)}.", path=f"{_PATH}.input", suggestion=parts.did_you_mean(name, names))
    candidates = spec.inputs if name is None else [spec.input(name)]
    with_length = [column for column in candidates if _build_mask_model(column) is not None]
    if not with_length:
        raise BmcliError(
            "no input has a length." if name is None else f"input {quoted(name)} has no length.",
            path=_PATH if name is None else f"{_PATH}.input",
            suggestion="Name a text with `encoding: sequence`, or sequences of numbers that differ in length.",
        )
    if len(with_length) > 1:
        raise BmcliError(
            f"several inputs have a length: {', '.join(column.name for column in with_length)}.", path=_PATH,
            suggestion=f"Name one: {{input: {with_length[0].name}}}.",
        )  # fmt: skip
    return with_length[0]


def _build_mask_model(column: Column) -> keras.Model | None:
    """Build a model from encoded rows to the mask of their steps; None for an input without padding."""
    tensor: Any = keras.Input(column.shape, dtype=column.dtype)
    mask = inputs.kind_of(column).build_feature(column, tensor).mask
    return None if mask is None else keras.Model(tensor, mask)
