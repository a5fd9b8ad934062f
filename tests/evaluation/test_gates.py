from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bmcli.errors import BmcliError
from bmcli.evaluation.gates import Gate, check_names, find_missed_gates
from bmcli.recipe.schema import EvaluateOptions
from tests.evaluation.columns import category, metric_names, number

NAMES = metric_names((category(*"abc"),), 5)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        (">= 0.90", Gate(">=", 0.9)),
        (">=0.9", Gate(">=", 0.9)),
        ("<= 12", Gate("<=", 12.0)),
        ("> -1.5", Gate(">", -1.5)),
        ("< 1e-3", Gate("<", 0.001)),
        ("<2.5E+3", Gate("<", 2500.0)),
    ],
)
def test_a_gate_is_a_comparison_with_a_number(text: str, gate: Gate) -> None:
    assert Gate.parse(text) == gate


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([">= 0.9", "<=1", "0.9", "== 1", ">= nan", "> .5", ">  1", "", "> 1 ", "< 1e", ">= 1\n"])
    | st.text()
)
def test_a_recipe_accepts_exactly_the_gates_that_parse(text: str) -> None:
    try:
        accepted = bool(EvaluateOptions(gates={"accuracy": text}))
    except ValidationError:
        accepted = False
    if accepted:
        Gate.parse(text)
    else:
        with pytest.raises(ValueError, match="Expected a gate such as"):
            Gate.parse(text)


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([(">=", operator.ge), ("<=", operator.le), (">", operator.gt), ("<", operator.lt)]),
    st.floats(-10, 10),
    st.sampled_from([0.0, 0.5, -2.0]),
)
def test_a_gate_compares_the_value_with_its_limit(comparison: tuple, value: float, limit: float) -> None:
    sign, holds = comparison
    assert Gate(sign, limit).holds(value) == holds(value, limit)
    assert Gate(sign, limit).holds(limit) == (sign in (">=", "<="))


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([">=", "<=", ">", "<"]), st.sampled_from([0.0, 0.9, -1e-9, 1e20, 0.123456789]))
def test_a_gate_shows_itself_as_a_recipe_writes_it(sign: str, limit: float) -> None:
    assert Gate.parse(str(Gate(sign, limit))) == Gate(sign, limit)


def test_only_missed_gates_are_returned_in_the_order_of_the_recipe() -> None:
    gates = {"log_loss": "<= 0.5", "accuracy": ">= 0.9", "f1_macro": "> 0.8"}
    found = find_missed_gates(gates, {"accuracy": 0.9, "f1_macro": 0.8, "log_loss": 0.6})
    assert [(gate.metric, gate.limit, gate.value) for gate in found] == [
        ("log_loss", 0.5, 0.6),
        ("f1_macro", 0.8, 0.8),
    ]


def test_no_gate_is_never_missed() -> None:
    assert find_missed_gates({}, {"accuracy": 0.0}) == ()


@pytest.mark.parametrize("text", ["> -1e9", "< 1e9"])
def test_an_undefined_metric_misses_its_gate(text: str) -> None:
    (gate,) = find_missed_gates({"roc_auc": text}, {"accuracy": 1.0})
    assert gate.value is None
    assert str(gate).startswith("roc_auc is undefined, expected ")


def test_a_missed_gate_has_value_and_limit() -> None:
    (gate,) = find_missed_gates({"accuracy": ">= 0.90"}, {"accuracy": 0.87312345})
    assert str(gate) == "accuracy is 0.8731, expected >= 0.9"


def test_a_gate_missed_by_a_hair_shows_the_hair() -> None:
    (gate,) = find_missed_gates({"accuracy": ">= 0.9"}, {"accuracy": 0.8999999})
    assert str(gate) == "accuracy is 0.8999999, expected >= 0.9"


def test_gates_on_known_metrics_are_accepted() -> None:
    check_names({name: ">= 0.5" for name in NAMES}, NAMES)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("acuracy", "Did you mean 'accuracy'?"),
        ("test/accuracy", "Did you mean 'accuracy'?"),
        ("f1-macro", "Did you mean 'f1_macro'?"),
        ("roc", "Did you mean 'roc_auc'?"),
    ],
)
def test_an_unknown_metric_names_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(BmcliError, match=f"no metric '{name}'") as caught:
        check_names({name: ">= 0.9"}, NAMES)
    (fault,) = caught.value.faults
    assert fault.path == f"evaluate.gates.{name}"
    assert fault.suggestion == suggestion


def test_every_unknown_metric_is_reported_at_once() -> None:
    with pytest.raises(BmcliError) as caught:
        check_names({"acuracy": "> 0", "accuracy": "> 0", "mse": "< 1"}, NAMES)
    assert [fault.path for fault in caught.value.faults] == ["evaluate.gates.acuracy", "evaluate.gates.mse"]


def test_a_metric_like_no_other_lists_all_however_many() -> None:
    names = metric_names((category(*"abc", name="animal"), category(*"ab", name="breed"), number("age")), 5)
    with pytest.raises(BmcliError) as caught:
        check_names({"zzz": "> 0"}, names)
    assert caught.value.faults[0].suggestion.startswith("Known: age/mae, age/r2, ")


def test_a_gate_on_top_five_needs_six_classes() -> None:
    gates = {"top_5_accuracy": ">= 0.9"}
    check_names(gates, metric_names((category(*"abcdef"),), 5))
    with pytest.raises(BmcliError, match="no metric 'top_5_accuracy'"):
        check_names(gates, metric_names((category(*"abcde"),), 5))
