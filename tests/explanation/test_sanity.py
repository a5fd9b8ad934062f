"""Explanations of a trained network differ from those of networks with random weights."""

from __future__ import annotations

import numpy as np

from bmcli.evaluation.explanation_record import PermutationImportance, SanityCheck
from bmcli.explanation.gradients import Attribution
from bmcli.explanation.sanity import compute_heat_correlation, compute_rank_correlation, compute_remaining_share

DICE = np.random.default_rng(0)


def attribution(contributions: np.ndarray, values: np.ndarray | None = None) -> Attribution:
    values = np.ones_like(contributions) if values is None else values
    return Attribution((), (values,), (contributions,), np.zeros(len(contributions)))


def importance(increase: float) -> PermutationImportance:
    return PermutationImportance("x", increase, increase, increase, 0.0)


def test_the_same_contributions_correlate_and_others_do_not() -> None:
    one, other = DICE.normal(size=(2, 8, 30))
    assert compute_rank_correlation(attribution(one), attribution(one)) == 1
    assert abs(compute_rank_correlation(attribution(one), attribution(other))) < 0.3


def test_what_is_as_in_the_baseline_does_not_make_contributions_alike() -> None:
    """A picture's black pixels contribute nothing in any network."""
    one, other = DICE.normal(size=(2, 8, 40))
    values = np.zeros((8, 40))
    values[:, :20] = 1
    found = compute_rank_correlation(attribution(one * values, values), attribution(other * values, values))
    assert abs(found) < 0.35


def test_few_features_are_ranked_over_all_rows() -> None:
    one, other = DICE.normal(size=(2, 40, 2))
    assert abs(compute_rank_correlation(attribution(one), attribution(other))) < 0.4
    assert compute_rank_correlation(attribution(one), attribution(one)) == 1


def test_a_trained_network_without_contributions_fails_the_check() -> None:
    nothing = np.zeros((4, 6))
    assert compute_rank_correlation(attribution(nothing), attribution(DICE.normal(size=(4, 6)))) == 1
    assert compute_heat_correlation(np.zeros((3, 4, 4)), DICE.random((3, 4, 4))) == 1
    assert compute_heat_correlation(DICE.random((3, 4, 4)), np.zeros((3, 4, 4))) == 0


def test_importance_to_a_random_network_is_a_share_of_that_to_the_trained_one() -> None:
    assert compute_remaining_share([importance(2.0), importance(-0.5)], [importance(0.5), importance(-3.0)]) == 0.25
    assert compute_remaining_share([importance(-0.1)], [importance(0.0)]) == 1
    assert not SanityCheck("m", "p", "f", 0.5, 0.5).passed
    assert SanityCheck("m", "p", "f", 0.49, 0.5).passed
