from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmcli.errors import BmcliError, RunFailed
from bmcli.evaluation import metrics
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.classification import ClassMetrics
from tests.evaluation.columns import answers_of, category, measure, metric_names, number
from tests.evaluation.samples import KINDS, TOP_K, case

TARGETS = (category("cat", "dog", name="animal"), number("age"))
TRUTH = {"animal": np.array([0, 1, 1]), "age": np.array([1.0, 2.0, 4.0])}
PREDICTIONS = {
    "animal": np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32),
    "age": np.array([1.0, 3.0, 4.0], np.float32),
}


def test_a_single_target_gives_bare_names() -> None:
    found = measure(TRUTH, PREDICTIONS, TARGETS[:1], 5)
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)


def test_several_targets_give_their_name_before_the_metric() -> None:
    found = measure(TRUTH, PREDICTIONS, TARGETS, 5)
    assert found.metrics["animal/accuracy"] == pytest.approx(2 / 3)
    assert found.metrics["age/mae"] == pytest.approx(1 / 3)
    assert set(found.per_class) == set(found.confusion) == {"animal"}
    assert found.count == 3
    assert tuple(found.metrics) == metric_names(TARGETS, 5)


def test_reasons_carry_the_name_of_their_target() -> None:
    one = {name: rows[:1] for name, rows in TRUTH.items()}
    found = measure(one, {name: rows[:1] for name, rows in PREDICTIONS.items()}, TARGETS, 5)
    assert {"animal/roc_auc", "animal/pr_auc", "age/r2"} <= set(found.undefined)
    assert set(found.undefined) | set(found.metrics) == set(metric_names(TARGETS, 5))


def test_names_of_metrics_follow_from_the_targets() -> None:
    assert metric_names((number(),), 5) == ("mae", "rmse", "r2")
    assert "top_5_accuracy" not in metric_names((category(*"abcde"),), 5)
    assert "top_5_accuracy" in metric_names((category(*"abcdef"),), 5)
    assert "top_2_accuracy" in metric_names((category(*"abcdef"),), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", ["animal", "age"])
def test_predictions_that_are_not_finite_are_refused(target: str, value: float) -> None:
    broken = PREDICTIONS[target].copy()
    broken[1] = value
    with pytest.raises(RunFailed, match=f"target '{target}': 1 of 3 predictions are not finite"):
        measure(TRUTH, {**PREDICTIONS, target: broken}, TARGETS, 5)


def test_no_rows_are_a_fault_of_the_split() -> None:
    with pytest.raises(BmcliError, match="no rows to evaluate") as caught:
        measure({"age": np.empty(0)}, {"age": np.empty(0)}, TARGETS[1:], 5)
    assert caught.value.faults[0].path == "evaluate.split"


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"predictions \(3, 2\), received \(3,\) and \(3,\)"):
        measure(TRUTH, {"animal": PREDICTIONS["age"]}, TARGETS[:1], 5)
    with pytest.raises(ValueError, match=r"predictions \(3,\), received \(3,\) and \(3, 1\)"):
        measure(TRUTH, {"age": PREDICTIONS["age"][:, None]}, TARGETS[1:], 5)


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities that add up to 1"):
        measure(TRUTH, {"animal": PREDICTIONS["animal"] * 5 - 2}, TARGETS[:1], 5)


@pytest.mark.parametrize("index", [-1, 2])
def test_indices_beyond_the_classes_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match="indices below 2"):
        measure({"animal": np.array([0, 1, index])}, PREDICTIONS, TARGETS[:1], 5)


def test_arrays_are_left_as_they_are() -> None:
    before = {name: rows.copy() for name, rows in PREDICTIONS.items()}
    for rows in PREDICTIONS.values():
        rows.flags.writeable = False
    measure(TRUTH, PREDICTIONS, TARGETS, 5)
    assert all(np.array_equal(before[name], rows) for name, rows in PREDICTIONS.items())


def test_an_evaluation_survives_json() -> None:
    found = measure(TRUTH, PREDICTIONS, TARGETS, 5)
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_json_names_classes_and_rows() -> None:
    written = measure(TRUTH, PREDICTIONS, TARGETS, 5).to_json()
    assert set(written) == {
        "count", "metrics", "undefined", "per_class", "confusion", "intervals", "without_interval", "calibration",
        "slices", "fairness", "baselines", "positive", "weight",
    }  # fmt: skip
    assert written["confusion"] == {"animal": [[1, 0], [1, 1]]}
    assert list(written["per_class"]["animal"][0]) == [
        "class", "precision", "recall", "f1", "support", "roc_auc", "pr_auc"
    ]  # fmt: skip


share = st.none() | st.floats(0, 1)
class_rows = st.builds(ClassMetrics, st.text(), share, share, share, st.integers(0, 10**9), share, share)
evaluations = st.builds(
    Evaluation,
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    per_class=st.dictionaries(st.text(), st.lists(class_rows, max_size=3).map(tuple), max_size=2),
    confusion=st.dictionaries(
        st.text(),
        st.lists(st.lists(st.integers(0), max_size=3).map(tuple), max_size=3).map(tuple),
        max_size=2,
    ),
    count=st.integers(1),
    undefined=st.dictionaries(st.text(), st.text()),
)


@settings(deadline=None, max_examples=50)
@given(evaluations)
def test_any_evaluation_survives_json(evaluation: Evaluation) -> None:
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False))) == evaluation


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_evaluation_holds_finite_metrics_only(value: float) -> None:
    with pytest.raises(ValueError, match="Expected finite metrics"):
        Evaluation({"accuracy": value}, {}, {}, 1)
    with pytest.raises(ValueError, match="Expected finite metrics"):
        Evaluation({}, {"label": (ClassMetrics("cat", None, value, None, 1, None, None),)}, {}, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_a_row_counts_like_as_many_equal_rows(kind: str) -> None:
    rows = case(kind, 60, 5)
    weights = np.random.default_rng(2).integers(0, 4, 60)
    name = rows.column.name
    answers = answers_of(rows.column, quantiles={name: rows.quantiles} if rows.quantiles else {})
    found = metrics.measure({name: rows.truth}, {name: rows.predictions}, answers, TOP_K, weights.astype("float32"))
    repeated = rows.take(np.repeat(np.arange(60), weights)).measured.metrics
    plain = {metric: value for metric, value in found.metrics.items() if "row_weighted_" not in metric}
    assert plain == rows.measured.metrics
    assert {metric: found.metrics[f"row_weighted_{metric}"] for metric in repeated} == pytest.approx(repeated)
    assert tuple(found.metrics) == tuple(metrics.list_metrics(answers, TOP_K, has_row_weights=True))


def test_rows_that_all_weigh_nothing_have_no_weighted_metrics() -> None:
    answers = answers_of(number())
    found = metrics.measure({"price": np.arange(5.0)}, {"price": np.ones(5)}, answers, 5, np.zeros(5, "float32"))
    assert found.undefined == dict.fromkeys(
        ("row_weighted_mae", "row_weighted_rmse", "row_weighted_r2"), "every row has the weight 0."
    )


def test_several_targets_keep_their_names_before_weighted_metrics() -> None:
    names = metrics.list_metrics(answers_of(*TARGETS), 5, has_row_weights=True)
    assert {"animal/row_weighted_accuracy", "age/row_weighted_mae"} <= set(names)
