"""Recurrent layers as loops over plain tensors, which formats without lists of tensors can hold.

Keras collects the steps of a recurrent layer in a list of tensors; LiteRT knows such lists only where the batch has one
size for ever. Unrolled, a layer has a copy of its operations for each step. A loop whose steps are written into one
tensor has neither fault. Imported once a format is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from bmcli import private_api
from bmcli.compression.methods import clone_model


def replace_recurrent_layers(model: keras.Model) -> keras.Model:
    """A network that computes the same, its recurrent layers by `run_inner_loop`; the very network if it has none."""
    if not any(isinstance(layer, keras.layers.RNN) for layer in private_api.flatten_layers(model)):
        return model
    found = clone_model(model)
    for layer in private_api.flatten_layers(found):
        if isinstance(layer, keras.layers.RNN):
            layer.inner_loop = partial(run_inner_loop, layer)
    return found


def run_inner_loop(layer: Any, sequences: Any, initial_state: Sequence[Any], mask: Any, training: bool = False) -> Any:
    """What `keras.layers.RNN.inner_loop` gives: the last output, all outputs, and the last states.

    A step whose mask is false leaves the states as they are, and gives what the step before it gave, or 0 if the layer
    says so.

    Args:
        layer: A recurrent layer of Keras.
        sequences: `(batch, steps, channels)`, of a known number of steps.
        mask: `(batch, steps)`, or None.
    """
    inputs, present = (
        _swap_batch_and_steps(sequences),
        None if mask is None else _swap_batch_and_steps(tf.cast(mask, tf.bool))[..., tf.newaxis],
    )
    if layer.go_backwards:
        inputs, present = tf.reverse(inputs, [0]), None if present is None else tf.reverse(present, [0])
    count, first = inputs.shape[0], tf.zeros_like(initial_state[0])
    every = tf.zeros((count, 1, 1), first.dtype) + first if layer.return_sequences else tf.zeros(())

    def step(number: Any, last: Any, every: Any, *states: Any) -> Any:
        output, after = layer.cell(tf.gather(inputs, number), list(states), training=False)
        after = list(after) if isinstance(after, (list, tuple)) else [after]
        if present is not None:
            here = tf.gather(present, number)
            output = tf.where(here, output, tf.zeros_like(output) if layer.zero_output_for_mask else last)
            after = [tf.where(here, new, old) for new, old in zip(after, states, strict=True)]
        if layer.return_sequences:
            every = tf.where(tf.equal(tf.range(count), number)[:, tf.newaxis, tf.newaxis], output, every)
        return (number + 1, output, every, *after)

    _, last, every, *states = tf.while_loop(
        lambda number, *_: number < count, step, (tf.constant(0), first, every, *initial_state)
    )
    return last, _swap_batch_and_steps(every) if layer.return_sequences else last[:, tf.newaxis], states


def _swap_batch_and_steps(tensor: Any) -> Any:
    """The first two axes exchanged."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
