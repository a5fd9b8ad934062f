"""The loop that writes texts with a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmcli.generation import Ending, Sampling, TextLimits, WrittenText
from bmcli.generation.loop import LoopState, Rows, TokenLoop, draw
from bmcli.generation.sampling import to_tensors
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.tokenization.base import Tokenizer

_CHUNK = 16  # tokens that are written in one call


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
        self.tokenizer, self.window, self.sampling = tokenizer, window, sampling
        self.is_cached = use_cache and network.agrees()
        self._loop = TokenLoop(network, tokenizer, window, self.is_cached)
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
        sequences = tf.ragged.constant([encode_prompt(self.tokenizer, prompt) for prompt in prompts], tf.int32)
        draws = draw(seed, first + tf.range(len(prompts)), count)
        written = np.zeros(len(prompts), "int32")
        sampling = to_tensors(self.sampling)
        while not all(list_complete()):
            state, lengths = self._loop.start(sequences)
            rows = Rows(lengths, tf.constant(written), draws)
            begin = now = lengths.numpy()
            position = int(self._loop.get_first_position(lengths))
            while position < self.window - 1 and not all(list_complete()):
                chunk = min(_CHUNK, self.window - 1 - position)
                state = self._continue(
                    tf.constant(position), tf.constant(chunk), state, rows, tf.constant(list_complete()), sampling
                )
                position += chunk
                ids, before, now = state.ids.numpy(), now, np.maximum(now, position + 1)
                ends = np.minimum(now, begin - written + count)  # at most `count` tokens
                yield [ids[row, before[row] : ends[row]].tolist() for row in range(len(ids))]
            written += now - begin
            sequences = tf.RaggedTensor.from_tensor(state.ids, now)

    def _write_chunk(
        self, first: Any, count: Any, state: LoopState, rows: Rows, complete: Any, sampling: Sampling
    ) -> LoopState:
        """Compute some steps.

        Args:
            first, count: Positions of the steps.
            complete: Rows that are not needed any more.
        """

        def advance(position: Any, state: LoopState) -> tuple[Any, LoopState]:
            return position + 1, self._loop.step(position, state, rows, complete, sampling)

        last = first + count
        _, state = tf.while_loop(
            lambda position, state: position < last, advance, (first, state), parallel_iterations=1
        )
        return state


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Encode a prompt, with the token of the begin."""
    return [tokenizer.begin, *tokenizer.encode_flat([prompt])[0].tolist()]


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
