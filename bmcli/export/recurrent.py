"""Recurrent layers as loops over plain tensors, for formats without lists of tensors.

Keras collects the steps of a recurrent layer in a list of tensors, which LiteRT supports only for a fixed batch size;
an unrolled layer has a copy of its operations for each step. A loop that writes its steps into one tensor avoids both.
The module imports TensorFlow, so it is imported only when a format is written.
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
    """Copy a network with `run_inner_loop` in its recurrent layers; returns the network itself if it has none."""
    if not any(isinstance(layer, keras.layers.RNN) for layer in private_api.flatten_layers(model)):
        return model
    copy = clone_model(model)
    for layer in private_api.flatten_layers(copy):
        if isinstance(layer, keras.layers.RNN):
            layer.inner_loop = partial(run_inner_loop, layer)
    return copy


def run_inner_loop(layer: Any, sequences: Any, initial_state: Sequence[Any], mask: Any, training: bool = False) -> Any:
    """Compute `keras.layers.RNN.inner_loop`: the last output, all outputs, and the last states.

    A masked step leaves the states unchanged, and repeats the output of the step before, or outputs 0 if the layer has
    `zero_output_for_mask`.

    Args:
        layer: A recurrent layer of Keras.
        sequences: `(batch, steps, channels)`, with a static number of steps.
        mask: `(batch, steps)`, or None.
    """
    inputs, mask_by_step = (
        _swap_batch_and_steps(sequences),
        None if mask is None else _swap_batch_and_steps(tf.cast(mask, tf.bool))[..., tf.newaxis],
    )
    if layer.go_backwards:
        inputs, mask_by_step = tf.reverse(inputs, [0]), None if mask_by_step is None else tf.reverse(mask_by_step, [0])
    step_count, initial_output = inputs.shape[0], tf.zeros_like(initial_state[0])
    outputs = (
        tf.zeros((step_count, 1, 1), initial_output.dtype) + initial_output if layer.return_sequences else tf.zeros(())
    )

    def step(index: Any, last_output: Any, outputs: Any, *states: Any) -> Any:
        output, new_states = layer.cell(tf.gather(inputs, index), list(states), training=False)
        new_states = list(new_states) if isinstance(new_states, (list, tuple)) else [new_states]
        if mask_by_step is not None:
            is_present = tf.gather(mask_by_step, index)
            output = tf.where(is_present, output, tf.zeros_like(output) if layer.zero_output_for_mask else last_output)
            new_states = [tf.where(is_present, new, old) for new, old in zip(new_states, states, strict=True)]
        if layer.return_sequences:
            outputs = tf.where(tf.equal(tf.range(step_count), index)[:, tf.newaxis, tf.newaxis], output, outputs)
        return (index + 1, output, outputs, *new_states)

    _, last_output, outputs, *states = tf.while_loop(
        lambda index, *_: index < step_count, step, (tf.constant(0), initial_output, outputs, *initial_state)
    )
    return last_output, _swap_batch_and_steps(outputs) if layer.return_sequences else last_output[:, tf.newaxis], states


def _swap_batch_and_steps(tensor: Any) -> Any:
    """Swap the first two axes."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
