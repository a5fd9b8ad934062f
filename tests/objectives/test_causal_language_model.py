from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from bmcli import inputs, models, parts, tokens
from bmcli.answers.language import LanguageAnswers
from bmcli.errors import BmcliError, RunFailed
from bmcli.models import CAUSAL_STEPS, Features
from bmcli.networks.incremental import IncrementalNetwork
from bmcli.networks.nesting import find_boundaries
from bmcli.networks.network import Network, build_serving_model, load_serving_model, save_network
from bmcli.normalization import Normalization
from bmcli.objectives import LearnedTarget, causal_language_model
from bmcli.objectives.causal_language_model import CausalLanguageModel
from bmcli.recipe.fields import PartField
from bmcli.recipe.tokens import TokensField
from bmcli.specs import Column, DataSpec
from bmcli.windows import EncodedTarget

TEXTS = ["abba", "", "cab", "ba"]


def make_column(name: str = "text", end: bool = True) -> Column:
    import pyarrow as pa

    options = PartField("inputs").check({"kind": "text", "encoding": "written", **({} if end else {"end": False})})
    column: Column = parts.load("inputs", "text").fit(name, pa.chunked_array([TEXTS]), options)
    return column


def encode(column: Column) -> np.ndarray:
    import pyarrow as pa

    return np.asarray(inputs.kind_of(column).encode(pa.chunked_array([TEXTS]), column))


def make_options(**options: Any) -> Any:
    return PartField("objectives").check({"kind": "causal_language_model", **options})


def make_learned(**options: Any) -> tuple[LearnedTarget, CausalLanguageModel]:
    checked = make_options(**options)
    learned = causal_language_model.describe_inputs(checked, "next", [make_column()])
    return learned, causal_language_model.build(checked, *learned, None)


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return encode(make_column())


@pytest.fixture(scope="module")
def logits(ids: np.ndarray) -> np.ndarray:
    tokenizer = tokens.from_state(make_learned()[0].target.state)
    return np.random.default_rng(1).normal(size=(*ids.shape, tokenizer.size)).astype("float32")


def test_a_written_text_is_encoded_between_its_ends(ids: np.ndarray) -> None:
    tokenizer = tokens.from_state(make_learned()[0].target.state)
    assert ids.shape == (4, 6)
    assert (ids[:, 0] == tokenizer.begin).all()
    assert [tokenizer.decode(row) for row in ids] == TEXTS
    assert [row.tolist().index(tokenizer.end) for row in ids] == [5, 1, 4, 3]


def test_a_window_has_a_begin_and_no_end() -> None:
    column = make_column(end=False)
    tokenizer = tokens.from_state(column.state["tokenizer"])
    found = encode(column)
    assert found.shape == (4, 5)
    assert tokenizer.end not in found


def test_the_loss_is_the_cross_entropy_of_each_next_token(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned()
    losses = objective.loss({"text": tf.constant(ids)}, tf.constant(logits)).numpy()
    units = objective.count_units({"text": tf.constant(ids)}).numpy()
    for row, given in enumerate(ids):
        length = int((given != 0).sum())
        logs = log_softmax(logits[row].astype("float64"), axis=-1)
        expected = -sum(logs[step, given[step + 1]] for step in range(length - 1))
        assert losses[row] == pytest.approx(expected, rel=1e-5)
        assert units[row] == length - 1


def test_smoothed_labels_are_those_of_keras(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned(label_smoothing=0.2)
    found = objective.loss({"text": tf.constant(ids)}, tf.constant(logits)).numpy()
    one_hot = tf.one_hot(ids[:, 1:], logits.shape[-1])
    each = keras.losses.categorical_crossentropy(one_hot, logits[:, :-1], from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(found, np.sum(np.where(ids[:, 1:] != 0, each, 0), axis=1), rtol=1e-5)


def test_what_follows_padding_changes_nothing(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned()
    changed = logits.copy()
    changed[:, :-1][ids[:, 1:] == 0] += 7
    changed[:, -1] -= 3
    target = {"text": tf.constant(ids)}
    for compute in (objective.loss, lambda target, output: objective.predict_inputs(output, target)):
        np.testing.assert_array_equal(compute(target, tf.constant(logits)), compute(target, tf.constant(changed)))


def test_predictions_are_log_probabilities_and_give_the_loss(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned()
    found = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(ids)}).numpy()
    assert found.shape == (4, 5)
    assert ((found == 0) == (ids[:, 1:] == 0)).all()
    np.testing.assert_allclose(-found.sum(axis=1), objective.loss({"text": ids}, tf.constant(logits)), rtol=1e-5)


def test_half_precision_is_converted_before_the_softmax(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned()
    half = tf.cast(logits, tf.bfloat16)
    assert objective.loss({"text": tf.constant(ids)}, half).dtype == tf.float32
    assert objective.predict_inputs(half, {"text": tf.constant(ids)}).dtype == tf.float32


def test_the_metric_of_the_training_is_the_mean_over_tokens(ids: np.ndarray, logits: np.ndarray) -> None:
    learned, objective = make_learned()
    predictions = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(ids)})
    metric = objective.metrics()["bits_per_token"]
    metric.update({"text": tf.constant(ids)}, predictions, tf.constant([1.0, 1.0, 0.0, 1.0]))
    kept = [0, 1, 3]
    expected = LanguageAnswers(*learned).make_weighted_metrics(ids[kept], predictions.numpy()[kept], 5).measure(3)[0]
    assert float(metric.keras_metric.result()) == pytest.approx(expected["bits_per_token"], rel=1e-5)


def test_metrics_count_characters_bytes_and_tokens(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    answers = LanguageAnswers(*learned)
    predictions = np.where(ids[:, 1:] != 0, np.log(0.25), 0.0)
    found = answers.make_weighted_metrics(ids, predictions, 5).measure(4)[0]
    # 9 characters, and 4 ends; every token has 2 bits.
    assert found == pytest.approx(
        {"bits_per_character": 26 / 9, "bits_per_byte": 26 / 9, "bits_per_token": 2.0, "perplexity": 4.0}
    )
    weighted = answers.make_weighted_metrics(ids, predictions, 5).compute(np.array([[0.0], [0.0], [2.0], [0.0]]))
    assert float(weighted["bits_per_character"][0]) == pytest.approx(8 / 3)


def test_nothing_is_said_of_the_characters_of_unknown_words() -> None:
    import pyarrow as pa

    options = PartField("inputs").check({"kind": "text", "encoding": "written", "tokens": "words"})
    column: Column = parts.load("inputs", "text").fit("text", pa.chunked_array([["K S", "K S EH", "S K"]]), options)
    answers = LanguageAnswers(*causal_language_model.describe_inputs(make_options(), "next", [column]))
    truth = np.asarray(inputs.kind_of(column).encode(pa.chunked_array([["K S", "S EH"]]), column))
    predictions = np.where(truth[:, 1:] != 0, np.log(0.25), 0.0)
    known, _ = answers.make_weighted_metrics(truth[:1], predictions[:1], 5).measure(1)
    assert known["bits_per_character"] == pytest.approx(6 / 3)
    found, reasons = answers.make_weighted_metrics(truth, predictions, 5).measure(2)
    assert found == pytest.approx({"bits_per_token": 2.0, "perplexity": 4.0})
    assert set(reasons) == {"bits_per_character", "bits_per_byte"}
    assert "unknown to the model" in reasons["bits_per_byte"]


def test_the_baseline_knows_the_share_of_each_token(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    baseline = LanguageAnswers(*learned).measure_baseline(ids, 5)
    following = ids[:, 1:][ids[:, 1:] != 0]
    shares = np.unique(following, return_counts=True)[1] / len(following)
    assert baseline.metrics["bits_per_token"] == pytest.approx(-(shares * np.log2(shares)).sum())


def test_predictions_that_are_not_finite_are_refused(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    predictions = np.zeros((4, 5))
    predictions[2, 1] = np.nan
    with pytest.raises(RunFailed, match="not finite"):
        LanguageAnswers(*learned).check(ids, predictions)


def test_a_head_has_a_logit_for_each_token() -> None:
    learned, _ = make_learned()
    output = causal_language_model.build_head(make_options(), learned.target, Features(keras.Input((6, 4))))
    assert output.shape == (None, 6, tokens.from_state(learned.target.state).size)
    assert output.dtype == "float32"


def test_a_tied_head_needs_an_embedding() -> None:
    learned, _ = make_learned()
    with pytest.raises(BmcliError, match="no embedding of the tokens to share") as caught:
        causal_language_model.build_head(make_options(tied=True), learned.target, Features(keras.Input((6, 4))))
    assert caught.value.faults[0].path == "objective.tied"


def build_tied_network(family: str, **options: Any) -> tuple[Network, DataSpec]:
    learned, objective = make_learned()
    column = make_column()
    spec = DataSpec((column,), (), {"train": 4, "validation": 0, "test": 0}, "", "")
    keras.utils.set_random_seed(3)
    kind = parts.load("models", family)
    backbone = kind.build(kind.Options(**options), spec, (CAUSAL_STEPS,))
    features = backbone.features[CAUSAL_STEPS]
    logits = causal_language_model.build_head(make_options(tied=True), learned.target, features)
    model = models.create_keras_model(backbone.inputs, {"next": logits})
    boundaries = find_boundaries(model, {"next": features}, {"next": "steps"})
    network = Network(model, {"next": objective}, boundaries, {"next": ("text",)})
    return network, replace(spec, outputs=(learned.output,))


@pytest.mark.parametrize(("family", "options"), [
    ("transformer", {"width": 64, "depth": 1}), ("transformer", {"width": 8, "depth": 1, "heads": 2}),
    ("rnn", {"units": 8}),
])  # fmt: skip
def test_a_tied_head_shares_the_embedding_in_training_saving_and_writing(
    family: str, options: dict[str, Any], ids: np.ndarray, tmp_path: Path
) -> None:
    network, spec = build_tied_network(family, **options)
    model, size = network.model, tokens.from_state(make_learned()[0].target.state).size
    assert [weight.shape for weight in model.weights if size in weight.shape] == [(size, 64)]
    assert IncrementalNetwork(model, "text", "next").agrees()
    save_network(network, spec, tmp_path / "tied.keras")
    loaded = load_serving_model(tmp_path / "tied.keras")
    assert len(loaded.weights) == len(model.weights)
    texts = {"text": tf.constant([[text] for text in TEXTS])}
    before = build_serving_model(network, spec)(texts)["next"].numpy()
    np.testing.assert_array_equal(loaded(texts)["next"], before)
    # The one matrix is both of what is read and of what is predicted, after loading too.
    (kept,) = (weight for weight in loaded.weights if weight.shape == (size, 64))
    kept.assign(kept * 0)
    uniform = -np.log(size) * (ids[:, 1:] != 0)
    np.testing.assert_allclose(loaded(texts)["next"], uniform, rtol=1e-5)


def test_a_text_must_be_written() -> None:
    number = Column("width", "number", (1,), "float32")
    with pytest.raises(BmcliError, match="no input is one") as caught:
        causal_language_model.describe_inputs(make_options(), "next", [number])
    assert caught.value.faults[0].suggestion == "Write it as {kind: text, encoding: written}."


def test_one_token_has_none_after_it() -> None:
    with pytest.raises(BmcliError, match="reads 1 token of 'text', so there is none after it to predict"):
        causal_language_model.describe_inputs(make_options(), "next", [replace(make_column(), shape=(1,))])


def test_one_of_two_texts_is_chosen() -> None:
    both = [make_column("title"), make_column("body")]
    with pytest.raises(BmcliError, match="learns from one text, but 'title', 'body' are written"):
        causal_language_model.describe_inputs(make_options(), "next", both)
    assert causal_language_model.describe_inputs(make_options(input="body"), "next", both).output.inputs == ("body",)


def test_a_teacher_must_have_the_same_tokens() -> None:
    learned, _ = make_learned()
    assert causal_language_model.convert_teacher(learned, learned)(3) == 3
    tokenizer = tokens.fit(TokensField().check("characters"), Normalization(), ["xyz"], "written")
    other = learned._replace(target=Column("next", "tokens", (6,), "int32", state=tokenizer.to_state()))
    with pytest.raises(ValueError, match="other tokens"):
        causal_language_model.convert_teacher(learned, other)


def test_a_truth_is_read_from_the_inputs(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    encoded: EncodedTarget = {"text": ids}
    answers = LanguageAnswers(*learned)
    assert [answers.format_value(row) for row in answers.decode(encoded)] == TEXTS
