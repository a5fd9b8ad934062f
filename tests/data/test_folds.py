"""Folds are made like splits, and every row is a test row once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

from bmcli.data.splitting.row_hashes import hash_rows
from bmcli.data.splitting.splitters import (
    GroupSplitter,
    HashSplitter,
    RandomSplitter,
    Splitter,
    TimeSplitter,
    split_folds,
)
from bmcli.errors import BmcliError

ROWS = np.arange(5, 305)
DICE = np.random.default_rng(0)
STRATA = DICE.integers(0, 3, 400)
GROUPS = DICE.integers(0, 40, 400)
MOMENTS = DICE.integers(0, 90, 400)
CONTENT = DICE.integers(0, 150, 400)

SHUFFLED: dict[str, Splitter] = {
    "by chance": RandomSplitter(3),
    "stratified": RandomSplitter(3, STRATA),
    "by group": GroupSplitter(3, GROUPS),
    "by group, stratified": GroupSplitter(3, GROUPS, STRATA),
    "by hash": HashSplitter(hash_rows([CONTENT], 3)),
}

every_count = pytest.mark.parametrize("count", [2, 3, 5, 10])


@every_count
@pytest.mark.parametrize("splitter", SHUFFLED.values(), ids=SHUFFLED.keys())
def test_every_row_is_a_test_row_once_and_a_training_row_in_the_other_folds(splitter: Splitter, count: int) -> None:
    found = list(split_folds(splitter, ROWS, count))
    assert len(found) == count
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == ROWS.tolist()
    for train, test in found:
        assert sorted([*train.tolist(), *test.tolist()]) == ROWS.tolist()


@every_count
def test_folds_are_of_one_size_and_of_the_same_proportions(count: int) -> None:
    sizes = [len(test) for _, test in split_folds(RandomSplitter(0), ROWS, count)]
    assert max(sizes) - min(sizes) <= 1
    each = [np.bincount(STRATA[test], minlength=3) for _, test in split_folds(RandomSplitter(0, STRATA), ROWS, count)]
    assert np.ptp(each, axis=0).max() <= 1


@every_count
@pytest.mark.parametrize(
    ("splitter", "together"), [(SHUFFLED["by group"], GROUPS), (SHUFFLED["by hash"], CONTENT)], ids=["group", "hash"]
)
def test_no_test_row_is_a_training_row(splitter: Splitter, together: np.ndarray, count: int) -> None:
    for train, test in split_folds(splitter, ROWS, count):
        assert not set(together[train]) & set(together[test])


@every_count
def test_in_the_order_of_time_each_fold_learns_from_all_that_is_older(count: int) -> None:
    found = list(split_folds(TimeSplitter(MOMENTS), ROWS, count))
    assert len(found) == count
    for train, test in found:
        assert MOMENTS[train].max() < MOMENTS[test].min()
        assert set(train) == set(ROWS[MOMENTS[ROWS] < MOMENTS[test].min()])
    for (train, test), (later, _) in pairwise(found):
        assert set(later) == {*train, *test}


@pytest.mark.parametrize(
    ("splitter", "count", "message", "most"),
    [
        (GroupSplitter(0, np.arange(9) % 3), 4, "4 folds need more than 3 groups", 3),
        (RandomSplitter(0), 100, "100 folds need more than 9 rows", 9),
        (TimeSplitter(np.arange(9) // 3), 9, "9 folds need more than 3 different times", 2),
    ],
    ids=["groups", "rows", "times"],
)
def test_too_many_folds_are_a_fault_that_says_how_many_are_possible(
    splitter: Splitter, count: int, message: str, most: int
) -> None:
    with pytest.raises(BmcliError, match=message) as caught:
        list(split_folds(splitter, np.arange(9), count))
    assert caught.value.faults[0].suggestion == f"Use at most {most} folds."
    assert len(list(split_folds(splitter, np.arange(9), most))) == most
    with pytest.raises(BmcliError):
        list(split_folds(splitter, np.arange(9), most + 1))


def test_one_group_cannot_be_divided_into_folds() -> None:
    with pytest.raises(BmcliError, match="2 folds need more than 1 group") as caught:
        list(split_folds(GroupSplitter(0, np.zeros(9, int)), np.arange(9), 2))
    assert caught.value.faults[0].suggestion == "Cross-validation needs more of them."


def _unevenness(tested: list[np.ndarray], strata: np.ndarray) -> tuple[int, float]:
    """By how many rows folds differ in size, and by how many a class is off its share at most."""
    counts = np.stack([np.bincount(strata[test], minlength=3) for test in tested])
    share = np.bincount(strata[np.concatenate(tested)], minlength=3) / len(tested)
    return int(np.ptp([len(test) for test in tested])), float(np.abs(counts - share).max())


def _tested(splitter: Splitter, count: int) -> list[np.ndarray]:
    return [test for _, test in split_folds(splitter, np.arange(300), count)]


@every_count
def test_strata_are_kept_as_scikit_learn_keeps_them(count: int) -> None:
    theirs = StratifiedKFold(count, shuffle=True, random_state=0).split(np.zeros(300), STRATA[:300])
    assert _unevenness(_tested(RandomSplitter(3, STRATA), count), STRATA) == _unevenness([t for _, t in theirs], STRATA)


@every_count
def test_groups_are_split_about_as_evenly_as_by_scikit_learn(count: int) -> None:
    theirs = GroupKFold(count).split(np.zeros(300), groups=GROUPS[:300])
    size, _ = _unevenness([test for _, test in theirs], STRATA)
    assert _unevenness(_tested(GroupSplitter(3, GROUPS), count), STRATA)[0] <= size + 3


@every_count
def test_groups_are_stratified_no_worse_than_by_scikit_learn(count: int) -> None:
    theirs, ours = [], []
    for seed in range(5):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        found = splitter.split(np.zeros(300), STRATA[:300], GROUPS[:300])
        theirs.append(_unevenness([test for _, test in found], STRATA))
        ours.append(_unevenness(_tested(GroupSplitter(seed, GROUPS, STRATA), count), STRATA))
    assert (np.mean(ours, axis=0) <= np.mean(theirs, axis=0) + 0.5).all()


@pytest.mark.parametrize("count", [2, 4, 5])
def test_rows_with_times_of_their_own_are_cut_as_by_scikit_learn(count: int) -> None:
    rows = np.arange(300)
    theirs = TimeSeriesSplit(count).split(rows)
    for (train, test), (their_train, their_test) in zip(
        split_folds(TimeSplitter(rows), rows, count), theirs, strict=True
    ):
        assert (train.tolist(), test.tolist()) == (their_train.tolist(), their_test.tolist())


def test_rows_that_are_added_leave_others_in_their_folds() -> None:
    """Of which no splitter of scikit-learn is capable."""
    content = np.arange(400)
    before = list(split_folds(HashSplitter(hash_rows([content[:300]], 3)), np.arange(300), 5))
    after = list(split_folds(HashSplitter(hash_rows([content], 3)), np.arange(400), 5))
    for (_, test), (_, later) in zip(before, after, strict=True):
        assert set(test) == {row for row in later.tolist() if row < 300}
