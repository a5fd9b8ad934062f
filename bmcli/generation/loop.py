"""The loop that writes tokens, as operations of TensorFlow: the same for `bmcli generate` and for a SavedModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bmcli.generation import Sampling
from bmcli.generation.sampling import change_logits, choose_tokens
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.tokenization.base import Tokenizer

_KEPT_SHARE = 0.5  # of a full window, from which the model continues


class LoopState(NamedTuple):
    """What the steps of a batch change.

    Args:
        ids: `(batch, window)`, int32.
        seen: Tokens that each text has, bool `(batch, tokens)`.
        caches: Of the steps before; empty without a cache.
    """

    ids: Any
    seen: Any
    caches: Any


class Rows(NamedTuple):
    """What the rows of a batch have of their own.

    Args:
        lengths: Number of ids of each at the begin of the window, int32 `(batch,)`.
        written: Number of tokens that were written before, int32 `(batch,)`.
        draws: Random number of each token that is written, `(batch, tokens)`.
    """

    lengths: Any
    written: Any
    draws: Any


@dataclass(frozen=True)
class TokenLoop:
    """Steps of one network.

    Args:
        window: Largest number of tokens that the network reads, with that of the begin.
        is_cached: Whether to keep what was computed for the steps before; otherwise every token costs a pass over the
            whole window.
    """

    network: IncrementalNetwork
    tokenizer: Tokenizer
    window: int
    is_cached: bool

    def start(self, sequences: tf.RaggedTensor) -> tuple[LoopState, Any]:
        """Begin a window with sequences of ids; of one that fills it, the begin and the last tokens are kept.

        Returns:
            The state before the first step, and the number of ids of each row.
        """
        sequences = shorten(sequences, self.window)
        ids = sequences.to_tensor(self.tokenizer.padding, shape=[None, self.window])
        batch = tf.shape(ids)[0]
        # Padding counts as seen, which changes nothing: it is never written.
        cells = tf.stack([tf.repeat(tf.range(batch), self.window), tf.reshape(ids, [-1])], axis=1)
        unseen = tf.zeros([batch, self.tokenizer.size], tf.bool)
        seen = tf.tensor_scatter_nd_update(unseen, cells, tf.ones_like(cells[:, 0], tf.bool))
        caches = self.network.make_caches(batch, self.window) if self.is_cached else []
        return LoopState(ids, seen, caches), tf.cast(sequences.row_lengths(), tf.int32)

    def get_first_position(self, lengths: Any) -> Any:
        """Return the position of the first step: with a cache, the prompts are computed step by step, too."""
        return tf.constant(0) if self.is_cached else tf.reduce_min(lengths) - 1

    def step(self, position: Any, state: LoopState, rows: Rows, complete: Any, sampling: Sampling) -> LoopState:
        """Compute a step, and write a token after each row that has none there.

        Each row continues from its own length, at positions that all rows have in common.

        Args:
            position: Of the step.
            complete: Rows that are not needed any more, bool `(batch,)`.
        """
        ids, seen, caches = state
        if self.is_cached:
            logits, caches = self.network.advance(tf.gather(ids, position, axis=1), caches, position)
        else:
            logits = tf.gather(self.network.compute_all(ids), position, axis=1)
        logits = change_logits(logits, seen, exclude_tokens(self.tokenizer), sampling.repetition_penalty)
        following = position + 1
        place = tf.clip_by_value(rows.written - rows.lengths + following, 0, tf.shape(rows.draws)[1] - 1)
        chosen = choose_tokens(logits, tf.gather(rows.draws, place, axis=1, batch_dims=1), sampling)
        is_new = (following >= rows.lengths) & ~complete
        token = tf.where(is_new, chosen, tf.gather(ids, following, axis=1))
        numbers = tf.range(tf.shape(ids)[0])
        cells = tf.stack([numbers, tf.fill(tf.shape(numbers), following)], axis=1)
        marks = tf.stack([numbers, token], axis=1)
        return LoopState(
            tf.tensor_scatter_nd_update(ids, cells, token),
            tf.tensor_scatter_nd_update(seen, marks, tf.ones_like(numbers, tf.bool)),
            caches,
        )

    def write(self, prompts: tf.RaggedTensor, count: Any, seed: Any, sampling: Sampling) -> tuple[Any, Any]:
        """Continue all prompts of a batch in one graph.

        Args:
            prompts: Ids with that of the begin, int32 `(batch, tokens)`.
            count: Largest number of tokens of a text.

        Returns:
            Ids that are written, int32 `(batch, count)`, padding after the last; and their numbers, without the end.
        """
        batch = tf.cast(prompts.nrows(), tf.int32)
        numbers = tf.range(batch)
        draws = draw(seed, numbers, count)

        def write_window(ids: Any, lengths: Any, texts: Any, written: Any, complete: Any) -> tuple[Any, ...]:
            state, lengths = self.start(tf.RaggedTensor.from_tensor(ids, lengths))
            rows = Rows(lengths, written, draws)

            def advance(position: Any, state: LoopState, texts: Any, complete: Any) -> tuple[Any, ...]:
                state = self.step(position, state, rows, complete, sampling)
                position += 1
                token, place = tf.gather(state.ids, position, axis=1), written - lengths + position
                is_new = (position >= lengths) & ~complete
                cells = tf.boolean_mask(tf.stack([numbers, place], axis=1), is_new)
                texts = tf.tensor_scatter_nd_update(texts, cells, tf.boolean_mask(token, is_new))
                return (
                    position,
                    state,
                    texts,
                    complete | (is_new & ((token == self.tokenizer.end) | (place + 1 >= count))),
                )

            position, state, texts, complete = tf.while_loop(
                lambda position, state, texts, complete: (position < self.window - 1) & ~tf.reduce_all(complete),
                advance, (self.get_first_position(lengths), state, texts, complete), parallel_iterations=1,
            )  # fmt: skip
            # A row that is complete has no use for what follows.
            now = tf.maximum(lengths, position + 1)
            return state.ids, now, texts, written + now - lengths, complete

        first, lengths = self.start(prompts)
        padding = tf.fill([batch, count], self.tokenizer.padding)
        _, _, texts, _, _ = tf.while_loop(
            lambda *state: ~tf.reduce_all(state[-1]), write_window,
            (first.ids, lengths, padding, tf.zeros_like(lengths), tf.fill([batch], count <= 0)), parallel_iterations=1,
        )  # fmt: skip
        is_end = texts == self.tokenizer.end
        return texts, tf.reduce_sum(tf.cast((texts != self.tokenizer.padding) & ~is_end, tf.int32), axis=1)


def draw(seed: Any, numbers: Any, count: Any) -> Any:
    """Draw random numbers from 0 to below 1 for each text, float32 `(batch, count)`.

    Those of a text depend on the seed and its number alone, and the first ones not on the count.
    """

    def draw_row(number: Any) -> Any:
        # Philox counts from the begin of a row. By default the algorithm depends on the device.
        return tf.random.stateless_uniform([count], tf.stack([tf.cast(seed, tf.int32), number]), alg="philox")

    return tf.map_fn(draw_row, numbers, fn_output_signature=tf.TensorSpec([None], tf.float32))


def exclude_tokens(tokenizer: Tokenizer) -> Any:
    """Mark the tokens that are never written, bool `(tokens,)`: padding, unknown and begin."""
    excluded = np.zeros(tokenizer.size, bool)
    excluded[[tokenizer.padding, tokenizer.unknown, tokenizer.begin]] = True
    return tf.constant(excluded)


def shorten(sequences: tf.RaggedTensor, window: int) -> tf.RaggedTensor:
    """Keep the begin and the last tokens of each sequence that fills the window."""
    lengths = tf.cast(sequences.row_lengths(), tf.int32)
    kept = max(0, min(int(_KEPT_SHARE * window), window - 2))  # there must be place for one more
    first = tf.where(lengths < window, 1, lengths - kept)
    positions = tf.ragged.range(lengths)
    is_kept = (positions == 0) | (positions >= first[:, tf.newaxis])
    return tf.ragged.boolean_mask(sequences, is_kept)
