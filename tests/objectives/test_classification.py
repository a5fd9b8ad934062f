from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from sklearn import metrics

from bmcli.errors import BmcliError
from bmcli.models import Features
from bmcli.objectives import classification, name_metric
from bmcli.recipe import catalogue
from bmcli.recipe.fields import KerasObject, PartField
from bmcli.specs import Column

RANDOM = np.random.default_rng(0)
TWO, THREE = (Column("label", "category", (), "int32", classes=names) for names in (("no", "yes"), ("a", "b", "c")))

REQUIRED = {
    "precision_at_recall": {"recall": 0.5},
    "recall_at_precision": {"precision": 0.2},
    "sensitivity_at_specificity": {"specificity": 0.5},
    "specificity_at_sensitivity": {"sensitivity": 0.5},
    "top_k_categorical_accuracy": {"k": 2},
    "sparse_top_k_categorical_accuracy": {"k": 2},
}


def build(target: Column = THREE, train_targets: Any = None, **options: Any) -> classification.Classification:
    checked = PartField("objectives").check({"kind": "classification", **options})
    return classification.build(checked, classification.describe(checked, target), target, train_targets)


def rows(target: Column, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Classes and logits."""
    classes = len(target.classes)
    return RANDOM.integers(0, classes, count).astype("int32"), RANDOM.normal(size=(count, classes)).astype("float32")


def losses(objective: classification.Classification, truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return objective.loss(tf.constant(truth), tf.constant(logits)).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def expected(loss: str, truth: np.ndarray, logits: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """The definitions, in numpy."""
    p, count = softmax(logits), logits.shape[1]
    own = p[np.arange(len(truth)), truth]
    one_hot = np.eye(count)[truth]
    q = one_hot * (1 - smoothing) + smoothing / count
    margin, sign = logits[:, 1] - logits[:, 0], 2 * truth - 1
    powers = np.maximum(q, 1e-7)
    return {
        "sparse_categorical_crossentropy": lambda: -np.log(own),
        "categorical_crossentropy": lambda: -(q * np.log(p)).sum(-1),
        "categorical_focal_crossentropy": lambda: -(0.25 * q * (1 - p) ** 2 * np.log(p)).sum(-1),
        "categorical_generalized_cross_entropy": lambda: (1 - own**0.5) / 0.5,
        "categorical_hinge": lambda: np.maximum(0, np.max((1 - one_hot) * logits, -1) - (one_hot * logits).sum(-1) + 1),
        "kl_divergence": lambda: (powers * np.log(powers / p)).sum(-1),
        "mean_squared_error": lambda: ((q - p) ** 2).mean(-1),
        "mean_absolute_error": lambda: np.abs(q - p).mean(-1),
        "cosine_similarity": lambda: -(q * p).sum(-1) / np.linalg.norm(q, axis=-1) / np.linalg.norm(p, axis=-1),
        "binary_crossentropy": lambda: -(q * np.log(p)).sum(-1),
        "binary_focal_crossentropy": lambda: -(one_hot * (1 - p) ** 2 * np.log(p)).sum(-1),
        "hinge": lambda: np.maximum(0, 1 - sign * margin),
        "squared_hinge": lambda: np.maximum(0, 1 - sign * margin) ** 2,
    }[loss]()


LOSSES = sorted(classification._LOSSES)
SMOOTHABLE = sorted(set(LOSSES) - set(classification._CANNOT_SMOOTH) - {"binary_focal_crossentropy"})


def _pairs(losses: list[str]) -> list[Any]:
    """Each loss with the targets it is for."""
    return [
        pytest.param(loss, target, id=f"{loss}-{len(target.classes)}")
        for loss in losses
        for target in (TWO, THREE)
        if target is TWO or loss not in classification._FOR_TWO_CLASSES
    ]


@pytest.mark.parametrize(("loss", "target"), _pairs(LOSSES))
@pytest.mark.parametrize("count", [1, 3, 6])
def test_losses_are_those_of_the_definition(loss: str, target: Column, count: int) -> None:
    truth, logits = rows(target, count)
    computed = losses(build(target, loss=loss), truth, logits)
    assert (computed.shape, computed.dtype) == ((count,), np.float32)
    np.testing.assert_allclose(computed, expected(loss, truth, logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("loss", "target"), _pairs(SMOOTHABLE))
def test_smoothing_is_that_of_the_definition(loss: str, target: Column) -> None:
    truth, logits = rows(target)
    computed = losses(build(target, loss=loss, label_smoothing=0.1), truth, logits)
    np.testing.assert_allclose(computed, expected(loss, truth, logits, 0.1), rtol=1e-4, atol=1e-5)


def test_the_default_is_the_cross_entropy_with_and_without_smoothing() -> None:
    truth, logits = rows(THREE)
    for smoothing in (0.0, 0.2):
        computed = losses(build(label_smoothing=smoothing), truth, logits)
        np.testing.assert_allclose(computed, expected("categorical_crossentropy", truth, logits, smoothing), rtol=1e-5)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "categorical_hinge"])
def test_adding_a_number_to_all_logits_changes_nothing(loss: str) -> None:
    truth, logits = rows(TWO)
    objective = build(TWO, loss=loss)
    np.testing.assert_allclose(losses(objective, truth, logits), losses(objective, truth, logits + 7), atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_gradients_are_finite_where_probabilities_underflow(loss: str, size: float) -> None:
    output = tf.constant([[size, 0.0], [0.0, size], [-size, size]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        loss_values = build(TWO, loss=loss).loss(tf.constant([1, 1, 0]), output)
    assert np.isfinite(tape.gradient(loss_values, output)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_compiled_step_gives_the_same(loss: str) -> None:
    truth, logits = rows(TWO)
    objective = build(TWO, loss=loss, class_weights={"yes": 3})
    compiled = tf.function(objective.loss, jit_compile=True)(tf.constant(truth), tf.constant(logits))
    np.testing.assert_allclose(compiled, losses(objective, truth, logits), rtol=1e-4, atol=1e-6)


def test_half_precision_outputs_are_converted_to_float32() -> None:
    truth, logits = rows(THREE)
    output = tf.cast(logits, tf.bfloat16)
    assert build().loss(tf.constant(truth), output).dtype == tf.float32
    assert build().predict(output).dtype == tf.float32


def test_predictions_are_probabilities() -> None:
    _, logits = rows(THREE)
    np.testing.assert_allclose(build().predict(tf.constant(logits)), softmax(logits), rtol=1e-5)


def test_class_weights_are_factors() -> None:
    truth, logits = rows(THREE, 20)
    weighted = losses(build(class_weights={"b": 3, "c": 0.5}), truth, logits)
    np.testing.assert_allclose(weighted, losses(build(), truth, logits) * np.array([1, 3, 0.5])[truth], rtol=1e-6)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    train = np.repeat([0, 1, 2], [10, 3, 1])
    weights = build(train_targets=train, class_weights="balanced").class_weights
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=train), rtol=1e-6)


def test_effective_weights_are_those_of_the_paper() -> None:
    """Cui et al. 2019: (1 - beta) / (1 - beta^n), times what makes them add up to the number of classes."""
    counts = np.array([1000, 30, 1])
    train = np.repeat([0, 1, 2], counts)
    for beta in (0.9, 0.999, 0.999999):
        weights = build(train_targets=train, class_weights="effective", beta=beta).class_weights
        expected = (1 - beta) / (1 - beta**counts)
        np.testing.assert_allclose(weights, expected / expected.sum() * 3, rtol=1e-5)
    usual = build(train_targets=train, class_weights="effective").class_weights
    np.testing.assert_array_equal(
        usual, build(train_targets=train, class_weights="effective", beta=0.999).class_weights
    )


def test_effective_weights_go_from_none_to_balanced() -> None:
    train = np.repeat([0, 1, 2], [50, 30, 20])
    even = build(train_targets=train, class_weights="effective", beta=1e-6).class_weights
    np.testing.assert_allclose(even, 1, rtol=1e-4)
    inverse = build(train_targets=train, class_weights="effective", beta=1 - 1e-9).class_weights
    np.testing.assert_allclose(inverse * [50, 30, 20], inverse[0] * 50, rtol=1e-4)


def test_grades_can_be_classified() -> None:
    grades = Column("grade", "ordered", (), "int32", classes=("a", "b", "c"))
    truth, logits = rows(grades)
    np.testing.assert_array_equal(losses(build(grades), truth, logits), losses(build(THREE), truth, logits))


def test_a_weight_of_an_unknown_class_names_the_nearest() -> None:
    target = Column("label", "category", (), "int32", classes=("cat", "dog"))
    with pytest.raises(BmcliError, match="there is no class 'dgo'") as caught:
        build(target, class_weights={"dgo": 2})
    (fault,) = caught.value.faults
    assert (fault.path, fault.suggestion) == ("objective.class_weights.dgo", "Did you mean 'dog'?")


def test_classes_that_yaml_reads_as_numbers_are_found() -> None:
    target = Column("label", "category", (), "int32", classes=("0", "1"))
    np.testing.assert_array_equal(build(target, class_weights={1: 5}).class_weights, [1, 5])


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"loss": "poisson"}, ("loss",), "poisson does not suit classification"),
        (
            {"loss": {"kind": "categorical_crossentropy", "axis": 1}},
            ("loss",),
            "`axis` is always -1",
        ),
        ({"loss": "hinge", "label_smoothing": 0.1}, (), "hinge cannot smooth labels"),
        (
            {"loss": {"kind": "categorical_crossentropy", "label_smoothing": 0.1}, "label_smoothing": 0.1},
            (),
            "given twice",
        ),
        ({"label_smoothing": 1.0}, ("label_smoothing",), "less than 1"),
        ({"class_weights": "balance"}, ("class_weights",), "expected balanced, effective or weights by class"),
        ({"class_weights": {"a": -1}}, ("class_weights", "a"), "expected a number of at least 0"),
        ({"weight": 0}, ("weight",), "greater than 0"),
        ({"class_weights": "balanced", "beta": 0.9}, ("beta",), "`beta` does nothing without effective"),
        ({"class_weights": "effective", "beta": 1.0}, ("beta",), "less than 1"),
    ],
)
def test_a_wrong_option_is_a_fault(options: dict[str, Any], where: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        classification.Options(**options)
    assert caught.value.errors()[0]["loc"] == where


def test_every_keras_loss_is_classified() -> None:
    """A loss is either used rightly or refused, with what suits."""
    for loss in catalogue.list_kinds("losses"):
        if loss in LOSSES:
            assert classification.Options(loss=KerasObject(loss)).loss == KerasObject(loss)
        else:
            with pytest.raises(ValidationError, match=f"{loss} does not suit"):
                classification.Options(loss=KerasObject(loss))


def test_losses_for_two_classes_name_the_one_for_more() -> None:
    with pytest.raises(BmcliError, match="is for two classes, but target 'label' has 3") as caught:
        build(loss="binary_crossentropy")
    assert caught.value.faults[0].suggestion == "Use categorical_crossentropy."


def measured(target: Column, kind: str, truth: np.ndarray, logits: np.ndarray, **options: Any) -> float:
    objective = build(target)
    (measure,) = list(objective.metrics((KerasObject(kind, {**REQUIRED.get(kind, {}), **options}),)).values())[1:]
    measure.update(tf.constant(truth), objective.predict(tf.constant(logits)))
    return float(measure.keras_metric.result())


def test_two_classes_are_measured_by_the_second() -> None:
    truth, logits = rows(TWO, 200)
    predicted, p = logits.argmax(-1), softmax(logits)[:, 1]
    assert measured(TWO, "precision", truth, logits) == pytest.approx(metrics.precision_score(truth, predicted))
    assert measured(TWO, "recall", truth, logits) == pytest.approx(metrics.recall_score(truth, predicted))
    assert measured(TWO, "f1_score", truth, logits) == pytest.approx(metrics.f1_score(truth, predicted))
    assert measured(TWO, "binary_accuracy", truth, logits) == pytest.approx(np.mean(truth == predicted))
    assert measured(TWO, "auc", truth, logits) == pytest.approx(metrics.roc_auc_score(truth, p), abs=0.01)


def test_more_classes_are_measured_one_against_the_rest() -> None:
    truth, logits = rows(THREE, 200)
    predicted = logits.argmax(-1)
    macro = metrics.f1_score(truth, predicted, average="macro")
    assert measured(THREE, "f1_score", truth, logits) == pytest.approx(macro)
    sure = (softmax(logits)[:, 1] > 0.5).astype(int)
    expected_precision = metrics.precision_score(truth == 1, sure)
    assert measured(THREE, "precision", truth, logits, class_id=1) == pytest.approx(expected_precision)
    top = metrics.top_k_accuracy_score(truth, logits, k=2)
    assert measured(THREE, "sparse_top_k_categorical_accuracy", truth, logits) == pytest.approx(top)
    loss = metrics.log_loss(truth, softmax(logits))
    assert measured(THREE, "categorical_crossentropy", truth, logits) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two", "three"])
def test_every_suitable_metric_works_inside_a_compiled_step(target: Column) -> None:
    kinds = [
        kind
        for kind in classification._list_suitable_metrics(len(target.classes))
        if "k" not in REQUIRED.get(kind, {}) or target is THREE
    ]
    objective = build(target)
    configs = tuple(KerasObject(kind, REQUIRED.get(kind, {})) for kind in kinds)
    measures = objective.metrics(configs)
    assert list(measures) == ["accuracy", *map(name_metric, configs)]
    assert all(measure.keras_metric.variables for measure in measures.values())

    def update(truth: Any, logits: Any) -> None:
        for measure in measures.values():
            measure.update(truth, objective.predict(logits))

    truth, logits = rows(target, 50)
    results = []
    for compiled in (False, True):
        for measure in measures.values():
            measure.keras_metric.reset_state()
        tf.function(update, jit_compile=compiled)(tf.constant(truth), tf.constant(logits))
        results.append([np.asarray(measure.keras_metric.result()) for measure in measures.values()])
    assert all(result.shape == () for result in results[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_metrics_are_fresh_each_time() -> None:
    objective = build()
    first, second = (objective.metrics()["accuracy"].keras_metric for _ in range(2))
    first.update_state([0], [[1.0, 0, 0]])
    assert (float(first.result()), float(second.result())) == (1.0, 0.0)


def test_metrics_are_named_by_their_options() -> None:
    extra = (
        KerasObject("precision"),
        *(KerasObject("precision", {"class_id": each}) for each in range(2)),
        KerasObject("auc", {"curve": "PR", "num_thresholds": 50}),
        KerasObject("precision_at_recall", {"recall": 0.9}),
    )
    assert list(build().metrics(extra)) == [
        "accuracy", "precision", "precision_class_id_0", "precision_class_id_1", "auc_curve_PR_num_thresholds_50",
        "precision_at_recall_0.9",
    ]  # fmt: skip


def test_a_metric_that_is_listed_twice_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="auc is listed twice with the same options") as raised:
        build().metrics((KerasObject("auc"), KerasObject("precision"), KerasObject("auc")))
    assert raised.value.faults[0].path == "train.metrics.2"


# With "bad" first, the class that scikit-learn would take as the negative one.
LOANS = Column("status", "category", (), "int32", classes=("bad", "good"), class_counts=(1003, 2560))


@pytest.mark.parametrize(
    ("classes", "counts", "positive"),
    [
        (("bad", "good"), (1003, 2560), "bad"),
        (("bad", "good"), (30, 20), "good"),
        (("bad", "good"), (30, 30), "good"),
        # By convention, however many rows mean yes.
        (("no", "yes"), (10, 90), "yes"),
        (("0", "1"), (10, 90), "1"),
        (("False", "True"), (10, 90), "True"),
        (("oui", "non"), (90, 10), "oui"),
        (("yes", "maybe"), (90, 10), "maybe"),
    ],
)
def test_the_positive_class_is_the_one_that_means_yes_or_the_rarer_one(
    classes: tuple[str, str], counts: tuple[int, int], positive: str
) -> None:
    target = Column("status", "category", (), "int32", classes=classes, class_counts=counts)
    assert build(target).output.state == {"positive": positive}


@pytest.mark.parametrize(
    ("classes", "written", "positive"),
    [(("bad", "good"), "good", "good"), (("0", "1"), 0, "0"), (("false", "true"), False, "false"),
     (("False", "True"), True, "True"), (("bad", "good"), "Good", "good")],
)  # fmt: skip
def test_a_recipe_names_the_positive_class(classes: tuple[str, str], written: Any, positive: str) -> None:
    target = Column("status", "category", (), "int32", classes=classes, class_counts=(30, 70))
    assert build(target, positive=written).output.state == {"positive": positive}


@pytest.mark.parametrize(
    ("target", "named", "message", "suggestion"),
    [
        (LOANS, "godo", "target 'status' has no class 'godo'", "Did you mean 'good'?"),
        (LOANS, "xyz", "target 'status' has no class 'xyz'", "Known: bad, good."),
        (THREE, "a", "a positive class needs a category of two classes, but target 'label' has 3", "Leave it out."),
        (replace(LOANS, kind="ordered"), "bad", "has 2 ordered ones", "Leave it out."),
    ],
)
def test_a_positive_class_that_cannot_be_is_a_fault(target: Column, named: str, message: str, suggestion: str) -> None:
    with pytest.raises(BmcliError, match=message) as raised:
        build(target, positive=named)
    (found,) = raised.value.faults
    assert (found.path, found.suggestion) == ("objective.positive", suggestion)


@pytest.mark.parametrize("positive", ["bad", "good"])
def test_metrics_of_two_classes_are_those_of_the_positive_one(positive: str) -> None:
    truth, logits = rows(LOANS, 200)
    objective = build(LOANS, positive=positive)
    index = LOANS.classes.index(positive)
    is_positive, p = truth == index, softmax(logits)[:, index]
    is_predicted = logits.argmax(-1) == index
    names = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1_score": metrics.f1_score}
    measures = objective.metrics((*map(KerasObject, names), KerasObject("auc", {"curve": "PR"})))
    for measure in measures.values():
        measure.update(truth, objective.predict(logits))
    found = {name: float(measure.keras_metric.result()) for name, measure in measures.items()}
    for name, compute in names.items():
        assert found[name] == pytest.approx(compute(is_positive, is_predicted)), name
    assert found["auc_curve_PR"] == pytest.approx(metrics.average_precision_score(is_positive, p), abs=0.02)


@pytest.mark.parametrize("loss", sorted(classification._LOSSES))
def test_the_positive_class_changes_no_loss(loss: str) -> None:
    truth, logits = rows(LOANS, 20)
    bad, good = (losses(build(LOANS, loss=loss, positive=each), truth, logits) for each in ("bad", "good"))
    np.testing.assert_array_equal(bad, good)


@pytest.mark.parametrize("positive", ["bad", "good"])
def test_a_served_threshold_is_that_of_the_positive_class(positive: str) -> None:
    objective = build(LOANS, positive=positive)
    objective = objective.with_output(replace(objective.output, state={**objective.output.state, "threshold": 0.2}))
    p = np.array([[0.1, 0.9], [0.5, 0.5], [0.85, 0.15], [0.75, 0.25]], "float32")
    served = [each.decode() for each in objective.serve(tf.constant(p), "decision").numpy()]
    expected = ["good", "bad", "bad", "bad"] if positive == "bad" else ["good", "good", "bad", "good"]
    assert served == expected
    answers = classification.make_answers(objective.output, LOANS)
    assert [LOANS.classes[each] for each in answers.predict_points(p)] == expected
    assert answers.describe_decision() == f"'{positive}' if its probability is at least 0.2"


def test_directions_are_known() -> None:
    measures = build().metrics((KerasObject("categorical_crossentropy"), KerasObject("auc")))
    assert {name: m.direction for name, m in measures.items()} == {
        "accuracy": "max",
        "categorical_crossentropy": "min",
        "auc": "max",
    }


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("r2_score", {}, "r2_score does not suit target 'label' of kind category"),
        ("binary_accuracy", {}, "binary_accuracy does not suit target 'label'"),
        ("top_k_categorical_accuracy", {}, "k is 5, but 'label' has 3 classes"),
        ("auc", {"curve": "nope"}, "auc: "),
    ],
)
def test_a_metric_that_does_not_suit_is_a_fault(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        build().metrics((KerasObject("auc"), KerasObject(kind, options)))
    assert caught.value.faults[0].path == "train.metrics.1"


def test_a_head_has_a_logit_for_each_class() -> None:
    assert classification.build_head(classification.Options(), THREE, Features(keras.Input((5,)))).shape[1] == 3
