"""Beam search: the most probable texts among those that some of the best beginnings lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.generation.loop import exclude_tokens, shorten
from bmcli.generation.writer import encode_prompt
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.tokenization.base import Tokenizer

_NEVER = -1e9


@dataclass(frozen=True)
class Beam:
    """A text of a beam search.

    Args:
        ids: Of its tokens, without the prompt and the end.
        score: Log-probability, divided by a power of the number of tokens.
        has_end: Whether the model wrote its end.
    """

    ids: tuple[int, ...]
    score: float
    has_end: bool


class BeamSearch:
    """Beam search with one network, of one prompt at a time.

    Args:
        window: Largest number of tokens that the network reads.
        beams: Number of beginnings that are kept.
        length_power: Power of the number of tokens by which log-probabilities are divided; 0 prefers short texts.
        use_cache: As of Writer.
    """

    def __init__(
        self, network: IncrementalNetwork, tokenizer: Tokenizer, window: int, beams: int, length_power: float,
        use_cache: bool,
    ) -> None:  # fmt: skip
        self.network, self.tokenizer, self.window = network, tokenizer, window
        self._excluded = exclude_tokens(tokenizer)
        self.beams, self.length_power, self.use_cache = beams, length_power, use_cache
        self._advance = tf.function(self._compute_logs, autograph=False)

    def search(self, text: str, count: int) -> list[Beam]:
        """Find the best texts that continue a prompt, the best first; fewer than `beams` if few exist.

        Args:
            count: Largest number of tokens; a text also ends where the window is full.
        """
        prompt = shorten(tf.ragged.constant([encode_prompt(self.tokenizer, text)]), self.window)[0].numpy()
        ids = np.zeros((self.beams, self.window), "int32")
        ids[:, : len(prompt)] = prompt
        caches = self.network.make_caches(self.beams, self.window) if self.use_cache else []
        scores = np.full(self.beams, _NEVER)
        scores[0] = 0.0  # all beginnings are the same at first
        complete: list[Beam] = []
        last = min(len(prompt) - 1 + count, self.window - 1)
        for position in range(0 if self.use_cache else len(prompt) - 1, last):
            logs, caches = self._advance(tf.constant(ids), caches, tf.constant(position))
            if position < len(prompt) - 1:
                continue
            written = position + 1 - len(prompt)
            parents, tokens, scores, ended = self._choose(scores, logs.numpy())
            complete += [
                self._finish(ids[parent, len(prompt) : position + 1], score, written + 1, True)
                for parent, score in ended
            ]
            if not len(parents) or self._is_settled(complete, scores, count):
                break
            ids = ids[parents]
            ids[:, position + 1] = tokens
            caches = tf.nest.map_structure(lambda each, chosen=parents: tf.gather(each, chosen), caches)
        else:
            complete += [
                self._finish(row[len(prompt) : last + 1], score, last + 1 - len(prompt), False)
                for row, score in zip(ids, scores, strict=True)
                if score > _NEVER / 2
            ]
        return sorted(complete, key=lambda beam: -beam.score)[: self.beams]

    def _compute_logs(self, ids: Any, caches: Any, position: Any) -> tuple[Any, Any]:
        if self.use_cache:
            logits, caches = self.network.advance(tf.gather(ids, position, axis=1), caches, position)
        else:
            logits = tf.gather(self.network.compute_all(ids), position, axis=1)
        return tf.nn.log_softmax(tf.where(self._excluded, _NEVER, logits)), caches

    def _choose(
        self, scores: np.ndarray, logs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, float]]]:
        """Choose the best continuations: their beginnings, tokens and scores; and the beginnings that end here."""
        total = (scores[:, None] + logs).ravel()
        # Twice as many, since each beginning has one continuation that ends.
        best = np.argsort(-total, kind="stable")[: 2 * self.beams]
        best = best[total[best] > _NEVER / 2]
        parents, tokens = np.divmod(best, logs.shape[1])
        is_end = tokens == self.tokenizer.end
        ended = [(int(parents[i]), float(total[best[i]])) for i in np.flatnonzero(is_end) if i < self.beams]
        kept = np.flatnonzero(~is_end)[: self.beams]
        # A search with few possible texts repeats the last one, which can never be chosen again.
        padded = np.concatenate([kept, np.repeat(kept[-1:], self.beams - len(kept))]) if len(kept) else kept
        values = np.where(np.arange(len(padded)) < len(kept), total[best[padded]], _NEVER)
        return parents[padded], tokens[padded], values, ended

    def _finish(self, ids: np.ndarray, score: float, count: int, has_end: bool) -> Beam:
        return Beam(tuple(ids.tolist()), score / max(1, count) ** self.length_power, has_end)

    def _is_settled(self, complete: Sequence[Beam], scores: np.ndarray, count: int) -> bool:
        """Whether no text that is not complete can be better than all that are kept."""
        if len(complete) < self.beams:
            return False
        worst = sorted(beam.score for beam in complete)[-self.beams]
        return float(scores.max()) / count**self.length_power <= worst
