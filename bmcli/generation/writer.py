"""The loop that writes texts with a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.generation import Ending, Sampling, TextLimits, WrittenText
from bmcli.generation.sampling import change_logits, choose_tokens
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.tokenization.base import Tokenizer

_CHUNK = 16  # tokens that are written in one call
_KEPT_SHARE = 0.5  # of a full window, from which the model continues


class Writer:
    """Writer of texts with one network.

    Every text has random numbers of its own, by its number, so that it is the same in any batch.

    Args:
        window: Largest number of tokens that the network reads, with that of the begin.
        use_cache: Whether to keep what was computed for the steps before; otherwise every token costs a pass over the
            whole window. A network that cannot be computed step by step is never cached.
    """

    def __init__(
        self, network: IncrementalNetwork, tokenizer: Tokenizer, window: int, sampling: Sampling, use_cache: bool = True
    ) -> None:
        self.network, self.tokenizer, self.window, self.sampling = network, tokenizer, window, sampling
        self.is_cached = use_cache and network.agrees()
        self._excluded = exclude_tokens(tokenizer)
        self._continue = tf.function(self._write_chunk, autograph=False)

    def write(
        self, prompts: Sequence[str], limits: TextLimits, seed: int, first: int = 0,
        on_text: Callable[[int, str], None] | None = None,
    ) -> list[WrittenText]:  # fmt: skip
        """Continue prompts, all at once.

        Args:
            seed: Of the random numbers.
            first: Number of the first prompt among all.
            on_text: Called with the position of a prompt and each piece that was written to it.
        """
        texts = [_GrowingText(self.tokenizer, limits, prompt) for prompt in prompts]
        for new in self._iterate_tokens(prompts, limits.tokens, seed, first, lambda: [t.is_complete for t in texts]):
            for position, (growing, ids) in enumerate(zip(texts, new, strict=True)):
                piece = growing.add(ids)
                if piece and on_text is not None:
                    on_text(position, piece)
        for position, growing in enumerate(texts):
            piece = growing.finish()
            if piece and on_text is not None:
                on_text(position, piece)
        return [growing.get_result() for growing in texts]

    def _iterate_tokens(
        self, prompts: Sequence[str], count: int, seed: int, first: int, list_complete: Callable[[], list[bool]]
    ) -> Iterator[list[list[int]]]:
        """Yield the next ids of each prompt, in chunks, until all are complete."""
        sequences = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        written = np.zeros(len(prompts), int)
        draws = np.stack([_draw(seed, first + number, count) for number in range(len(prompts))])
        while not all(list_complete()):
            sequences = [shorten(each, self.window) for each in sequences]
            state = self._start(sequences)
            lengths = np.array([len(each) for each in sequences])
            # Each row continues from its own length, at positions that all rows have in common.
            places, position = tf.constant(written - lengths, tf.int32), 0 if self.is_cached else int(min(lengths)) - 1
            while position < self.window - 1 and not all(list_complete()):
                chunk = min(_CHUNK, self.window - 1 - position)
                state = self._continue(
                    *state, tf.constant(position), tf.constant(chunk), tf.constant(lengths, tf.int32), places,
                    tf.constant(draws, tf.float32), tf.constant(list_complete()),
                )  # fmt: skip
                position += chunk
                ids = state[0].numpy()
                new = [ids[row, len(each) : position + 1].tolist() for row, each in enumerate(sequences)]
                new = [each[: count - written[row]] for row, each in enumerate(new)]
                sequences = [[*each, *some] for each, some in zip(sequences, new, strict=True)]
                written = written + [len(each) for each in new]
                yield new

    def _start(self, sequences: Sequence[Sequence[int]]) -> tuple[Any, Any, Any]:
        """Make the ids `(batch, window)`, which tokens each text has, and empty caches."""
        ids = np.full((len(sequences), self.window), self.tokenizer.padding, "int32")
        seen = np.zeros((len(sequences), self.tokenizer.size), bool)
        for row, each in enumerate(sequences):
            ids[row, : len(each)] = each
            seen[row, list(each)] = True
        caches = self.network.make_caches(len(sequences), self.window) if self.is_cached else []
        return tf.constant(ids), tf.constant(seen), caches

    def _write_chunk(
        self, ids: Any, seen: Any, caches: Any, first: Any, count: Any, lengths: Any, places: Any, draws: Any,
        complete: Any,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """Compute some steps, and write a token after each that is the last of its row.

        Args:
            ids: `(batch, window)`, with the prompts.
            seen: Tokens that each text has.
            first, count: Positions of the steps.
            lengths: Number of ids that each row has at first.
            places: Of the token at position 0 among those that are written to each row; below 0 in its prompt.
            draws: Random number of each token that is written, `(batch, tokens)`.
            complete: Rows that are not needed any more.
        """
        rows = tf.range(tf.shape(ids)[0])

        def advance(position: Any, ids: Any, seen: Any, caches: Any) -> tuple[Any, Any, Any, Any]:
            if self.is_cached:
                logits, caches = self.network.advance(tf.gather(ids, position, axis=1), caches, position)
            else:
                logits = tf.gather(self.network.compute_all(ids), position, axis=1)
            logits = change_logits(logits, seen, self._excluded, self.sampling.repetition_penalty)
            following = position + 1
            place = tf.clip_by_value(places + following, 0, tf.shape(draws)[1] - 1)
            chosen = choose_tokens(logits, tf.gather(draws, place, axis=1, batch_dims=1), self.sampling)
            is_new = tf.logical_and(following >= lengths, tf.logical_not(complete))
            token = tf.where(is_new, chosen, tf.gather(ids, following, axis=1))
            cells = tf.stack([rows, tf.fill(tf.shape(rows), following)], axis=1)
            ids = tf.tensor_scatter_nd_update(ids, cells, token)
            marks = tf.stack([rows, token], axis=1)
            seen = tf.tensor_scatter_nd_update(seen, marks, tf.ones_like(rows, tf.bool))
            return following, ids, seen, caches

        last = first + count
        _, ids, seen, caches = tf.while_loop(
            lambda position, *_: position < last, advance, (first, ids, seen, caches), parallel_iterations=1
        )
        return ids, seen, caches


def _draw(seed: int, number: int, count: int) -> np.ndarray:
    """Draw the random numbers of one text, from 0 to below 1, `(count,)`."""
    return np.random.default_rng([seed, number]).random(count)


def exclude_tokens(tokenizer: Tokenizer) -> Any:
    """Mark the tokens that are never written, bool `(tokens,)`: padding, unknown and begin."""
    excluded = np.zeros(tokenizer.size, bool)
    excluded[[tokenizer.padding, tokenizer.unknown, tokenizer.begin]] = True
    return tf.constant(excluded)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Encode a prompt, with the token of the begin."""
    return [tokenizer.begin, *tokenizer.encode_flat([prompt])[0].tolist()]


def shorten(ids: list[int], window: int) -> list[int]:
    """Keep the begin and the last tokens of a sequence that fills the window."""
    return ids if len(ids) < window else [ids[0], *ids[-max(1, int(_KEPT_SHARE * window)) :]]


def end_text(tokenizer: Tokenizer, prompt: str, ids: Sequence[int], has_end: bool, limits: TextLimits) -> WrittenText:
    """Make a complete text of tokens.

    Args:
        prompt: The text before them.
        has_end: Whether the model wrote its end after them.
    """
    growing = _GrowingText(tokenizer, TextLimits(len(ids), limits.stop), prompt)
    growing.add([*ids, tokenizer.end] if has_end else [*ids])
    return growing.get_result()


class _GrowingText:
    """The tokens of one text, of which pieces are shown that later ones cannot change."""

    def __init__(self, tokenizer: Tokenizer, limits: TextLimits, prompt: str) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        self._joint = tokenizer.find_joint(prompt)
        self._ids: list[int] = []
        self._shown = ""
        self._text = ""
        self._ending: Ending | None = None
        # The end of a text may be the begin of one to stop at, or a character of which bytes are missing.
        self._held = max([4, *(len(each) for each in limits.stop)])

    @property
    def is_complete(self) -> bool:
        return self._ending is not None

    def add(self, ids: Sequence[int]) -> str:
        """Add tokens; returns the piece of the text that is certain now."""
        if self.is_complete:
            return ""
        ending = ids.index(self._tokenizer.end) if self._tokenizer.end in ids else None
        self._ids += ids if ending is None else ids[:ending]
        text = self._tokenizer.decode(np.array(self._ids, "int32"))
        self._text = self._joint + text if text else ""
        # The joint is no part of what the model wrote, so that a blank to stop at is a later one.
        found = [place for stop in self._limits.stop if (place := self._text.find(stop, len(self._joint))) >= 0]
        if found:
            self._ending, self._text = "stop", self._text[: min(found)]
        elif ending is not None:
            self._ending = "end"
        elif len(self._ids) >= self._limits.tokens:
            self._ending = "length"
        return self._show("" if self.is_complete else self._text[-self._held :])

    def finish(self) -> str:
        """Return the piece that was held back."""
        return self._show("")

    def _show(self, held: str) -> str:
        certain = self._text.removesuffix(held)
        piece = certain[len(self._shown) :]
        self._shown += piece
        return piece

    def get_result(self) -> WrittenText:
        assert self._ending is not None, "the text is complete"
        return WrittenText(self._text, len(self._ids), self._ending)
