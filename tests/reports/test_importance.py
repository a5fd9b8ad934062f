"""Importance finds what was planted, and reports when it cannot."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from bmcli.reports.importance import analyse_importance
from tests.reports.searches import ACCURACY, DROPOUT, LOSS, RATE, SPACE, search

KIND, MOMENTUM = "train.optimizer.kind", "train.optimizer.momentum"


def test_the_planted_parameters_come_first_and_the_others_are_not_distinguished_from_noise() -> None:
    def measure(values: Mapping[str, Any], chance: random.Random) -> float:
        kind = {"adam": 0.0, "adamw": 0.1, "sgd": 0.6}[values[KIND]]
        return kind - abs(math.log10(values[RATE]) + 2.5) + chance.gauss(0, 0.02)

    found = analyse_importance(search(60, measure=measure), ACCURACY)
    assert found.r2 is not None
    assert found.r2 > 0.5
    assert {weight.path for weight in found.importances if weight.significant} == {RATE, KIND}
    assert found.importances[0].path == RATE


def test_a_parameter_that_only_some_candidates_have_is_not_blamed_for_the_choice_above_it() -> None:
    found = analyse_importance(search(80, measure=lambda values, _: float(values[KIND] == "sgd")), ACCURACY)
    significant = {each.path for each in found.importances if each.significant}
    assert significant == {KIND}
    assert MOMENTUM in {weight.path for weight in found.importances}


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_significant_where_nothing_matters(seed: int) -> None:
    found = analyse_importance(search(40, seed=seed, measure=lambda _, chance: chance.random()), ACCURACY)
    assert found.r2 is not None
    assert found.importances == ()


def test_equal_scores_have_no_importance() -> None:
    assert analyse_importance(search(40, measure=lambda *_: 0.5), ACCURACY).importances == ()


def test_too_few_trials_are_not_analysed() -> None:
    found = analyse_importance(search(12), ACCURACY)
    assert found.r2 is None
    assert found.min_trials > found.trials == 12


def test_failed_trials_do_not_count() -> None:
    assert analyse_importance(search(30, fail=1.0), ACCURACY).trials == 0


def test_diverged_trials_do_not_hide_what_matters() -> None:
    def measure(values: Mapping[str, Any], chance: random.Random) -> float:
        return 1e9 * chance.random() if chance.random() < 0.1 else values[DROPOUT]

    space = {path: SPACE[path] for path in (RATE, DROPOUT)}
    found = analyse_importance(search(60, space, (LOSS,), measure=measure), LOSS)
    assert [weight.path for weight in found.importances if weight.significant] == [DROPOUT]


def test_the_same_trials_give_the_same_importance() -> None:
    assert analyse_importance(search(30), ACCURACY) == analyse_importance(search(30), ACCURACY)
