from __future__ import annotations

import json

import numpy as np
import pytest

from bmcli.evaluation.fairness import Fairness, list_metrics, make_weighted_metrics, measure_fairness
from bmcli.evaluation.intervals import Resampling, compute_intervals, resample_metrics
from bmcli.evaluation.slices import Slicing


def _groups(*codes: int) -> Slicing:
    return Slicing("sex", np.array(codes), ("f", "m"))


def _planted(gap: float) -> tuple[Slicing, np.ndarray, np.ndarray]:
    """Half of each group is to be selected; of the second group fewer of those are."""
    dice = np.random.default_rng(2)
    codes, there = dice.integers(0, 2, 2000), dice.random(2000) < 0.5
    return Slicing("sex", codes, ("f", "m")), there, there & (dice.random(2000) < 1 - gap * codes)


def test_rates_are_counted_by_group() -> None:
    codes = np.repeat([0, 1], 40)
    there = np.tile([True, False], 40)
    selected = np.concatenate([np.tile([True, False], 20), np.tile([False, True, False, False], 10)])
    found = measure_fairness(Slicing("sex", codes, ("f", "m")), "hired", "yes", there, selected)
    women, men = found.groups
    assert (women.selection_rate.value, women.true_positive_rate.value, women.false_positive_rate.value) == (0.5, 1, 0)
    assert (men.selection_rate.value, men.true_positive_rate.value, men.false_positive_rate.value) == (0.25, 0, 0.5)
    assert "25.0% of 'm' and 50.0% of 'f'" in found.summary


def test_differences_and_ratios_are_those_of_the_rates() -> None:
    slicing, there, selected = _planted(0.4)
    groups = measure_fairness(slicing, "hired", "yes", there, selected).groups
    found = {
        name: float(v[0])
        for name, v in make_weighted_metrics(slicing, there, selected).compute(np.ones((2000, 1))).items()
    }
    assert set(found) == set(list_metrics("sex"))
    for rate in ("selection_rate", "true_positive_rate"):
        low, high = sorted(getattr(group, rate).value for group in groups)
        assert found[f"fairness/sex/{rate}_difference"] == pytest.approx(high - low)
        assert found[f"fairness/sex/{rate}_ratio"] == pytest.approx(low / high)
    assert found["fairness/sex/equalized_odds_difference"] == found["fairness/sex/true_positive_rate_difference"]


def test_a_planted_unfair_group_is_found_and_a_fair_one_is_not() -> None:
    for gap, unfair in ((0.4, True), (0.0, False)):
        found, _ = compute_intervals(
            resample_metrics(make_weighted_metrics(*_planted(gap)), 2000, Resampling(resamples=300))
        )
        assert (found["fairness/sex/selection_rate_difference"].low > 0.08) == unfair


def test_small_groups_are_left_out_and_named() -> None:
    slicing = _groups(*[0] * 50, *[1] * 5)
    rows = np.tile([True, False, False, True, True], 11)
    found = measure_fairness(slicing, "hired", "yes", rows, rows)
    assert (found.left_out, len(found.groups)) == (("m",), 1)
    assert "none can be compared" in found.summary
    assert np.isnan(
        make_weighted_metrics(slicing, rows, rows).compute(np.ones((55, 1)))["fairness/sex/selection_rate_ratio"]
    ).all()


def test_values_pass_through_json() -> None:
    slicing, there, selected = _planted(0.2)
    found = measure_fairness(slicing, "hired", "yes", there, selected)
    assert Fairness.from_json(json.loads(json.dumps(found.to_json()))) == found
