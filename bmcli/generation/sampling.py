"""The choice of the next token from its logits."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bmcli.generation import Sampling

_NEVER = -1e9  # a logit whose probability is 0


def change_logits(logits: Any, seen: Any, excluded: Any, penalty: float) -> Any:
    """Exclude tokens, and make those less probable that are in the text already.

    Args:
        logits: `(batch, tokens)` float32.
        seen: Whether each token is in the text, bool `(batch, tokens)`.
        excluded: Whether a token is never written, bool `(tokens,)`.
    """
    if penalty != 1:
        penalised = tf.where(logits > 0, logits / penalty, logits * penalty)
        logits = tf.where(seen, penalised, logits)
    return tf.where(excluded, _NEVER, logits)


def choose_tokens(logits: Any, draws: Any, sampling: Sampling) -> Any:
    """Choose a token for each row, int32 `(batch,)`.

    Args:
        logits: Result of `change_logits`.
        draws: A random number from 0 to 1 for each row, `(batch,)`; a row's token depends on nothing else, so that it
            does not depend on the other rows.
    """
    if sampling.is_greedy:
        return tf.argmax(logits, axis=1, output_type=tf.int32)
    count = logits.shape[1]
    ordered, tokens = tf.math.top_k(logits / sampling.temperature, k=min(sampling.top_k or count, count))
    probabilities = tf.nn.softmax(ordered)
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    # A token is drawn from if those before it do not reach the share; the first one always.
    kept = tf.where(before < sampling.top_p, probabilities, 0.0)
    reached = tf.cumsum(kept, axis=1)
    place = tf.reduce_sum(tf.cast(reached <= draws[:, tf.newaxis] * reached[:, -1:], tf.int32), axis=1)
    last = tf.reduce_sum(tf.cast(kept > 0, tf.int32), axis=1) - 1
    return tf.gather(tokens, tf.minimum(place, last), axis=1, batch_dims=1)
