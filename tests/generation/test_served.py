"""The function of a SavedModel writes the texts of `bmcli generate`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bmcli import tokens
from bmcli.export.graph import list_resources
from bmcli.generation import Sampling, TextLimits
from bmcli.generation.sampling import to_tensors
from bmcli.generation.served import ServedStep, ServedWriter
from bmcli.generation.writer import Writer
from bmcli.normalization import Normalization
from bmcli.recipe.tokens import TokensField
from bmcli.tokenization.base import Tokenizer

from .test_writing import FAMILIES, SAMPLINGS, TOKENIZER, WINDOW, make_network

TEXTS = ["the cat sat on the mat.\n", "über größe", "\N{SNOWMAN} 雪 the end"]
PROMPTS = ["the cat", "", "the ", "unknown \N{BLACK SPADE SUIT}", "over", "the cat sat on " * 40]
KINDS = [
    "words", "characters", "bytes",
    *(
        pytest.param({"kind": kind, "size": 290}, marks=pytest.mark.skipif(
            find_spec("tensorflow_text") is None, reason="needs the extra `text`"
        ), id=kind)
        for kind in ("bpe", "unigram")
    ),
]  # fmt: skip


def fit(kind: object) -> Tokenizer:
    return tokens.fit(TokensField().check(kind), Normalization(lowercase=False), TEXTS, "written")


def call(served: ServedWriter, prompts: list[str], count: int, sampling: Sampling, seed: int = 7) -> list[str]:
    inputs = {"prompt": tf.constant(prompts), "tokens": tf.constant(count), "seed": tf.constant(seed)}
    found = served.make_function()({**inputs, **to_tensors(sampling)._asdict()})
    return [text.decode() for text in found["text"].numpy()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokens_is_written_alike(kind: object) -> None:
    tokenizer = fit(kind)
    network = make_network(FAMILIES["rotary"], ends=False, tokenizer=tokenizer)
    for sampling in SAMPLINGS:
        expected = Writer(network, tokenizer, WINDOW, sampling).write(PROMPTS, TextLimits(2 * WINDOW), 7)
        found = call(ServedWriter(network, tokenizer, WINDOW, True), PROMPTS, 2 * WINDOW, sampling)
        assert found == [text.text for text in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_alike_until_the_end_of_each_text(family: str) -> None:
    network = make_network(FAMILIES[family])
    expected = Writer(network, TOKENIZER, WINDOW, Sampling()).write(PROMPTS, TextLimits(60), 3)
    assert len({text.tokens for text in expected}) > 1, "texts end at different places"
    assert call(ServedWriter(network, TOKENIZER, WINDOW, True), PROMPTS, 60, Sampling(), 3) == [
        t.text for t in expected
    ]


def test_a_text_does_not_depend_on_its_limit_or_on_others_after_it() -> None:
    served = ServedWriter(make_network(FAMILIES["gru"], ends=False), TOKENIZER, WINDOW, True)
    texts = call(served, PROMPTS, 40, Sampling())
    assert call(served, PROMPTS[:2], 40, Sampling()) == texts[:2]
    assert call(served, PROMPTS, 10, Sampling()) == [text[:10] for text in texts]
    assert call(served, PROMPTS, 0, Sampling()) == [""] * len(PROMPTS)


def test_what_is_saved_writes_the_same(tmp_path: Path) -> None:
    network = make_network(FAMILIES["lstm"])
    served = ServedWriter(network, TOKENIZER, WINDOW, True)
    module = tf.Module()
    module.parts = [*network.model.variables, *list_resources([served.encoder])]
    module.function = served.make_function()
    tf.saved_model.save(module, str(tmp_path), signatures={"generate": module.function.get_concrete_function()})
    sampling = to_tensors(SAMPLINGS[2])._asdict()
    loaded = tf.saved_model.load(str(tmp_path)).signatures["generate"]
    found = loaded(prompt=tf.constant(PROMPTS), tokens=tf.constant(30), seed=tf.constant(7), **sampling)
    assert [text.decode() for text in found["text"].numpy()] == call(served, PROMPTS, 30, SAMPLINGS[2])
    expected = Writer(network, TOKENIZER, WINDOW, SAMPLINGS[2]).write(PROMPTS, TextLimits(30), 7)
    assert found["tokens"].numpy().tolist() == [text.tokens for text in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_with_caches_give_the_logits_of_the_whole_sequence(family: str) -> None:
    network = make_network(FAMILIES[family])
    step = ServedStep(network, WINDOW)
    assert all(not each.numpy().any() for each in step.caches), "a client begins with zeros"
    names = [f"cache {number}" for number in range(len(step.caches))]
    function = step.make_function(names)
    ids = tf.random.stateless_uniform((3, WINDOW), (1, 2), 2, TOKENIZER.inner_size, tf.int32)
    caches = {name: tf.repeat(each, 3, axis=0) for name, each in zip(names, step.caches, strict=True)}
    expected = network.compute_all(ids).numpy()
    for position in range(WINDOW):
        outputs = function({"token": ids[:, position], "position": tf.constant(position), **caches})
        np.testing.assert_allclose(outputs["logits"], expected[:, position], atol=1e-5)
        caches = {name: outputs[name] for name in names}
