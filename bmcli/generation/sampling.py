"""The choice of the next token from its logits."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bmcli.generation import Sampling

_NEVER = -1e9  # a logit whose probability is 0


def to_tensors(sampling: Sampling) -> Sampling:
    """Convert the numbers to tensors, so that they are arguments of a graph."""
    types = Sampling(tf.float32, tf.int32, tf.float32, tf.float32)
    return Sampling(*map(tf.constant, sampling, types))


def change_logits(logits: Any, seen: Any, excluded: Any, penalty: Any) -> Any:
    """Exclude tokens, and make those less probable that are in the text already.

    Args:
        logits: `(batch, tokens)` float32.
        seen: Whether each token is in the text, bool `(batch, tokens)`.
        excluded: Whether a token is never written, bool `(tokens,)`.
        penalty: See Sampling.
    """
    penalised = tf.where(logits > 0, logits / penalty, logits * penalty)
    return tf.where(excluded, _NEVER, tf.where(seen, penalised, logits))


def choose_tokens(logits: Any, draws: Any, sampling: Sampling) -> Any:
    """Choose a token for each row, int32 `(batch,)`.

    Args:
        logits: Result of `change_logits`.
        draws: A random number from 0 to 1 for each row, `(batch,)`; a row's token depends on nothing else, so that it
            does not depend on the other rows.
    """
    return tf.cond(
        tf.equal(tf.cast(sampling.temperature, tf.float32), 0.0),
        lambda: tf.argmax(logits, axis=1, output_type=tf.int32),
        lambda: _draw_tokens(logits, draws, sampling),
    )


def _draw_tokens(logits: Any, draws: Any, sampling: Sampling) -> Any:
    count = logits.shape[1]
    most = tf.where(tf.equal(sampling.top_k, 0), count, tf.minimum(sampling.top_k, count))
    ordered, tokens = tf.math.top_k(logits / sampling.temperature, k=most)
    probabilities = tf.nn.softmax(ordered)
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    # A token is drawn from if those before it do not reach the share; the first one always.
    kept = tf.where(before < sampling.top_p, probabilities, 0.0)
    reached = tf.cumsum(kept, axis=1)
    place = tf.reduce_sum(tf.cast(reached <= draws[:, tf.newaxis] * reached[:, -1:], tf.int32), axis=1)
    last = tf.reduce_sum(tf.cast(kept > 0, tf.int32), axis=1) - 1
    return tf.gather(tokens, tf.minimum(place, last), axis=1, batch_dims=1)
