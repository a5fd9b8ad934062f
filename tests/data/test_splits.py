from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmcli.cells import RowFault
from bmcli.data import splits
from bmcli.errors import BmcliError
from bmcli.recipe.schema import SplitOptions
from bmcli.specs import SPLITS


def assign(rows: int, seed: int = 0, given: Any = None, groups: Any = None, **options: Any) -> dict[str, np.ndarray]:
    return splits.assign(SplitOptions(**options), rows, seed, given, groups)


def sizes(assigned: dict[str, np.ndarray]) -> list[int]:
    return [len(assigned[name]) for name in SPLITS]


@given(rows=st.integers(30, 400), seed=st.integers(0, 2**32 - 1), validation=st.floats(0.05, 0.4))
def test_every_row_is_in_exactly_one_split(rows: int, seed: int, validation: float) -> None:
    assigned = assign(rows, seed, validation=validation, test=0.3)
    assert sorted(np.concatenate(list(assigned.values())).tolist()) == list(range(rows))
    again = assign(rows, seed, validation=validation, test=0.3)
    assert all((assigned[name] == again[name]).all() for name in SPLITS)


@settings(max_examples=200)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    seed=st.integers(0, 99),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
)
def test_every_split_keeps_the_proportions_within_one_row(
    counts: list[int], seed: int, validation: float, test: float
) -> None:
    groups = np.repeat(np.arange(len(counts)), counts)
    share = {"train": 1 - validation - test, "validation": validation, "test": test}
    try:
        assigned = assign(len(groups), seed, groups=groups, validation=validation, test=test, stratify="y")
    except BmcliError:  # So few rows that a split gets none.
        assert len(groups) * min(share.values()) < len(counts)
        return
    assert sorted(np.concatenate(list(assigned.values())).tolist()) == list(range(len(groups)))
    for name in SPLITS:
        kept = np.bincount(groups[assigned[name]], minlength=len(counts))
        assert np.abs(kept - np.array(counts) * share[name]).max() < 1 + 1e-4


def test_many_small_groups_do_not_skew_the_splits() -> None:
    groups = np.repeat(np.arange(100), 13)
    assert sizes(assign(1300, groups=groups)) == [1040, 130, 130]


def test_the_default_is_80_10_10() -> None:
    assert sizes(assign(1000)) == [800, 100, 100]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"validation": 0.2}, [80, 20, 0]),
        ({"test": 0.25}, [75, 0, 25]),
        ({"train": 0.6}, [60, 20, 20]),
        ({"train": 0.8, "test": 0.2}, [80, 0, 20]),
        ({"train": 0.7, "test": 0.2}, [70, 10, 20]),
        ({"validation": 0.1, "test": 0.3}, [60, 10, 30]),
    ],
)
def test_what_is_left_out_follows_from_what_is_given(options: dict[str, float], expected: list[int]) -> None:
    assert sizes(assign(100, **options)) == expected


def test_the_assignment_never_changes_with_versions() -> None:
    assert assign(20, seed=7)["test"].tolist() == [16, 19]
    assert assign(20, seed=7)["validation"].tolist() == [1, 5]


def test_another_seed_gives_other_splits() -> None:
    assert assign(100, seed=1)["test"].tolist() != assign(100, seed=2)["test"].tolist()


def test_files_tell_the_splits() -> None:
    given = np.array(["train", "test", "train", "validation"])
    assert {name: rows.tolist() for name, rows in assign(4, given=given).items()} == {
        "train": [0, 2],
        "validation": [3],
        "test": [1],
    }


def test_validation_may_be_absent_where_files_tell_the_splits() -> None:
    assert sizes(assign(4, given=np.array(["train", "train", "test", "test"]))) == [2, 0, 2]


def test_validation_is_carved_from_the_training_rows() -> None:
    given = np.array(["train"] * 50 + ["test"] * 30)
    assigned = assign(80, given=given, validation=0.2)
    assert sizes(assigned) == [40, 10, 30]
    assert assigned["validation"].max() < 50


def test_training_files_alone_are_split_by_shares() -> None:
    assert sizes(assign(10, given=np.array(["train"] * 10))) == [8, 1, 1]


@pytest.mark.parametrize("name", ["train", "test"])
def test_shares_beside_files_are_a_fault(name: str) -> None:
    with pytest.raises(BmcliError, match=f"a share for {name} has no effect"):
        assign(4, given=np.array(["train", "train", "test", "test"]), **{name: 0.5})


def test_a_validation_share_beside_validation_rows_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="a share for validation has no effect"):
        assign(2, given=np.array(["train", "validation"]), validation=0.5)


def test_no_training_rows_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="no row is a training row"):
        assign(2, given=np.array(["test", "validation"]))


def test_a_split_without_rows_is_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"5 rows are too few for a test share of 0\.1: it gets none"):
        assign(5, train=0.8, validation=0.1, test=0.1)


def test_groups_that_are_too_small_for_every_split_are_told() -> None:
    groups = np.array([0] * 95 + [1] * 5)
    assert not splits.in_every_split(SplitOptions(), None, groups)
    assert splits.in_every_split(SplitOptions(test=0.2), None, groups)
    asked = assign(100, seed=3, groups=groups, stratify="y")
    assert np.bincount(groups[asked["train"]]).tolist() == [76, 4]


def test_only_training_rows_must_be_enough_where_validation_is_carved_from_them() -> None:
    groups = np.array([0] * 80 + [1] * 20)
    given = np.array(["train"] * 90 + ["test"] * 10)
    assert splits.in_every_split(SplitOptions(validation=0.1), given, groups)
    assert not splits.in_every_split(SplitOptions(validation=0.05), given, groups)


def test_split_names_in_all_their_spellings() -> None:
    column = pa.chunked_array([["train", "Training", "val", "dev", "valid", "validation", " TEST "]])
    assert splits.named(column).tolist() == ["train"] * 2 + ["validation"] * 4 + ["test"]


@pytest.mark.parametrize(("cell", "shown"), [("holdout", "'holdout'"), (None, "nothing"), ("", "''")])
def test_another_split_name_is_a_fault(cell: str | None, shown: str) -> None:
    with pytest.raises(RowFault, match=f"expected train, validation or test, received {shown}") as caught:
        splits.named(pa.chunked_array([pa.array(["train", cell])]))
    assert caught.value.row == 1


def test_numbers_are_no_split_names() -> None:
    with pytest.raises(RowFault, match="received a number"):
        splits.named(np.array([0, 1]))


def test_missing_cells_are_a_group_of_their_own() -> None:
    assert splits.groups_of(pa.chunked_array([["b", None, "a", ""]])).tolist() == [1, 2, 0, 2]
