"""Oracles repeat their answers, keep conditions, survive failures, and are better than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bmcli.recipe.fields import Kind
from bmcli.recipe.search import BayesianSearch, GridSearch, HyperbandSearch, RandomSearch, SearchParameter
from bmcli.tuning.oracle import Oracle, Suggestion

SPACE = {
    "model.units": SearchParameter("int", low=16, high=128, step=2, scale="log", when={"model.kind": ("mlp",)}),
    "rate": SearchParameter("float", low=1e-4, high=1e-1, scale="log"),
    "model.kind": SearchParameter("choice", ("mlp", "cnn")),
    "model.filters": SearchParameter("choice", ([16], [32, 64]), when={"model.kind": ("cnn",)}),
    "share": SearchParameter("float", low=0.0, high=0.5, step=0.1),
    "flag": SearchParameter("bool", (False, True)),
    "count": SearchParameter("int", low=1, high=9),
}
ALGORITHMS = [RandomSearch(), BayesianSearch(initial=4), GridSearch(), HyperbandSearch()]
Values = Mapping[str, Any]


def score(values: Values) -> float:
    return abs(math.log10(values["rate"]) + 2) + values["share"] + values.get("model.units", 0) / 1000


def search(
    algorithm: Kind,
    most: int,
    running: int = 1,
    fails: Callable[[int], bool] = lambda number: False,
    space: Mapping[str, SearchParameter] = SPACE,
    seed: int = 0,
) -> list[Suggestion]:
    """Return the candidates of a search with a number of trials at a time."""
    oracle, found, open_ = Oracle(algorithm, space, seed, epochs=9), list[Suggestion](), list[int]()
    try:
        while len(found) < most:
            answer = oracle.suggest()
            if isinstance(answer, Suggestion):
                open_.append(len(found))
                found.append(answer)
            if answer == "over" and not open_:
                break
            if answer != "over" and isinstance(answer, Suggestion) and len(open_) < running:
                continue
            number = open_.pop(0)
            oracle.report_score(number, None if fails(number) else score(found[number].values))
    finally:
        oracle.close()
    return found


@pytest.mark.parametrize("running", [1, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_the_same_calls_have_the_same_answers(algorithm: Kind, running: int) -> None:
    found = search(algorithm, 9, running)
    assert len(found) == 9
    assert found == search(algorithm, 9, running)


@pytest.mark.parametrize("algorithm", [RandomSearch(), HyperbandSearch()], ids=lambda each: each.kind)
def test_another_seed_has_other_answers(algorithm: Kind) -> None:
    assert search(algorithm, 5) != search(algorithm, 5, seed=1)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_values_are_those_of_the_space_and_conditions_hold(algorithm: Kind) -> None:
    for candidate in search(algorithm, 20):
        values = candidate.values
        for path, parameter in SPACE.items():
            assert (path in values) == parameter.is_active(values), values
            assert path not in values or parameter.allows(values[path]), (path, values)
        assert all(type(value) in (str, int, float, bool, list) for value in values.values())


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_a_search_survives_that_all_trials_fail(algorithm: Kind) -> None:
    assert len(search(algorithm, 12, fails=lambda number: True)) == 12


def test_a_chain_of_conditions_holds() -> None:
    space = {
        "c": SearchParameter("choice", ("x", "y"), when={"b": (True,)}),
        "b": SearchParameter("bool", (False, True), when={"a": (1,)}),
        "a": SearchParameter("choice", (1, 2)),
    }
    oracle, found = Oracle(GridSearch(), space, 0, epochs=1), []
    while isinstance(answer := oracle.suggest(), Suggestion):
        oracle.report_score(len(found), 0.0)
        found.append(dict(answer.values))
    oracle.close()
    expected = [{"a": 2}, {"a": 1, "b": False}, {"a": 1, "b": True, "c": "x"}, {"a": 1, "b": True, "c": "y"}]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


def test_a_small_space_is_over_once_all_of_it_is_tried() -> None:
    space = {"a": SearchParameter("bool", (False, True)), "b": SearchParameter("choice", ("x", "y", "z"))}
    for algorithm in (RandomSearch(), GridSearch(), BayesianSearch(initial=2)):
        oracle, found = Oracle(algorithm, space, 0, epochs=1), []
        while isinstance(answer := oracle.suggest(), Suggestion):
            oracle.report_score(len(found), float(answer.values["a"]))
            found.append(dict(answer.values))
        oracle.close()
        assert answer == "over"
        assert len({repr(each) for each in found}) == len(found) == 6


def test_a_candidate_that_is_tried_is_not_suggested() -> None:
    space = {
        "a": SearchParameter("choice", ("x", "y", [1, 2])),
        "b": SearchParameter("float", low=0.0, high=0.5, step=0.1),
    }
    tried = {"a": [1, 2], "b": 0.3}
    for algorithm, seeds in ((RandomSearch(), 20), (GridSearch(), 1), (BayesianSearch(initial=2), 1)):
        for seed in range(seeds):
            oracle, found = Oracle(algorithm, space, seed, epochs=1, tried=tried), [repr(tried)]
            oracle.report_tried_score(0.0)
            while isinstance(answer := oracle.suggest(), Suggestion):
                oracle.report_score(len(found) - 1, 0.0)
                found.append(repr(dict(answer.values)))
            oracle.close()
            assert len(set(found)) == len(found) == 18, (algorithm, seed)


def test_bayesian_search_learns_from_the_candidate_that_is_tried() -> None:
    space = {"x": SearchParameter("float", low=-1.0, high=1.0)}

    def suggest(score: float) -> list[float]:
        oracle, found = Oracle(BayesianSearch(initial=4), space, 0, epochs=1, tried={"x": 0.7}), []
        oracle.report_tried_score(score)
        for number in range(6):
            answer = oracle.suggest()
            assert isinstance(answer, Suggestion)
            found.append(answer.values["x"])
            oracle.report_score(number, 0.0)
        oracle.close()
        return found

    good, bad = suggest(-5.0), suggest(5.0)
    assert good[:3] == bad[:3], "the first ones are random"
    assert min(abs(x - 0.7) for x in good[3:]) < 0.1 < min(abs(x - 0.7) for x in bad[3:])


def test_numbers_have_no_more_digits_than_a_person_writes() -> None:
    space = {
        "rate": SearchParameter("float", low=1e-4, high=0.123456, scale="log"),
        "narrow": SearchParameter("float", low=0.12345678, high=0.12345679),
    }
    for candidate in search_values(space, 20):
        assert candidate["rate"] == float(f"{candidate['rate']:.4g}")
        assert space["narrow"].allows(candidate["narrow"]), "rounding does not leave the range"


def search_values(space: Mapping[str, SearchParameter], count: int) -> list[Values]:
    oracle, found = Oracle(RandomSearch(), space, 0, epochs=1), []
    for number in range(count):
        answer = oracle.suggest()
        assert isinstance(answer, Suggestion)
        found.append(answer.values)
        oracle.report_score(number, 0.0)
    oracle.close()
    return found


def test_random_search_finds_all_candidates_of_a_space_with_conditions() -> None:
    space = {
        "a": SearchParameter("choice", ("x", "y")),
        "b": SearchParameter("int", low=1, high=5, when={"a": ("x",)}),
        "c": SearchParameter("float", low=0.0, high=0.9, step=0.3),
        "d": SearchParameter("int", low=1, high=64, scale="log", step=4, when={"a": ("y",)}),
    }
    wanted = 5 * 4 + 4 * 4
    for seed in range(20):
        oracle, found = Oracle(RandomSearch(), space, seed, epochs=1), []
        while isinstance(answer := oracle.suggest(), Suggestion):
            oracle.report_score(len(found), 0.0)
            found.append(repr(dict(answer.values)))
        oracle.close()
        assert len(set(found)) == len(found) == wanted, seed


@pytest.mark.parametrize("tried", [None, {"rate": 0.001, "momentum": 0.5}, {"rate": 1.0, "momentum": 0.0}])
def test_bayesian_search_leaves_the_region_in_which_trials_fail(tried: Values | None) -> None:
    space = {
        "rate": SearchParameter("float", low=1e-4, high=10.0, scale="log"),
        "momentum": SearchParameter("float", low=0.0, high=0.99),
    }
    for seed in range(3):
        oracle, failed = Oracle(BayesianSearch(initial=5), space, seed, epochs=1, tried=tried), []
        oracle.report_tried_score(None if tried and tried["rate"] > 0.3 else 1.4)
        for number in range(30):
            answer = oracle.suggest()
            assert isinstance(answer, Suggestion)
            rate, momentum = float(answer.values["rate"]), float(answer.values["momentum"])
            failed.append(rate > 0.3)  # it diverges
            oracle.report_score(number, None if failed[-1] else abs(math.log10(rate) + 2) + abs(momentum - 0.9))
        oracle.close()
        assert sum(failed[5:]) <= 3, (seed, failed)


def test_hyperband_goes_on_with_the_best_of_a_round() -> None:
    found = search(HyperbandSearch(), 100)
    first = [number for number, each in enumerate(found) if each.until == 1]
    second = [each.continues for each in found if each.until == 3 and each.continues in first]
    assert {each.until for each in found} == {1, 3, 9}
    best = sorted(first, key=lambda number: score(found[number].values))[: len(second)]
    assert set(second) == set(best)
    for each in found:
        assert each.continues is None or each.values == found[each.continues].values


def test_hyperband_goes_on_with_what_did_not_fail() -> None:
    found = search(HyperbandSearch(), 100, fails=lambda number: number % 2 == 0)
    assert any(each.until == 9 for each in found)
    assert all(each.continues is None or each.continues % 2 for each in found if each.until == 3)


def test_bayesian_search_is_better_than_chance() -> None:
    space = {f"x{number}": SearchParameter("float", low=-1.0, high=1.0) for number in range(4)}

    def best(algorithm: Kind, seed: int) -> float:
        oracle, found = Oracle(algorithm, space, seed, epochs=1), []
        for number in range(24):
            answer = oracle.suggest()
            assert isinstance(answer, Suggestion)
            found.append(sum((value - 0.3) ** 2 for value in answer.values.values()))
            oracle.report_score(number, found[-1])
        oracle.close()
        return min(found)

    assert best(BayesianSearch(initial=8), 0) < best(RandomSearch(), 0) / 3


def test_workers_try_different_candidates_at_a_time() -> None:
    found = search(BayesianSearch(initial=4), 16, running=4)
    assert len({repr(each.values) for each in found}) == 16
