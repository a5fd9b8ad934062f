"""Texts of small networks with random weights, with caches and without, in batches and alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from bmcli import tokens
from bmcli.generation import Sampling, TextLimits
from bmcli.generation.beams import BeamSearch
from bmcli.generation.writer import Writer, end_text
from bmcli.layers.positions import Positions
from bmcli.layers.self_attention import SelfAttention
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.normalization import Normalization
from bmcli.recipe.tokens import TokensField
from bmcli.tokenization.base import Tokenizer

WINDOW = 32
TOKENIZER = tokens.fit(
    TokensField().check("characters"), Normalization(lowercase=False), ["abcdefgh ijk.\n"], "written"
)
PROMPTS = ["abc", "", "k" * 50]


def attend(steps: Any, mask: Any, **options: Any) -> Any:
    added = SelfAttention(2, 8, causal=True, **options)(keras.layers.LayerNormalization()(steps), mask=mask)
    return keras.layers.Dense(16, "gelu")(keras.layers.RMSNormalization()(steps + added)) + steps


FAMILIES: dict[str, Any] = {
    "positions": lambda steps, mask: attend(attend(Positions("sinusoidal")(steps), mask), mask),
    "rotary": lambda steps, mask: attend(steps, mask, rotary=True, key_value_heads=1),
    "lstm": lambda steps, mask: keras.layers.LSTM(16, return_sequences=True)(steps, mask=mask),
    "gru": lambda steps, mask: keras.layers.GRU(16, return_sequences=True)(keras.layers.Dropout(0.5)(steps)),
}
SAMPLINGS = [Sampling(0.0), Sampling(), Sampling(0.7, 5, 0.9, 1.3)]


def make_network(
    build: Any, ends: bool = True, tokenizer: Tokenizer = TOKENIZER, window: int = WINDOW
) -> IncrementalNetwork:
    """Make a network with random weights, which may never write an end."""
    keras.utils.set_random_seed(4)
    ids = keras.Input((window,), dtype="int32", name="text")
    steps = build(keras.layers.Embedding(tokenizer.size, 16)(ids), ops.not_equal(ids, 0))
    head = keras.layers.Dense(tokenizer.size, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))
    logits = head(steps)
    if not ends:
        head.bias.assign(-99.0 * (np.arange(tokenizer.size) == tokenizer.end))
    return IncrementalNetwork(keras.Model({"text": ids}, {"next": logits}), "text", "next")


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: pytest.FixtureRequest) -> IncrementalNetwork:
    return make_network(FAMILIES[request.param])


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_cache_changes_no_token(network: IncrementalNetwork, sampling: Sampling) -> None:
    writers = [Writer(network, TOKENIZER, WINDOW, sampling, use_cache) for use_cache in (True, False)]
    assert [writer.is_cached for writer in writers] == [True, False]
    cached, computed = (writer.write(PROMPTS, TextLimits(20), 7) for writer in writers)
    assert cached == computed


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_may_be_longer_than_the_window(family: str) -> None:
    network = make_network(FAMILIES[family], ends=False)
    writers = [Writer(network, TOKENIZER, WINDOW, Sampling(), use_cache) for use_cache in (True, False)]
    cached, computed = (writer.write(PROMPTS, TextLimits(2 * WINDOW), 7) for writer in writers)
    assert cached == computed
    assert [(text.tokens, text.ending) for text in cached] == [(2 * WINDOW, "length")] * len(PROMPTS)


@pytest.mark.parametrize("window", [2, 3])
def test_a_tiny_window_has_place_for_another_token(window: int) -> None:
    writer = Writer(make_network(FAMILIES["gru"], ends=False, window=window), TOKENIZER, window, Sampling())
    assert [text.tokens for text in writer.write(PROMPTS, TextLimits(5), 7)] == [5] * len(PROMPTS)


def test_a_text_does_not_depend_on_others_of_its_batch(network: IncrementalNetwork) -> None:
    writer = Writer(network, TOKENIZER, WINDOW, Sampling())
    together = writer.write(PROMPTS, TextLimits(40), 7)
    alone = [writer.write([prompt], TextLimits(40), 7, first=number)[0] for number, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert together != writer.write(PROMPTS, TextLimits(40), 8)


def test_beams_with_a_cache_find_the_same(network: IncrementalNetwork) -> None:
    found = [BeamSearch(network, TOKENIZER, WINDOW, 3, 1.0, cache).search("ab", 6) for cache in (True, False)]
    assert [beam.ids for beam in found[0]] == [beam.ids for beam in found[1]]
    assert [beam.score for beam in found[0]] == sorted((beam.score for beam in found[0]), reverse=True)


def score(network: IncrementalNetwork, prompt: str, ids: tuple[int, ...], has_end: bool) -> float:
    """Sum the log-probabilities of tokens after a prompt, without the tokens that are never written."""
    start = [TOKENIZER.begin, *TOKENIZER.encode_flat([prompt])[0].tolist()]
    whole = [*start, *ids, *([TOKENIZER.end] if has_end else [])]
    padded = np.zeros((1, WINDOW), "int32")
    padded[0, : len(whole)] = whole
    logits = np.array(network.compute_all(padded))[0]
    logits[:, [0, 1, TOKENIZER.begin]] = -1e9
    logs = np.array(ops.log_softmax(logits))
    return float(sum(logs[place - 1, whole[place]] for place in range(len(start), len(whole))))


@pytest.mark.slow
def test_as_many_beams_as_texts_find_the_best_one() -> None:
    network = make_network(FAMILIES["lstm"])
    letters = range(2, TOKENIZER.inner_size)
    texts: list[tuple[tuple[int, ...], bool]] = [((), True), *(((a,), True) for a in letters)]
    texts += [((a, b), False) for a in letters for b in letters]

    def rate(text: tuple[tuple[int, ...], bool]) -> float:
        return score(network, "ab", *text) / (len(text[0]) + text[1])

    best = max(texts, key=rate)
    found = BeamSearch(network, TOKENIZER, WINDOW, len(texts), 1.0, True).search("ab", 2)[0]
    assert (found.ids, found.has_end) == best
    assert found.score == pytest.approx(rate(best), rel=1e-4)


def test_one_beam_is_greedy() -> None:
    network = make_network(FAMILIES["rotary"])
    greedy = Writer(network, TOKENIZER, WINDOW, Sampling(0.0)).write(["ab"], TextLimits(10), 0)[0]
    beam = BeamSearch(network, TOKENIZER, WINDOW, 1, 1.0, True).search("ab", 10)[0]
    assert TOKENIZER.decode(np.array(beam.ids)) == greedy.text


def test_a_text_ends_before_what_it_is_to_stop_at() -> None:
    writer = Writer(make_network(FAMILIES["gru"], ends=False), TOKENIZER, WINDOW, Sampling())
    whole = writer.write([""], TextLimits(60), 3)[0]
    stop = whole.text[10:12]
    pieces: list[str] = []
    cut = writer.write([""], TextLimits(60, (stop,)), 3, on_text=lambda position, piece: pieces.append(piece))[0]
    assert cut.ending == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert "".join(pieces) == cut.text


def test_what_is_shown_while_a_text_is_written_is_the_text(network: IncrementalNetwork) -> None:
    shown = dict.fromkeys(range(len(PROMPTS)), "")

    def show(position: int, piece: str) -> None:
        shown[position] += piece

    texts = Writer(network, TOKENIZER, WINDOW, Sampling()).write(PROMPTS, TextLimits(40), 1, on_text=show)
    assert list(shown.values()) == [text.text for text in texts]


WORDS = tokens.fit(
    TokensField().check({"kind": "words", "min_count": 1}), Normalization(), ["go left, then turn right now"], "written"
)


@pytest.mark.parametrize(("prompt", "joint"), [("go left,", " "), ("go left, ", ""), ("", "")])
def test_a_word_follows_its_prompt_behind_one_blank(prompt: str, joint: str) -> None:
    network = make_network(FAMILIES["gru"], ends=False, tokenizer=WORDS)
    pieces: list[str] = []
    writer = Writer(network, WORDS, WINDOW, Sampling())
    sampled = writer.write([prompt], TextLimits(4), 3, on_text=lambda position, piece: pieces.append(piece))[0]
    best = BeamSearch(network, WORDS, WINDOW, 2, 1.0, True).search(prompt, 4)[0]
    beam = end_text(WORDS, prompt, best.ids, best.has_end, TextLimits(4))
    assert "".join(pieces) == sampled.text
    for text in (sampled.text, beam.text):
        assert text == joint + " ".join(text.split())
        ids, _ = WORDS.encode_flat([prompt + text])
        assert WORDS.unknown not in ids
        assert len(ids) == len(prompt.split()) + 4
    stopped = writer.write([prompt], TextLimits(4, (" ",)), 3)[0]
    assert stopped.text == joint + sampled.text.split()[0]


def test_a_layer_that_looks_at_several_steps_is_not_cached() -> None:
    """A causal convolution is computed as a whole, because one step alone would give something else."""

    def convolve(steps: Any, mask: Any) -> Any:
        return keras.layers.Conv1D(16, 3, padding="causal")(steps)

    writer = Writer(make_network(convolve, ends=False), TOKENIZER, WINDOW, Sampling(0.0))
    assert not writer.is_cached
    assert writer.write(["ab"], TextLimits(5), 0)[0].tokens == 5
