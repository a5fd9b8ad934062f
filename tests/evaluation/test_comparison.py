"""The recommendation among several models: the smallest that is not significantly worse than the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bmcli.evaluation.comparison import Comparison, Contender
from bmcli.evaluation.intervals import Resampling, compute_differences, resample_metrics
from bmcli.number_texts import write_number
from tests.evaluation.columns import make_weighted_metrics
from tests.reports.comparisons import COLUMN, comparison, contender


def test_a_small_model_that_is_as_good_is_taken() -> None:
    found = comparison({"big": (5000, 0.95), "small": (500, 0.945), "tiny": (50, 0.7)})
    assert found.best.name == "big"
    assert found.recommended is not None
    assert found.recommended.name == "small"
    assert found.recommendation.startswith("Recommended: small, with 10.0 % of the parameters of big.")
    assert "may be worse by up to" in found.recommendation


def test_the_best_is_taken_where_all_smaller_ones_are_worse() -> None:
    found = comparison({"big": (5000, 0.95), "tiny": (50, 0.6)})
    assert found.recommended is found.best
    lacks = found.against_best["tiny"].interval
    assert found.recommendation == (
        "Recommended: big. It has the best accuracy, and every smaller model is worse: "
        "tiny, with 1.0 % of its parameters, "
        f"by 0.35 (95 % interval {write_number(-lacks.high)} to {write_number(-lacks.low)})."
    )


def test_the_best_that_is_also_the_smallest_is_taken_and_ties_are_named() -> None:
    found = comparison({"small": (50, 0.95), "big": (5000, 0.945)})
    assert found.recommended is not None
    assert found.recommended.name == "small"
    assert "and no model is smaller. No significant difference from big, which is not smaller." in found.recommendation


def test_other_rows_are_no_ground_for_advice() -> None:
    found = replace(comparison({"a": (10, 0.9), "b": (5, 0.8)}), unpaired_reason="they saw different rows.")
    assert found.recommendation == "a has the best accuracy. The difference cannot be tested: they saw different rows."
    assert found.recommended is None


def test_models_that_predict_the_same_get_no_recommendation() -> None:
    found = replace(comparison({"a": (10, 0.9), "b": (10, 0.9)}), same_predictions={"b": "a"})
    assert found.recommended is None
    assert found.recommendation == "No recommendation: a and b make the same predictions."
    assert found.to_json()["recommended"] is None


def test_a_model_that_predicts_the_same_as_another_is_no_alternative_to_it() -> None:
    found = replace(comparison({"a": (10, 0.9), "b": (10, 0.9), "c": (5, 0.6)}), same_predictions={"b": "a"})
    assert found.recommended is not None
    assert found.recommended.name == "a"
    assert found.recommendation.endswith(" b makes the same predictions as a.")
    assert "No significant difference" not in found.recommendation


def test_of_models_of_one_size_the_better_one_is_taken_however_fast_they_are() -> None:
    found = comparison({"a": (10, 0.94), "b": (10, 0.95)})
    slow = replace(found.contenders[1], latency_s=9.0)
    found = replace(found, contenders=(found.contenders[0], slow))
    assert found.recommended is slow


def test_the_front_leaves_out_what_costs_more_for_less() -> None:
    found = comparison({"a": (10, 0.7), "b": (20, 0.8), "worse": (30, 0.75), "c": (40, 0.9)})
    assert [each.name for each in found.pareto_front("parameters")] == ["a", "b", "c"]


def test_a_run_without_a_cost_is_not_on_its_front() -> None:
    found = comparison({"a": (10, 0.7), "b": (20, 0.8)})
    without_time = replace(found, contenders=(replace(found.contenders[0], train_s=None), found.contenders[1]))
    assert [each.name for each in without_time.pareto_front("train_s")] == ["b"]


def test_less_is_better_of_an_error() -> None:
    one, other = (replace(contender(name, 10, 0.5), metrics={"mae": mae}) for name, mae in (("a", 3.0), ("b", 2.0)))
    found = Comparison("test", 10, "mae", "min", (one, other), {}, {}, "other rows.", {}, {})
    assert found.best.name == "b"
    assert [each.name for each in found.pareto_front("parameters")] == ["b"]


def test_the_differences_shown_are_those_of_the_paired_bootstrap() -> None:
    found = comparison({"a": (10, 0.9), "b": (20, 0.6)})
    difference = found.against_first["b"]["accuracy"]
    assert difference.difference == pytest.approx(
        found.contenders[1].metrics["accuracy"] - found.contenders[0].metrics["accuracy"]
    )
    assert difference.better == "first"


def test_what_is_compared_passes_as_plain_values() -> None:
    import json

    found = json.loads(json.dumps(comparison({"a": (10, 0.9), "b": (20, 0.6)}).to_json(), allow_nan=False))
    assert found["recommended"] == found["best"] == "a"
    assert [each["name"] for each in found["runs"]] == ["a", "b"]
    assert found["pareto_fronts"]["parameters"] == ["a"]


def test_a_model_has_no_difference_from_itself() -> None:
    truth = np.array([0, 1] * 20)
    probabilities = np.eye(2, dtype="float32")[truth]
    weighted = make_weighted_metrics({"label": truth}, {"label": probabilities}, (COLUMN,), 5)
    found = compute_differences(*[resample_metrics(weighted, 40, Resampling(resamples=100))] * 2)
    assert found["accuracy"].better == ""
    assert isinstance(contender("a", 1, 1.0), Contender)
