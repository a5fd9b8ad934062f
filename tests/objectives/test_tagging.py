"""A tag for each word: the loss counts words, and steps without a word have no part in it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError
from bmcli.models import Features
from bmcli.objectives import LearnedTarget, tagging
from bmcli.specs import Column

TAGS, STEPS = ("A", "B", "C"), 4
TRUTH = np.array([[0, 2, 1, 1], [1, -1, -1, -1]], "int32")


def column(tags: tuple[str, ...] = TAGS, steps: int = STEPS) -> Column:
    return Column("tags", "tags", (steps,), "int32", state={"tags": list(tags), "columns": ["tags", "text"]})


def build(**options: Any) -> tagging.Tagging:
    chosen, target = tagging.Options(**options), column()
    return tagging.build(chosen, tagging.describe(chosen, target), target, TRUTH)


def draw_outputs() -> np.ndarray:
    outputs = np.random.default_rng(0).normal(size=(2, STEPS, 4)).astype("float32")
    outputs[..., -1] = -30
    outputs[1, 1:] = [-30, -30, -30, 30]
    return outputs


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_sum_of_the_cross_entropies_of_words(smoothing: float) -> None:
    objective, outputs = build(label_smoothing=smoothing), draw_outputs()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction="none")
    every = loss(np.eye(3)[np.maximum(TRUTH, 0)], outputs[..., :3]).numpy()
    expected = [every[0].sum(), every[1, 0]]
    np.testing.assert_allclose(objective.loss(tf.constant(TRUTH), tf.constant(outputs)), expected, rtol=1e-5)
    np.testing.assert_array_equal(objective.count_units(tf.constant(TRUTH)), [4, 1])


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"class_weights": {"B": 3.0}}, [1.0, 3.0, 1.0]),
        # Of five words one is A, three are B, and one is C.
        ({"class_weights": "balanced"}, [5 / 3, 5 / 9, 5 / 3]),
        ({"class_weights": "effective", "beta": 0.5}, np.array([2, 8 / 7, 2]) * 3 / (4 + 8 / 7)),
    ],
)
def test_class_weights_weight_words_by_their_tags(options: dict[str, Any], weights: Any) -> None:
    outputs = draw_outputs()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    every = loss(np.maximum(TRUTH, 0), outputs[..., :3]).numpy() * np.asarray(weights)[TRUTH] * (TRUTH >= 0)
    np.testing.assert_allclose(
        build(**options).loss(tf.constant(TRUTH), tf.constant(outputs)), every.sum(axis=1), rtol=1e-5
    )


def test_a_weight_of_no_tag_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="there is no class 'D'") as caught:
        build(class_weights={"D": 2.0})
    assert caught.value.faults[0].path == "objective.class_weights.D"


def test_steps_without_a_word_get_no_gradient() -> None:
    outputs = tf.Variable(draw_outputs())
    with tf.GradientTape() as tape:
        loss = build().loss(tf.constant(TRUTH), outputs)
    gradient = tape.gradient(loss, outputs).numpy()
    assert np.abs(gradient[1, 1:]).max() == 0
    assert (np.abs(gradient[0]).sum(axis=-1) > 0.01).all()


def test_the_head_gives_no_word_where_the_text_has_ended() -> None:
    steps, mask = keras.Input((STEPS, 5)), keras.Input((STEPS,), dtype="bool")
    head = tagging.build_head(tagging.Options(), column(), Features(steps, mask))
    model = keras.Model([steps, mask], head)
    outputs = model([np.random.default_rng(1).normal(size=(2, STEPS, 5)), TRUTH >= 0])
    found = build().predict(outputs).numpy().argmax(axis=-1)
    np.testing.assert_array_equal(found == 3, TRUTH < 0)
    decisions = build().serve(build().predict(outputs), "decision").numpy()
    assert [len(text.split()) for text in decisions] == [4, 1]


def test_a_network_with_another_number_of_steps_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="up to 4 tags, but the network 6 steps"):
        tagging.build_head(tagging.Options(), column(), Features(keras.Input((6, 5))))


def test_training_measures_the_share_of_right_words() -> None:
    (metric,) = build().metrics().values()
    predictions = np.eye(4)[[[0, 2, 0, 0], [1, 3, 3, 3]]]
    metric.update(tf.constant(TRUTH), tf.constant(predictions, "float32"))
    assert float(metric.keras_metric.result()) == pytest.approx(3 / 5)
    metric.update(tf.constant(TRUTH), tf.constant(predictions, "float32"), tf.constant([0.0, 1.0]))
    assert float(metric.keras_metric.result()) == pytest.approx(4 / 6)


def test_a_teacher_with_more_tags_gives_those_of_its_student() -> None:
    def learned(target: Column) -> LearnedTarget:
        return LearnedTarget(tagging.describe(tagging.Options(), target), target)

    convert = tagging.convert_teacher(learned(column()), learned(column(("X", "C", "B", "A"))))
    np.testing.assert_array_equal(convert(tf.constant([[[9.0, 3.0, 2.0, 1.0, -30.0]]])), [[[1, 2, 3, -30]]])
    with pytest.raises(ValueError, match="does not know the class 'C'"):
        tagging.convert_teacher(learned(column()), learned(column(("A", "B"))))
    with pytest.raises(ValueError, match="up to 7 words, its student up to 4"):
        tagging.convert_teacher(learned(column()), learned(column(steps=7)))


def test_the_weight_is_kept_beside_the_loss() -> None:
    plain, heavy = build(), build(weight=3.0)
    assert (plain.weight, heavy.weight) == (1.0, 3.0)
    losses = [each.loss(tf.constant(TRUTH), tf.constant(draw_outputs())).numpy() for each in (plain, heavy)]
    np.testing.assert_array_equal(*losses)
