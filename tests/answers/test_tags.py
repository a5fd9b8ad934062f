"""Answers that are a tag for each word: metrics of words and of whole spans, and what people read."""

from __future__ import annotations

import numpy as np
import pytest
from nervaluate import Evaluator
from sklearn.metrics import accuracy_score, f1_score, precision_score

from bmcli.answers.figures import Table
from bmcli.answers.tags import TagAnswers
from bmcli.metrics.spans import read_span_tags
from bmcli.specs import Column, OutputSpec

BIO = ("B-city", "B-day", "I-city", "I-day", "O")
STEPS = 9


def answers_of(tags: tuple[str, ...] = BIO) -> TagAnswers:
    state = {"tags": list(tags), "columns": ["tags", "text"]}
    output = OutputSpec("tags", "tagging", (STEPS, len(tags) + 1), names=(*tags, ""), activation="softmax")
    return TagAnswers(output, Column("tags", "tags", (STEPS,), "int32", raw_dtype="string", state=state))


def draw_rows(count: int, tags: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw truth and predictions, of which about a half of the words are right."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, tags, (count, STEPS)).astype("int32")
    truth[np.arange(STEPS) >= draw.integers(1, STEPS + 1, (count, 1))] = -1
    predictions = draw.random((count, STEPS, tags + 1))
    predictions[..., -1] = 0
    predictions += 0.6 * np.eye(tags + 1)[truth] * (truth >= 0)[..., None]
    predictions[truth < 0] = np.eye(tags + 1)[-1]
    return truth, (predictions / predictions.sum(axis=-1, keepdims=True)).astype("float32")


def list_spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """List spans as conlleval does: word by word, by the tag before."""
    spans, kind, start = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and (prefix in "OBUS" or name != kind):
            spans.add((kind, start, place - 1))
            kind = ""
        if prefix != "O" and not kind:
            kind, start = name, place
        if prefix in ("L", "E", "U", "S"):
            spans.add((kind, start, place))
            kind = ""
    return spans


def test_metrics_of_words_are_those_of_scikit_learn() -> None:
    answers, (truth, predictions) = answers_of(), draw_rows(60, len(BIO))
    found = answers.make_weighted_metrics(truth, predictions, 1).measure(len(truth))[0]
    is_word, points = truth >= 0, answers.predict_points(predictions)
    assert found["token_accuracy"] == pytest.approx(accuracy_score(truth[is_word], points[is_word]))
    assert found["macro_f1"] == pytest.approx(f1_score(truth[is_word], points[is_word], average="macro"))
    assert 0.3 < found["token_accuracy"] < 0.9


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", BIO),
        ("BILOU", ("B-x", "I-x", "L-x", "O", "U-x", "U-y")),
        ("IOBES", ("B-x", "B-y", "E-x", "I-x", "O", "S-x")),
    ],
)
def test_whole_spans_are_those_of_conlleval(scheme: str, tags: tuple[str, ...]) -> None:
    answers, (truth, predictions) = answers_of(tags), draw_rows(80, len(tags), seed=3)
    assert answers.span_tags is not None
    assert answers.span_tags.scheme == scheme
    right = existing = predicted = 0
    for true, point in zip(truth, answers.predict_points(predictions), strict=True):
        length = int((true >= 0).sum())
        expected, received = (list_spans([tags[index] for index in row[:length]]) for row in (true, point))
        right, existing, predicted = (
            right + len(expected & received), existing + len(expected), predicted + len(received)
        )  # fmt: skip
    found = answers.make_weighted_metrics(truth, predictions, 1).measure(len(truth))[0]
    assert right > 10
    assert found["span_precision"] == pytest.approx(right / predicted)
    assert found["span_recall"] == pytest.approx(right / existing)
    assert found["span_f1"] == pytest.approx(2 * right / (predicted + existing))


def test_whole_spans_are_those_of_nervaluate() -> None:
    answers, (truth, predictions) = answers_of(), draw_rows(200, len(BIO), seed=5)
    points = answers.predict_points(predictions)
    # Both read an inside without its begin in ways of their own, so such tags are left out.
    _drop_lone_insides(truth)
    _drop_lone_insides(points)
    names = [*BIO, ""]
    lists = ([[names[tag] for tag in row[true >= 0]] for true, row in zip(truth, each, strict=True)]
             for each in (truth, points))  # fmt: skip
    expected = Evaluator(*lists, tags=["city", "day"], loader="list").evaluate()["overall"]["strict"]
    certain = np.eye(len(names), dtype="float32")[points]
    found = answers.make_weighted_metrics(truth, certain, 1).measure(len(truth))[0]
    assert 0.2 < expected.f1 < 0.9
    assert found["span_precision"] == pytest.approx(expected.precision)
    assert found["span_recall"] == pytest.approx(expected.recall)
    assert found["span_f1"] == pytest.approx(expected.f1)


def _drop_lone_insides(tags: np.ndarray) -> None:
    """Write O for each inside that does not follow its type."""
    for row in tags:
        for place, tag in enumerate(row):
            name = BIO[tag] if tag >= 0 else ""
            before = BIO[row[place - 1]] if place else "O"
            if name.startswith("I-") and before[2:] != name[2:]:
                row[place] = BIO.index("O")


@pytest.mark.parametrize(
    "tags", [("NOUN", "VERB"), ("B-x", "I-x"), ("I-x", "O"), ("B-x", "O", "X"), ("B-x", "E-x", "L-x", "O"), ("B-", "O")]
)
def test_other_tags_mark_no_spans(tags: tuple[str, ...]) -> None:
    assert read_span_tags(tags) is None


def test_weights_of_rows_count_as_copies_of_them() -> None:
    answers, (truth, predictions) = answers_of(), draw_rows(20, len(BIO))
    times = np.arange(20) % 3
    weighted = answers.make_weighted_metrics(truth, predictions, 1).compute(times[:, None].astype("float64"))
    rows = np.repeat(np.arange(20), times)
    copied = answers.make_weighted_metrics(truth[rows], predictions[rows], 1).measure(len(rows))[0]
    assert copied.keys() == answers.list_metrics(1).keys()
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(copied)


def test_precision_of_spans_is_undefined_where_none_is_predicted() -> None:
    answers, (truth, _) = answers_of(), draw_rows(5, len(BIO))
    nothing = np.broadcast_to(np.eye(6)[BIO.index("O")], (5, STEPS, 6))
    found, undefined = answers.make_weighted_metrics(truth, nothing, 1).measure(5)
    assert found["span_recall"] == found["span_f1"] == 0
    assert undefined == {"span_precision": "no span is predicted."}


def test_the_baseline_is_the_most_frequent_tag_of_words() -> None:
    truth = np.full((3, STEPS), -1)
    truth[0, :3], truth[1, :1], truth[2, :1] = [4, 4, 0], 4, 1
    baseline = answers_of().measure_baseline(truth, 1)
    assert (baseline.prediction, baseline.metrics["token_accuracy"]) == ("always 'O', the most frequent tag", 0.6)
    words = truth[truth >= 0]
    assert precision_score(words, np.full(5, 4), average="micro") == pytest.approx(0.6)


def test_people_read_tags_and_errors_by_tag_and_length() -> None:
    answers, (truth, predictions) = answers_of(), draw_rows(50, len(BIO))
    columns = answers.make_columns(predictions).columns
    assert [len(text.split()) for text in columns["tags"].to_pylist()] == (truth >= 0).sum(axis=1).tolist()
    tables = {each.title: each for each in answers.list_figures(truth, predictions, None) if isinstance(each, Table)}
    assert set(tables) == {"Errors by tag", "Accuracy by length", "Whole spans of BIO tags by type"}
    wrong = ((answers.predict_points(predictions) != truth) & (truth >= 0)).sum()
    assert sum(float(row[2]) for row in tables["Errors by tag"].rows) == wrong
    assert [row[0] for row in tables["Accuracy by length"].rows] == ["1 to 5", "6 to 10"]
    assert sum(float(row[2]) for row in tables["Accuracy by length"].rows) == (truth >= 0).sum()


def test_an_output_with_other_names_is_refused() -> None:
    answers = answers_of()
    answers.check_output()
    with pytest.raises(ValueError, match="a probability for each tag"):
        TagAnswers(OutputSpec("tags", "tagging", (STEPS, 6), names=(*BIO, "none")), answers.target).check_output()
