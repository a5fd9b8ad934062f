"""Laws of every loss between teacher and student."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.distillation.losses import LossInputs, OutputForm, TargetOutputs
from bmcli.recipe.fields import PartField

ROWS, WIDTH = 12, 4
KINDS = [kind for kind in parts.names("distillation.losses") if kind != "hard"]
OPTIONS: list[dict[str, Any]] = [
    {"kind": "soft"},
    {"kind": "soft", "divergence": "reverse"},
    {"kind": "soft", "divergence": "jensen_shannon"},
    {"kind": "logits"},
    {"kind": "feature"},
    {"kind": "attention"},
    {"kind": "relation"},
    {"kind": "dist"},
]
OF_OUTPUTS = [each for each in OPTIONS if parts.load("distillation.losses", each["kind"]).FORMS]


def given(form: OutputForm = "softmax", teachers: int = 1, seed: int = 1) -> LossInputs:
    """Outputs and layers of a student and its teachers, for any loss."""
    draw = np.random.default_rng(seed)

    def tensor(*shape: int) -> Any:
        return tf.constant(2 * draw.normal(size=shape), tf.float32)

    shares = tuple(np.array([0.75, 0.25] if teachers == 2 else [1.0]))
    outputs = TargetOutputs(tensor(ROWS, WIDTH), tensor(ROWS, teachers, WIDTH), shares, form, 1.0)
    layers = [(tensor(ROWS, 3, 3, 5), tensor(ROWS, 3, 3, 5))]
    return LossInputs(tensor(ROWS), {"label": outputs}, layers, tf.ones(ROWS), lambda value: value)


def loss(options: dict[str, Any], of: LossInputs) -> np.ndarray:
    checked = PartField("distillation.losses").check(options)
    return np.asarray(parts.load("distillation.losses", checked.kind).loss(checked, of))


def with_student(of: LossInputs, student: Any) -> LossInputs:
    return replace(of, outputs={"label": replace(of.outputs["label"], student=student)})


def agreeing(of: LossInputs) -> LossInputs:
    """The same with a student whose outputs are the teacher's."""
    layers = [(teacher, teacher) for _, teacher in of.layers]
    return replace(with_student(of, of.outputs["label"].teachers[:, 0]), layers=layers)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def test_every_kind_is_tried() -> None:
    assert {each["kind"] for each in OPTIONS} == set(KINDS)


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("options", [each for each in OF_OUTPUTS if each["kind"] != "dist"], ids=str)
def test_outputs_with_places_have_the_mean_loss_of_their_places(options: dict[str, Any], teachers: int) -> None:
    """Such as those of each token."""
    of, others = (given(teachers=teachers, seed=seed).outputs["label"] for seed in (1, 2))
    together = replace(
        of,
        student=tf.stack([of.student, others.student], axis=1),
        teachers=tf.stack([of.teachers, others.teachers], axis=2),
    )
    found, one, other = (loss(options, replace(given(), outputs={"label": each})) for each in (together, of, others))
    assert found.shape == (ROWS,)
    np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-5)


def test_correlations_are_between_the_classes_of_each_place() -> None:
    of = given().outputs["label"]
    twice = replace(of, student=tf.stack([of.student] * 2, axis=1), teachers=tf.stack([of.teachers] * 2, axis=2))
    found, one = (loss({"kind": "dist"}, replace(given(), outputs={"label": each})) for each in (twice, of))
    np.testing.assert_allclose(found, one, rtol=1e-5)


def given_places(places: int, seed: int = 1) -> TargetOutputs:
    """Outputs of some places, which weigh the same."""
    each = [given(seed=seed + place).outputs["label"] for place in range(places)]
    student = tf.stack([one.student for one in each], axis=1)
    return replace(each[0], student=student, teachers=tf.stack([one.teachers for one in each], axis=2))


def weigh(outputs: TargetOutputs, weights: Any) -> LossInputs:
    weighted = replace(outputs, places=None if weights is None else tf.constant(weights, tf.float32))
    return replace(given(), outputs={"label": weighted})


@pytest.mark.parametrize("options", OF_OUTPUTS, ids=str)
def test_padding_has_no_part_in_the_loss_of_an_example(options: dict[str, Any]) -> None:
    whole, strange = given_places(3), given_places(2, seed=8)
    padded = replace(
        whole,
        student=tf.concat([whole.student, 5 * strange.student], axis=1),
        teachers=tf.concat([whole.teachers, strange.teachers], axis=2),
    )
    alike, weighted, with_padding = (
        loss(options, each)
        for each in (
            weigh(whole, None),
            weigh(whole, np.full((ROWS, 3), 1 / 3)),
            weigh(padded, [[1 / 3] * 3 + [0, 0]] * ROWS),
        )
    )
    np.testing.assert_allclose(weighted, alike, rtol=1e-5)
    np.testing.assert_allclose(with_padding, weighted, rtol=1e-5)


@pytest.mark.parametrize("options", [each for each in OF_OUTPUTS if each["kind"] != "dist"], ids=str)
def test_an_example_weighs_as_much_as_it_has_places(options: dict[str, Any]) -> None:
    outputs, lengths = given_places(3), np.arange(ROWS) % 4
    is_there = np.arange(3) < lengths[:, None]
    found = loss(options, weigh(outputs, is_there * ROWS / is_there.sum()))
    by_place = np.stack(
        [
            loss(
                options,
                weigh(replace(outputs, student=outputs.student[:, n], teachers=outputs.teachers[:, :, n]), None),
            )
            for n in range(3)
        ],
        axis=1,
    )
    assert found.mean() == pytest.approx(by_place[is_there].mean(), rel=1e-5)
    assert not found[lengths == 0].any()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_loss_is_one_number_an_example_and_never_below_0(options: dict[str, Any]) -> None:
    values = loss(options, given())
    assert values.shape == (ROWS,)
    assert values.min() > 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_student_that_agrees_with_its_teacher_loses_nothing(options: dict[str, Any]) -> None:
    np.testing.assert_allclose(loss(options, agreeing(given())), 0, atol=2e-5)


@pytest.mark.parametrize("options", OF_OUTPUTS, ids=str)
def test_what_is_added_to_all_logits_of_an_example_changes_nothing(options: dict[str, Any]) -> None:
    plain = given()
    shift = tf.constant(np.linspace(-5, 9, ROWS)[:, None], tf.float32)
    said = plain.outputs["label"]
    moved = replace(said, student=said.student + shift, teachers=said.teachers - 2 * shift[:, None])
    np.testing.assert_allclose(
        loss(options, replace(plain, outputs={"label": moved})), loss(options, plain), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_example_of_weight_0_has_no_part_in_the_losses_of_others(options: dict[str, Any]) -> None:
    weights = np.ones(ROWS, "float32")
    weights[[2, 7]] = 0
    plain, other = given(), given(seed=2)

    def mixed(one: Any, two: Any) -> Any:
        return tf.where(tf.reshape(tf.constant(weights) > 0, [-1] + [1] * (len(one.shape) - 1)), one, two)

    said, strange = plain.outputs["label"], other.outputs["label"]
    exchanged = replace(
        said, student=mixed(said.student, strange.student), teachers=mixed(said.teachers, strange.teachers)
    )
    layers = [(mixed(a, c), mixed(b, d)) for (a, b), (c, d) in zip(plain.layers, other.layers, strict=True)]
    weighted = replace(plain, weights=tf.constant(weights))
    before = loss(options, weighted)
    after = loss(options, replace(weighted, outputs={"label": exchanged}, layers=layers))
    np.testing.assert_allclose(after[weights > 0], before[weights > 0], rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_are_finite_where_nothing_differs(options: dict[str, Any]) -> None:
    """All examples alike, and layers of zeros: no direction, no distance, no deviation."""
    plain = given()
    student, layer = tf.Variable(tf.zeros((ROWS, WIDTH))), tf.Variable(tf.zeros((ROWS, 3, 3, 5)))
    with tf.GradientTape() as tape:
        alike = replace(with_student(plain, student + 0.0), layers=[(layer + 0.0, plain.layers[0][1])])
        checked = PartField("distillation.losses").check(options)
        total = tf.reduce_sum(parts.load("distillation.losses", checked.kind).loss(checked, alike))
    found = [gradient for gradient in tape.gradient(total, [student, layer]) if gradient is not None]
    assert found
    assert all(np.isfinite(gradient.numpy()).all() for gradient in found)


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("options", OF_OUTPUTS, ids=str)
def test_the_loss_of_outputs_with_steps_is_the_mean_of_those_of_the_steps(
    options: dict[str, Any], teachers: int
) -> None:
    steps = [given(teachers=teachers, seed=seed) for seed in (1, 2, 3)]
    outputs = [each.outputs["label"] for each in steps]
    together = replace(
        outputs[0],
        student=tf.stack([each.student for each in outputs], axis=1),
        teachers=tf.stack([each.teachers for each in outputs], axis=2),
    )
    expected = np.mean([loss(options, each) for each in steps], axis=0)
    np.testing.assert_allclose(loss(options, replace(steps[0], outputs={"label": together})), expected, rtol=1e-4)


def test_soft_is_the_divergence_times_the_square_of_the_temperature() -> None:
    """14.2 nats where the default of keras.distillation, without softmax and square, gives 30.7."""
    plain, temperature = given(), 4.0
    said = plain.outputs["label"]
    teacher, student = (softmax(np.asarray(z) / temperature) for z in (said.teachers[:, 0], said.student))
    expected = temperature**2 * (teacher * np.log(teacher / student)).sum(axis=-1)
    np.testing.assert_allclose(loss({"kind": "soft", "temperature": temperature}, plain), expected, rtol=1e-4)


def test_the_size_of_gradients_stays_where_the_temperature_rises() -> None:
    """Section 2.1 of Hinton, Vinyals and Dean: at high temperatures the gradient is that of matching logits."""
    plain = given()
    student = tf.Variable(plain.outputs["label"].student)
    found = []
    for temperature in (100.0, 400.0):
        checked = PartField("distillation.losses").check({"kind": "soft", "temperature": temperature})
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(
                parts.load("distillation.losses", "soft").loss(checked, with_student(plain, student + 0.0))
            )
        found.append(tape.gradient(total, student).numpy())
    apart = student.numpy() - plain.outputs["label"].teachers[:, 0].numpy()
    np.testing.assert_allclose(found[1], (apart - apart.mean(axis=-1, keepdims=True)) / WIDTH, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(found[0], found[1], rtol=0.1, atol=0.05)


def test_the_divergence_can_be_turned_round_or_made_even() -> None:
    plain = given()
    said = plain.outputs["label"]
    teacher, student = (softmax(np.asarray(z) / 2) for z in (said.teachers[:, 0], said.student))
    middle = (teacher + student) / 2

    def kl(one: np.ndarray, other: np.ndarray) -> Any:
        return 4 * (one * np.log(one / other)).sum(axis=-1)

    reverse = loss({"kind": "soft", "temperature": 2.0, "divergence": "reverse"}, plain)
    even = loss({"kind": "soft", "temperature": 2.0, "divergence": "jensen_shannon"}, plain)
    np.testing.assert_allclose(reverse, kl(student, teacher), rtol=1e-4)
    np.testing.assert_allclose(even, (kl(teacher, middle) + kl(student, middle)) / 2, rtol=1e-4)


def test_labels_of_their_own_have_a_distribution_each() -> None:
    plain = given("sigmoid")
    said = plain.outputs["label"]
    teacher, student = (1 / (1 + np.exp(-np.asarray(z) / 3)) for z in (said.teachers[:, 0], said.student))
    both = teacher * np.log(teacher / student) + (1 - teacher) * np.log((1 - teacher) / (1 - student))
    np.testing.assert_allclose(loss({"kind": "soft", "temperature": 3.0}, plain), 9 * both.mean(axis=-1), rtol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_an_ensemble_has_the_mean_of_its_distributions_at_the_temperature(temperature: float) -> None:
    said = given(teachers=2).outputs["label"]
    each = softmax(np.asarray(said.teachers) / temperature)
    expected = 0.75 * each[:, 0] + 0.25 * each[:, 1]
    np.testing.assert_allclose(softmax(np.asarray(said.teacher(temperature)) / temperature), expected, rtol=1e-4)
    yes_or_no = replace(said, form="sigmoid")
    each = 1 / (1 + np.exp(-np.asarray(said.teachers) / temperature))
    found = 1 / (1 + np.exp(-np.asarray(yes_or_no.teacher(temperature)) / temperature))
    np.testing.assert_allclose(found, 0.75 * each[:, 0] + 0.25 * each[:, 1], rtol=1e-4)


def test_an_ensemble_has_the_mean_of_its_numbers() -> None:
    said = given("number", teachers=2).outputs["label"]
    each = np.asarray(said.teachers)
    np.testing.assert_allclose(np.asarray(said.teacher()), 0.75 * each[:, 0] + 0.25 * each[:, 1], rtol=1e-5)


def test_logits_of_numbers_are_their_squared_errors() -> None:
    plain = given("number")
    said = plain.outputs["label"]
    expected = np.square(np.asarray(said.student) - np.asarray(said.teachers[:, 0])).mean(axis=-1)
    np.testing.assert_allclose(loss({"kind": "logits"}, plain), expected, rtol=1e-5)


def test_attention_takes_layers_of_other_widths() -> None:
    plain = given()
    wide = tf.repeat(plain.layers[0][1], 3, axis=-1)  # the same places are strong
    np.testing.assert_allclose(
        loss({"kind": "attention"}, replace(plain, layers=[(wide, plain.layers[0][1])])), 0, atol=1e-6
    )


def test_relations_take_layers_of_any_size_and_scale() -> None:
    plain = given()
    rows = tf.reshape(plain.layers[0][1], (ROWS, -1))
    wide = tf.concat([3 * rows, tf.zeros((ROWS, 7))], axis=-1)
    np.testing.assert_allclose(loss({"kind": "relation"}, replace(plain, layers=[(wide, rows)])), 0, atol=1e-5)


def test_dist_is_one_less_the_correlations() -> None:
    plain = given()
    said = plain.outputs["label"]
    teacher, student = (softmax(np.asarray(z)) for z in (said.teachers[:, 0], said.student))
    between = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(teacher, student, strict=True)]
    within = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(teacher.T, student.T, strict=True)])
    np.testing.assert_allclose(
        loss({"kind": "dist", "within": 0.5}, plain), np.array(between) + 0.5 * within, rtol=1e-4
    )
