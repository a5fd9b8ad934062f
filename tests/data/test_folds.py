"""Folds are dealt like splits, and every row is tested once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bmcli.data.dealing import ByChance, ByGroup, ByHash, ByTime, Dealing, folds
from bmcli.data.digests import digests
from bmcli.errors import BmcliError

ROWS = np.arange(5, 305)
DICE = np.random.default_rng(0)
STRATA = DICE.integers(0, 3, 400)
GROUPS = DICE.integers(0, 40, 400)
MOMENTS = DICE.integers(0, 90, 400)
CONTENT = DICE.integers(0, 150, 400)

SHUFFLED: dict[str, Dealing] = {
    "by chance": ByChance(3),
    "stratified": ByChance(3, STRATA),
    "by group": ByGroup(3, GROUPS),
    "by group, stratified": ByGroup(3, GROUPS, STRATA),
    "by hash": ByHash(digests([CONTENT], 3)),
}

every_count = pytest.mark.parametrize("count", [2, 3, 5, 10])


@every_count
@pytest.mark.parametrize("dealing", SHUFFLED.values(), ids=SHUFFLED.keys())
def test_every_row_is_tested_once_and_learned_from_otherwise(dealing: Dealing, count: int) -> None:
    found = list(folds(dealing, ROWS, count))
    assert len(found) == count
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == ROWS.tolist()
    for train, test in found:
        assert sorted([*train.tolist(), *test.tolist()]) == ROWS.tolist()


@every_count
def test_folds_are_of_one_size_and_of_the_same_proportions(count: int) -> None:
    sizes = [len(test) for _, test in folds(ByChance(0), ROWS, count)]
    assert max(sizes) - min(sizes) <= 1
    each = [np.bincount(STRATA[test], minlength=3) for _, test in folds(ByChance(0, STRATA), ROWS, count)]
    assert np.ptp(each, axis=0).max() <= 1


@every_count
@pytest.mark.parametrize(
    ("dealing", "together"), [(SHUFFLED["by group"], GROUPS), (SHUFFLED["by hash"], CONTENT)], ids=["group", "hash"]
)
def test_nothing_tested_was_learned_from(dealing: Dealing, together: np.ndarray, count: int) -> None:
    for train, test in folds(dealing, ROWS, count):
        assert not set(together[train]) & set(together[test])


@every_count
def test_in_the_order_of_time_each_fold_learns_from_all_that_is_older(count: int) -> None:
    found = list(folds(ByTime(MOMENTS), ROWS, count))
    assert len(found) == count
    for train, test in found:
        assert MOMENTS[train].max() < MOMENTS[test].min()
        assert set(train) == set(ROWS[MOMENTS[ROWS] < MOMENTS[test].min()])
    for (train, test), (later, _) in pairwise(found):
        assert set(later) == {*train, *test}


def test_fewer_groups_than_folds_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="3 groups are too few for 4 folds"):
        list(folds(ByGroup(0, np.arange(9) % 3), np.arange(9), 4))
