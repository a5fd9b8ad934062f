"""What is the best, what beats what, and which trials belong together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmcli.recipe.search import SearchParameter
from bmcli.trials import ConfirmedCandidate, SearchObjective, SearchResult, Task, Trial, TrialResult, TrialState

ACCURACY, SIZE = SearchObjective("validation/accuracy", "max"), SearchObjective("parameters", "min")
PAIR = (ACCURACY, SIZE)


def trial(name: str, *measured: float, state: TrialState = "done", continues: str | None = None) -> Trial:
    objectives = {one.name: value for one, value in zip(PAIR, measured, strict=False)}
    return Trial(Task(name, {}, continues=continues), TrialResult(name, state, objectives))


def searched(*trials: Trial, paths: tuple[str, ...] = ()) -> SearchResult:
    return SearchResult("x", "random", PAIR, dict.fromkeys(paths, SearchParameter("bool", (False, True))), trials)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_the_front_is_what_comparing_all_with_all_finds(points: list[tuple[int, int]]) -> None:
    found = searched(*(trial(f"{i}", *point) for i, point in enumerate(points))).front(PAIR)
    expected = {
        (a, b)
        for a, b in points
        if not any(c >= a and d <= b and (c, d) != (a, b) for c, d in points)  # more accurate, fewer parameters
    }
    got = [(one.objectives[ACCURACY.name], one.objectives[SIZE.name]) for one in found]
    assert sorted(got) == sorted(expected)
    assert [size for _, size in got] == sorted(size for _, size in got)


def test_the_front_has_no_trial_that_was_not_trained_to_its_end_or_lacks_a_measure() -> None:
    found = searched(
        trial("0", 0.9, 10.0, state="stopped"), trial("1", 0.5, 20.0), trial("2", 0.99), trial("3", math.nan, 1.0)
    )
    assert [one.task.name for one in found.front(PAIR)] == ["1"]


def test_the_best_is_by_the_first_objective_among_trials_that_are_done() -> None:
    found = searched(trial("0", 0.8), trial("1", 0.9, state="stopped"), trial("2", 0.85), trial("3", math.inf))
    best = found.best()
    assert best is not None
    assert best.task.name == "2"


def test_of_trials_that_continue_each_other_the_last_measured_stands_for_all() -> None:
    found = searched(
        trial("0", 0.5),
        trial("1", 0.4),
        trial("2", 0.6, continues="0"),
        trial("3", continues="1", state="failed"),
        trial("4", 0.7, continues="2"),
    )
    assert [one.task.name for one in found.candidates()] == ["1", "4"]


def test_a_running_trial_is_no_candidate() -> None:
    found = searched(trial("0", 0.5), Trial(Task("1", {}, continues="0"), None))
    assert [one.task.name for one in found.candidates()] == ["0"]
    assert found.trials[1].state == "running"


def test_a_short_name_is_the_shortest_unique_one() -> None:
    paths = ("train.optimizer.learning_rate", "model.kind", "model.image.dropout", "model.text.dropout", "a.filters.0")
    assert list(searched(paths=paths).short_names().values()) == [
        "learning_rate", "model.kind", "image.dropout", "text.dropout", "filters.0",
    ]  # fmt: skip


@pytest.mark.parametrize(("objective", "shrinkage"), [(ACCURACY, 0.1), (SIZE, -0.1)])
def test_shrinkage_is_by_how_much_the_mean_is_worse(objective: SearchObjective, shrinkage: float) -> None:
    confirmed = ConfirmedCandidate("0", 0.9, (0.7, 0.9))
    assert confirmed.shrinkage(objective) == pytest.approx(shrinkage)
    assert confirmed.spread == pytest.approx(math.sqrt(0.02))


def test_one_seed_has_no_spread() -> None:
    assert ConfirmedCandidate("0", 0.9, (0.7,)).spread is None


def test_values_that_are_handed_over_as_json_come_back() -> None:
    task = Task("0007", {"model.hidden": [8, 8]}, until=3, continues="0001", bounds=(0.5, None), limit_s=2.0)
    result = TrialResult("0007", "stopped", {"a": 0.5}, (0.5, None), {"b": 1.0}, 2, 0.5, "no better than the median")
    assert Task.from_json(task.to_json()) == task
    assert TrialResult.from_json(result.to_json()) == result
