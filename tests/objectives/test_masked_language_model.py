from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from bmcli import inputs, parts, tokens
from bmcli.answers.masked_language import MaskedLanguageAnswers
from bmcli.errors import BmcliError, RunFailed
from bmcli.models import Features
from bmcli.objectives import Batch, LearnedTarget, masked_language_model
from bmcli.objectives.masked_language_model import MaskedLanguageModel
from bmcli.recipe.fields import PartField
from bmcli.specs import Column
from bmcli.token_ids import FIRST_TOKEN
from bmcli.training.augmentation import StatelessRandom

TEXTS = ["the cat sat on the mat", "", "a dog", "on a mat the dog sat and the cat sat on the dog", "x"]


def make_column(name: str = "text", kind: str = "words", **options: Any) -> Column:
    tokenizer = {"kind": kind, **({"min_count": 1} if kind == "words" else {})}
    described = {"kind": "text", "encoding": "sequence", "mask": True, "tokens": tokenizer, "length": 16, **options}
    column: Column = parts.load("inputs", "text").fit(
        name, pa.chunked_array([TEXTS]), PartField("inputs").check(described)
    )
    return column


def encode(column: Column) -> np.ndarray:
    return np.asarray(inputs.kind_of(column).encode(pa.chunked_array([TEXTS]), column))


def make_options(**options: Any) -> Any:
    return PartField("objectives").check({"kind": "masked_language_model", **options})


def make_learned(column: Column | None = None, **options: Any) -> tuple[LearnedTarget, MaskedLanguageModel]:
    checked = make_options(**options)
    learned = masked_language_model.describe_inputs(checked, "hidden", [column or make_column()])
    return learned, masked_language_model.build(checked, *learned, None)


def prepare(objective: MaskedLanguageModel, ids: np.ndarray, training: bool = True, step: int = 0) -> Batch:
    draws = StatelessRandom(1, "training", step, len(ids), None)
    given = tf.constant(ids)
    return objective.prepare(Batch({"text": given}, {"text": given}), draws, training)


def read(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """What the network reads, and which tokens it has to find."""
    return batch.inputs["text"].numpy(), batch.target["hidden"].numpy()


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return encode(make_column())


@pytest.fixture(scope="module")
def logits(ids: np.ndarray) -> np.ndarray:
    tokenizer = tokens.from_state(make_learned()[0].target.state)
    return np.random.default_rng(1).normal(size=(*ids.shape, tokenizer.inner_size)).astype("float32")


def test_the_mask_is_one_more_embedding() -> None:
    masked, plain = make_column(), make_column(mask=False)
    size = tokens.from_state(plain.state["tokenizer"]).inner_size
    for column, expected in ((plain, size), (masked, size + 1)):
        given = keras.Input(column.shape, dtype="int32")
        feature = inputs.kind_of(column).build_feature(column, given)
        (table,) = keras.Model(given, feature.tensor).weights
        assert table.shape == (expected, 64)
    assert encode(masked).tolist() == encode(plain).tolist()


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_eight_of_ten_hidden_tokens_are_masked_one_is_another_and_one_stays(rate: float) -> None:
    learned, objective = make_learned(rate=rate)
    tokenizer = tokens.from_state(learned.target.state)
    given = np.random.default_rng(0).integers(FIRST_TOKEN, tokenizer.inner_size, (500, 100)).astype("int32")
    shown, hidden = read(prepare(objective, given))
    assert hidden.mean() == pytest.approx(rate, abs=0.005)
    assert (shown == given)[~hidden].all()
    found, was = shown[hidden], given[hidden]
    assert np.mean(found == tokenizer.mask) == pytest.approx(0.8, abs=0.015)
    # A random token is the same one by chance.
    others = tokenizer.inner_size - FIRST_TOKEN
    assert np.mean(found == was) == pytest.approx(0.1 + 0.1 / others, abs=0.015)
    drawn = found[(found != was) & (found != tokenizer.mask)]
    assert set(drawn.tolist()) == set(range(FIRST_TOKEN, tokenizer.inner_size))


def test_neither_padding_nor_unknown_tokens_are_hidden(ids: np.ndarray) -> None:
    _, objective = make_learned(rate=0.9)
    for training in (True, False):
        shown, hidden = read(prepare(objective, ids, training))
        assert hidden.any()
        assert not hidden[ids < FIRST_TOKEN].any()
        assert (shown == ids)[ids < FIRST_TOKEN].all()


def test_each_step_hides_other_tokens_and_the_same_again(ids: np.ndarray) -> None:
    _, objective = make_learned(rate=0.5)
    first, again, later = (read(prepare(objective, ids, step=step))[1] for step in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()


def test_measured_tokens_depend_on_the_text_alone(ids: np.ndarray) -> None:
    learned, objective = make_learned()
    mask = tokens.from_state(learned.target.state).mask
    shown, hidden = read(prepare(objective, ids, training=False))
    for step, order in ((5, [3, 0, 1]), (7, [1, 4, 3])):
        other, places = read(prepare(objective, ids[order], False, step))
        np.testing.assert_array_equal(other, shown[order])
        np.testing.assert_array_equal(places, hidden[order])
    assert (shown[hidden] == mask).all()
    known = (ids >= FIRST_TOKEN).any(axis=1)
    np.testing.assert_array_equal(hidden.any(axis=1), known)
    np.testing.assert_array_equal(objective.prepare_prediction({"text": tf.constant(ids)})["text"], shown)


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_measured_tokens_are_a_share_in_even_distances(rate: float) -> None:
    _, objective = make_learned(rate=rate)
    given = np.random.default_rng(0).integers(FIRST_TOKEN, 8, (50, 200)).astype("int32")
    hidden = read(prepare(objective, given, training=False))[1]
    np.testing.assert_array_equal(hidden.sum(axis=1), np.full(50, round(200 * rate)))
    assert len({row.tobytes() for row in hidden}) > 1
    gaps = np.concatenate([np.diff(np.flatnonzero(row)) for row in hidden])
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_whole_words_are_hidden_together(training: bool) -> None:
    column = make_column(kind="characters", length=60)
    given = encode(column)
    learned, words = make_learned(column, rate=0.4, whole_words=True)
    _, letters = make_learned(column, rate=0.4)
    space = given[0, 3]
    assert tokens.from_state(learned.target.state).decode(given[0, 3:4]) == " "
    number = np.cumsum(given == space, axis=1)

    def count_parts(objective: MaskedLanguageModel) -> int:
        """Count the words of which some letters are hidden, and others not."""
        hidden = read(prepare(objective, given, training))[1]
        shares = [
            hidden[row, (number[row] == each) & (given[row] != 0)].mean()
            for row, text in enumerate(TEXTS)
            for each in range(len(text.split()))
        ]
        assert 0 < sum(share > 0 for share in shares) < len(shares)
        return sum(0 < share < 1 for share in shares)

    assert count_parts(words) == 0
    assert count_parts(letters) > 0


@pytest.mark.parametrize("kind", ["bytes", "unigram"])
def test_a_word_begins_with_its_space(kind: str) -> None:
    if kind == "unigram":
        pytest.importorskip("tensorflow_text", reason="the extra `text`")
    learned, _ = make_learned(make_column(kind=kind, length=60))
    tokenizer = tokens.from_state(learned.target.state)
    starts = masked_language_model.find_word_starts(tokenizer)
    assert starts[-1] == tokenizer.mask
    spaced = {tokenizer.get_token(each)[0] for each in starts[:-1]}
    assert spaced <= {" ", "\u2581", "<"}
    assert len(starts) < tokenizer.inner_size / 2


def test_whole_words_change_nothing_for_words() -> None:
    with pytest.raises(BmcliError, match="are whole words, so that `whole_words` changes nothing"):
        make_learned(whole_words=True)


def test_the_loss_is_the_cross_entropy_of_hidden_tokens_alone(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned(rate=0.4)
    target = prepare(objective, ids).target
    hidden = target["hidden"].numpy()
    losses, units = objective.loss(target, tf.constant(logits)).numpy(), objective.count_units(target).numpy()
    logs = log_softmax(logits.astype("float64"), axis=-1)
    for row, places in enumerate(hidden):
        expected = -sum(logs[row, step, ids[row, step]] for step in np.flatnonzero(places))
        assert losses[row] == pytest.approx(expected, rel=1e-5)
        assert units[row] == places.sum()
    changed = logits.copy()
    changed[~hidden] += np.random.default_rng(0).normal(size=(int((~hidden).sum()), logits.shape[-1]))
    np.testing.assert_array_equal(objective.loss(target, tf.constant(changed)), losses)


def test_predictions_give_the_loss_of_a_measurement_and_the_filled_text(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned(rate=0.4)
    batch = prepare(objective, ids, training=False)
    hidden = batch.target["hidden"].numpy()
    found = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(ids)}).numpy()
    assert ((found[:, :, 0] != 0) == hidden).all()
    losses = objective.loss(batch.target, tf.constant(logits))
    np.testing.assert_allclose(-found[:, :, 0].sum(axis=1), losses, rtol=1e-5)
    np.testing.assert_array_equal(found[:, :, 1], np.where(hidden, logits.argmax(axis=-1), ids))


def test_a_text_with_masks_has_these_alone_filled(ids: np.ndarray, logits: np.ndarray) -> None:
    learned, objective = make_learned(rate=0.4)
    given = ids.copy()
    given[:, 1] = tokens.from_state(learned.target.state).mask
    np.testing.assert_array_equal(objective.prepare_prediction({"text": tf.constant(given)})["text"], given)
    found = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(given)}).numpy()
    best = log_softmax(logits[:, 1], axis=-1).max(axis=-1)
    np.testing.assert_allclose(found[:, 1, 0], best, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1, 1], logits[:, 1].argmax(axis=-1))
    assert (np.delete(found[:, :, 0], 1, axis=1) == 0).all()


def test_half_precision_is_converted_before_the_softmax(ids: np.ndarray, logits: np.ndarray) -> None:
    _, objective = make_learned()
    half = tf.cast(logits, tf.bfloat16)
    assert objective.loss(prepare(objective, ids).target, half).dtype == tf.float32
    assert objective.predict_inputs(half, {"text": tf.constant(ids)}).dtype == tf.float32


def test_the_metric_of_the_training_is_that_of_the_evaluation(ids: np.ndarray, logits: np.ndarray) -> None:
    learned, objective = make_learned(rate=0.5)
    batch = prepare(objective, ids, training=False)
    metric = objective.metrics()["token_accuracy"]
    seen = objective.predict_inputs(tf.constant(logits), batch.inputs)
    metric.update(batch.target, seen, tf.constant([1.0, 1.0, 0.0, 1.0, 1.0]))
    kept = [0, 1, 3, 4]
    predictions = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(ids)}).numpy()
    answers = MaskedLanguageAnswers(*learned)
    expected = answers.make_weighted_metrics(ids[kept], predictions[kept], 5).measure(4)[0]
    assert float(metric.keras_metric.result()) == pytest.approx(expected["token_accuracy"], rel=1e-6)


def test_metrics_are_sums_over_hidden_tokens() -> None:
    learned, _ = make_learned()
    answers = MaskedLanguageAnswers(*learned)
    truth = np.array([[2, 3, 4, 0], [5, 2, 0, 0]])
    logs = np.log(np.array([[0.25, 1, 0.5, 1], [1, 0.125, 1, 1]]))
    predictions = np.stack([logs, [[2, 3, 9, 0], [5, 2, 0, 0]]], axis=-1)
    found = answers.make_weighted_metrics(truth, predictions, 5)
    assert found.measure(2)[0] == pytest.approx({"bits_per_token": 2.0, "perplexity": 4.0, "token_accuracy": 2 / 3})
    weighted = found.compute(np.array([[2.0], [1.0]]))
    assert float(weighted["bits_per_token"][0]) == pytest.approx(9 / 5)
    assert float(weighted["token_accuracy"][0]) == pytest.approx(3 / 5)


def test_the_baseline_knows_the_share_of_each_token(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    baseline = MaskedLanguageAnswers(*learned).measure_baseline(ids, 5)
    shares = np.unique(ids[ids >= FIRST_TOKEN], return_counts=True)[1] / (ids >= FIRST_TOKEN).sum()
    assert baseline.metrics["bits_per_token"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert baseline.metrics["token_accuracy"] == pytest.approx(shares.max())


def test_the_figure_has_the_accuracy_of_frequent_and_of_rare_tokens() -> None:
    learned, _ = make_learned()
    answers = MaskedLanguageAnswers(*learned)
    size = answers.tokenizer.inner_size
    truth = np.array([[2] * 6 + [3] * 5 + list(range(4, size))])
    logs = np.full(truth.shape, np.log(0.5))
    predictions = np.stack([logs, np.where(truth <= 3, truth, 0)], axis=-1)
    (table,) = answers.list_figures(truth, predictions, None)
    counted = 11 + min(8, size - 4)
    assert table.rows[0] == ("1 to 10", pytest.approx(counted), pytest.approx(11 / counted), pytest.approx(1.0))
    assert sum(row[1] for row in table.rows) == truth.size


def test_predicted_texts_are_filled(ids: np.ndarray, logits: np.ndarray) -> None:
    learned, objective = make_learned()
    answers = MaskedLanguageAnswers(*learned)
    predictions = objective.predict_inputs(tf.constant(logits), {"text": tf.constant(ids)}).numpy()
    columns = answers.make_columns(predictions).columns
    assert list(columns) == ["hidden_filled", "hidden_bits_per_token"]
    filled = columns["hidden_filled"].to_pylist()
    assert filled[1] == "\N{REPLACEMENT CHARACTER}"
    assert filled[0] != TEXTS[0]
    assert len(filled[0].split()) == len(TEXTS[0].split())


def test_predictions_that_are_not_finite_are_refused(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    predictions = np.zeros((*ids.shape, 2))
    predictions[2, 1] = np.nan
    with pytest.raises(RunFailed, match="not finite"):
        MaskedLanguageAnswers(*learned).check(ids, predictions)


def test_a_head_has_a_logit_for_each_token_but_the_mask() -> None:
    learned, _ = make_learned()
    output = masked_language_model.build_head(make_options(), learned.target, Features(keras.Input((6, 4))))
    assert output.shape == (None, 6, tokens.from_state(learned.target.state).inner_size)
    assert output.dtype == "float32"


def test_a_text_needs_a_mask() -> None:
    with pytest.raises(BmcliError, match="no input is one") as caught:
        masked_language_model.describe_inputs(make_options(), "hidden", [make_column(mask=False)])
    assert caught.value.faults[0].suggestion == "Write it as {kind: text, encoding: sequence, mask: true}."


def test_a_mask_needs_a_sequence() -> None:
    with pytest.raises(Exception, match="`mask` has no effect without `encoding: sequence`"):
        PartField("inputs").check({"kind": "text", "mask": True})


def test_one_of_two_texts_is_chosen() -> None:
    both = [make_column("title"), make_column("body")]
    with pytest.raises(BmcliError, match="learns from one text, but 'title', 'body' have a mask token"):
        masked_language_model.describe_inputs(make_options(), "hidden", both)
    chosen = masked_language_model.describe_inputs(make_options(input="body"), "hidden", both)
    assert chosen.output.inputs == ("body",)


def test_a_truth_is_read_from_the_inputs(ids: np.ndarray) -> None:
    learned, _ = make_learned()
    answers = MaskedLanguageAnswers(*learned)
    assert answers.format_value(answers.decode({"text": ids})[0]) == TEXTS[0]
