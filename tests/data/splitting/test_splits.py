from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bmcli.data.columns import check_names, resolve_inputs
from bmcli.data.sources import SourceRows
from bmcli.data.splitting import splits
from bmcli.data.splitting.row_hashes import hash_files, hash_rows
from bmcli.data.splitting.splitters import RandomSplitter
from bmcli.errors import BmcliError
from bmcli.raw_columns import FileColumn, RowFault, encode_categories
from bmcli.recipe.data import DataOptions, SplitOptions
from bmcli.specs import SPLITS

Splits = dict[str, np.ndarray]


def assign(rows: int, seed: int = 0, given: Any = None, strata: Any = None, **options: Any) -> dict[str, np.ndarray]:
    return splits.assign_splits(SplitOptions(**options), rows, RandomSplitter(seed, strata), given)


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def split(seed: int = 0, given: Any = None, sample: Any = None, **columns: Any) -> Callable[..., Splits]:
    """Return a function from options to the splits of these columns: `split(who=...)(group="who")`."""
    rows = SourceRows(columns, given, describe_row=lambda row: f"t.csv:{row + 2}")

    def by(**options: Any) -> Splits:
        targets = {"y": "category"} if "y" in columns else {"z": "number"}
        data = DataOptions.model_validate(
            {"source": {"kind": "csv", "path": "t.csv"}, "targets": targets, "split": options, "sample": sample}
        )
        return splits.split_rows(rows, data, data.targets_by_name(), seed).indices

    return by


def check_each_row_once(assigned: Splits, rows: int) -> None:
    assert sorted(np.concatenate(list(assigned.values())).tolist()) == list(range(rows))
    assert all((np.diff(places) > 0).all() for places in assigned.values())


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
    strata = np.repeat(np.arange(len(counts)), counts)
    share = {"train": 1 - validation - test, "validation": validation, "test": test}
    try:
        assigned = assign(len(strata), seed, strata=strata, validation=validation, test=test, stratify="y")
    except BmcliError:  # So few rows that a splthe split is empty.
        assert len(strata) * min(share.values()) < len(counts)
        return
    assert sorted(np.concatenate(list(assigned.values())).tolist()) == list(range(len(strata)))
    for name in SPLITS:
        kept = np.bincount(strata[assigned[name]], minlength=len(counts))
        assert np.abs(kept - np.array(counts) * share[name]).max() < 1 + 1e-4


def test_many_small_groups_do_not_skew_the_splits() -> None:
    strata = np.repeat(np.arange(100), 13)
    assert sizes(assign(1300, strata=strata)) == [1040, 130, 130]


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


def test_files_define_the_splits() -> None:
    given = np.array(["train", "test", "train", "validation"])
    assert {name: rows.tolist() for name, rows in assign(4, given=given).items()} == {
        "train": [0, 2],
        "validation": [3],
        "test": [1],
    }


def test_validation_may_be_absent_where_files_define_the_splits() -> None:
    assert sizes(assign(4, given=np.array(["train", "train", "test", "test"]))) == [2, 0, 2]


def test_validation_is_carved_from_the_training_rows() -> None:
    given = np.array(["train"] * 50 + ["test"] * 30)
    assigned = assign(80, given=given, validation=0.2)
    assert sizes(assigned) == [40, 10, 30]
    assert assigned["validation"].max() < 50


def test_training_files_alone_are_split_by_shares() -> None:
    assert sizes(split(given=np.array(["train"] * 10), z=np.arange(10))()) == [8, 1, 1]


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
    with pytest.raises(BmcliError, match=r"5 rows are too few for a test share of 0\.1: the split is empty"):
        assign(5, train=0.8, validation=0.1, test=0.1)


def test_groups_that_are_too_small_for_every_split_are_a_fault() -> None:
    strata = np.array([0] * 95 + [1] * 5)
    assert not splits.fits_every_split(SplitOptions(), None, strata)
    assert splits.fits_every_split(SplitOptions(test=0.2), None, strata)
    stratified = assign(100, seed=3, strata=strata, stratify="y")
    assert np.bincount(strata[stratified["train"]]).tolist() == [76, 4]


def test_only_training_rows_must_be_enough_where_validation_is_carved_from_them() -> None:
    strata = np.array([0] * 80 + [1] * 20)
    given = np.array(["train"] * 90 + ["test"] * 10)
    assert splits.fits_every_split(SplitOptions(validation=0.1), given, strata)
    assert not splits.fits_every_split(SplitOptions(validation=0.05), given, strata)


def test_split_names_in_all_their_spellings() -> None:
    column = pa.chunked_array([["train", "Training", "val", "dev", "valid", "validation", " TEST "]])
    assert splits.read_split_names(column).tolist() == ["train"] * 2 + ["validation"] * 4 + ["test"]


@pytest.mark.parametrize(("cell", "shown"), [("holdout", "'holdout'"), (None, "nothing"), ("", "''")])
def test_another_split_name_is_a_fault(cell: str | None, shown: str) -> None:
    with pytest.raises(RowFault, match=f"expected train, validation or test, received {shown}") as caught:
        splits.read_split_names(pa.chunked_array([pa.array(["train", cell])]))
    assert caught.value.row == 1


def test_numbers_are_no_split_names() -> None:
    with pytest.raises(RowFault, match="received a number"):
        splits.read_split_names(np.array([0, 1]))


def test_missing_cells_are_a_stratum_of_their_own() -> None:
    assert encode_categories(text("b", None, "a", "")).tolist() == [1, 2, 0, 2]


def test_no_group_is_in_two_splits() -> None:
    for groups in (4, 10, 80):
        for seed in range(15):
            who = np.random.default_rng(seed).zipf(1.5, 400) % groups
            assigned = split(seed, who=who, z=np.arange(400))(group="who", validation=0.2, test=0.2)
            check_each_row_once(assigned, 400)
            found = [set(who[assigned[name]]) for name in SPLITS]
            assert all(found)
            assert sum(map(len, found)) == len(set(who))


@settings(max_examples=80, deadline=None)
@given(
    groups=st.lists(st.integers(1, 25), min_size=12, max_size=120),
    seed=st.integers(0, 2**32 - 1),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
)
def test_groups_meet_the_shares_as_far_as_their_sizes_allow(
    groups: list[int], seed: int, validation: float, test: float
) -> None:
    who = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(groups)), groups))
    assigned = split(seed, who=who, z=who)(group="who", validation=validation, test=test)
    check_each_row_once(assigned, len(who))
    share = {"train": 1 - validation - test, "validation": validation, "test": test}
    for name in SPLITS:
        assert abs(len(assigned[name]) - share[name] * len(who)) <= 2 * max(groups)


def test_many_groups_meet_the_shares_nearly_to_the_row() -> None:
    dice = np.random.default_rng(0)
    who = np.repeat(np.arange(300), dice.integers(1, 40, 300))
    for seed in range(10):
        assigned = split(seed, who=who, z=who)(group="who")
        wanted = np.array([0.8, 0.1, 0.1]) * len(who)
        assert np.abs(np.array(sizes(assigned)) - wanted).max() <= 2


def test_every_group_comes_into_the_test_rows_with_some_seed() -> None:
    """Large groups, too: a test on small groups only would represent only these."""
    who = np.repeat(np.arange(20), np.arange(20, 40))
    tested = [set(who[split(seed, who=who, z=who)(group="who", test=0.3)["test"]]) for seed in range(60)]
    assert set.union(*tested) == set(range(20))
    assert len({frozenset(groups) for groups in tested}) > 50


def test_groups_keep_the_proportions_of_a_category_where_they_can() -> None:
    dice = np.random.default_rng(1)
    who = np.repeat(np.arange(200), dice.integers(1, 12, 200))
    y = np.where(dice.random(200) < 0.25, 1, 0)[who]
    y = np.where(dice.random(len(who)) < 0.2, 2, y)

    def worst(**options: Any) -> float:
        parts = [split(seed, who=who, y=y)(group="who", **options) for seed in range(10)]
        counts = np.array([[np.bincount(y[part[name]], minlength=3) for name in SPLITS] for part in parts])
        return float(np.abs(counts - np.bincount(y) * np.array([[0.8], [0.1], [0.1]])).max())

    assert worst() <= 12 < worst(stratify="none")


def test_as_many_groups_as_splits_are_enough() -> None:
    assert sizes(split(who=np.array([5, 5, 6, 7, 7, 7]), z=np.arange(6))(group="who")) in ([3, 2, 1], [3, 1, 2])


def test_fewer_groups_than_splits_are_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"2 groups are too few for a test share of 0\.1: the split is empty"):
        split(who=text("a", "b", "a"), z=np.arange(3))(group="who")


def test_a_row_without_a_group_is_a_fault_at_its_line() -> None:
    with pytest.raises(BmcliError, match=r"t\.csv:4  column 'who': expected the group of the row, received nothing"):
        split(who=text("a", "b", None), z=np.arange(3))(group="who")


GIVEN = np.array(["train"] * 60 + ["test"] * 40)


def test_validation_takes_whole_groups_of_the_training_rows() -> None:
    who = np.arange(100) // 6
    assigned = split(given=GIVEN, who=who, z=who)(group="who", validation=0.25)
    assert assigned["test"].tolist() == list(range(60, 100))
    assert 10 <= len(assigned["validation"]) <= 20
    assert not set(who[assigned["train"]]) & set(who[assigned["validation"]])


def test_a_group_that_the_files_divide_is_a_fault() -> None:
    who = np.arange(100) // 7
    with pytest.raises(BmcliError, match=r"t\.csv:62  column 'who': the source has rows of 8 in train and in test"):
        split(given=GIVEN, who=who, z=who)(group="who", validation=0.25)


@pytest.mark.parametrize("way", [{"group": "a"}, {"time": "a"}, {"hash": True}])
def test_a_splitter_of_rows_that_are_split_already_is_a_fault(way: dict[str, Any]) -> None:
    with pytest.raises(BmcliError, match="has no effect, because the source defines all splits") as caught:
        split(given=GIVEN, a=np.arange(100), z=np.arange(100))(**way)
    assert caught.value.faults[0].path == f"data.split.{next(iter(way))}"


@settings(max_examples=80, deadline=None)
@given(
    moments=st.lists(st.integers(0, 60), min_size=20, max_size=200),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
)
def test_no_row_is_older_than_one_it_is_tested_after(moments: list[int], validation: float, test: float) -> None:
    at = np.array(moments)
    assume(len(set(moments)) >= 3)
    assigned = split(at=at, z=at)(time="at", validation=validation, test=test)
    check_each_row_once(assigned, len(at))
    assert at[assigned["train"]].max() < at[assigned["validation"]].min()
    assert at[assigned["validation"]].max() < at[assigned["test"]].min()
    most = np.bincount(at).max()
    if len(set(moments)) > 30:
        assert abs(len(assigned["test"]) - test * len(at)) <= most
        assert abs(len(assigned["train"]) - (1 - validation - test) * len(at)) <= most


def test_rows_of_one_moment_are_never_divided() -> None:
    at = np.repeat([3, 1, 2], [10, 70, 20])
    assert sizes(split(at=at, z=at)(time="at")) == [70, 20, 10]


def test_fewer_moments_than_splits_are_a_fault() -> None:
    with pytest.raises(BmcliError, match="2 different times are too few for a test share"):
        split(at=np.array([1, 2] * 9), z=np.arange(18))(time="at")


def test_another_seed_changes_nothing_in_the_order_of_time() -> None:
    at = np.random.default_rng(0).permutation(50)
    first, second = (split(seed, at=at, z=at)(time="at") for seed in (0, 1))
    assert all((first[name] == second[name]).all() for name in SPLITS)


@pytest.mark.parametrize(
    "cells",
    [
        ("9", "10", "1e2", "-3.5"),
        ("2023-12-31", "2024-01-01", "2024-02-29", "1969-07-20"),
        ("2024-05-31", "2024-05-31T10:00:00", "2024-05-31 10:00:00.5", "2024-05-30 23:59"),
        ("2024-05-31T10:00:00+02:00", "2024-05-31T09:00:00Z", "2024-05-31T05:00:01-0400", "2024-05-31 09:00+02:00"),
    ],
)
def test_times_are_numbers_or_dates_as_text(cells: tuple[str, ...]) -> None:
    assert np.argsort(splits.read_times(text(*cells))).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize(
    ("cells", "formats"),
    [
        (("31.12.2023", "01.01.2024", "29.2.2024", "20.7.1969"), ()),
        (("12/31/2023", "01/01/2024", "02/29/2024", "07/20/1969"), ()),
        (("20231231", "20240101", "20240229", "19690720"), ()),
        (("Dec 31, 2023", "Jan 1, 2024", "Feb 29, 2024", "Jul 20, 1969"), ()),
        (("31/12/2023 10:00 AM", "31/12/2023 1:00 PM", "31/12/2023 1:00:01 PM", "31/12/2023 12:59 AM"), ()),
        (("03/01/2024", "01/02/2024", "02/02/2024", "02/01/2024"), ("%d/%m/%Y",)),
        (("2024-05-31", "1.6.2024", "2.6.2024", "30.5.2024"), ("iso", "%d.%m.%Y")),
    ],
)
def test_times_are_read_in_the_formats_of_dates(cells: tuple[str, ...], formats: tuple[str, ...]) -> None:
    assert np.argsort(splits.read_times(text(*cells), formats)).tolist() == [3, 0, 1, 2]


def test_an_unclear_order_of_day_and_month_in_times_is_a_fault() -> None:
    with pytest.raises(
        RowFault, match="whether days or months are first is not clear from cells such as '01/02/2024'"
    ) as caught:
        splits.read_times(text("01/02/2024", "03/04/2024"))
    assert caught.value.option == 'Write `time_format: "%m/%d/%Y"`, or another one, beside `time`.'
    with pytest.raises(RowFault, match="expected the time of the row, received 'unknown'") as caught:
        splits.read_times(text("31.12.2023", "unknown", "01.01.2024"))
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("cells", "row", "message"),
    [
        (("2024-05-31", "31.5.2024"), 1, "received '31.5.2024'"),
        (("2024-05-31", "2024-02-30", "x"), 1, "received '2024-02-30'"),
        (("2024-05-31", None), 1, "expected the time of the row, received nothing"),
        (("3", "", "4"), 1, "expected the time of the row, received nothing"),
        (("2024-05-31T10:00Z", "2024-05-31T10:00"), 1, "received '2024-05-31T10:00'"),
        (("soon",), 0, "expected a number or a date such as 2024-05-31"),
    ],
)
def test_what_is_no_time_is_a_fault_at_its_row(cells: tuple[str | None, ...], row: int, message: str) -> None:
    with pytest.raises(RowFault, match=message) as caught:
        splits.read_times(text(*cells))
    assert caught.value.row == row


WORDS = np.array([f"row {n % 700}" for n in range(1000)])


def test_equal_rows_are_together_by_hash() -> None:
    for seed in range(10):
        assigned = split(seed, a=text(*WORDS), z=np.arange(1000) % 700)(hash=True)
        check_each_row_once(assigned, 1000)
        found = [set(WORDS[assigned[name]]) for name in SPLITS]
        assert sum(map(len, found)) == 700


def test_a_row_keeps_its_split_by_hash_when_rows_are_added_and_moved() -> None:
    order = np.random.default_rng(0).permutation(1000)
    for seed in range(10):
        few = split(seed, a=text(*WORDS[:800]), z=np.arange(800.0))(hash=("a",))
        many = split(seed, z=-np.arange(1000), a=text(*WORDS[order]))(hash=("a",))
        for name in SPLITS:
            assert set(WORDS[few[name]]) <= set(WORDS[order][many[name]])


def test_the_shares_are_met_about_by_hash() -> None:
    assigned = split(z=np.arange(20_000))(hash=True, validation=0.2, test=0.05)
    assert np.abs(np.array(sizes(assigned)) - [15_000, 4_000, 1_000]).max() < 200


def test_a_split_by_hash_is_for_good() -> None:
    assigned = split(7, a=text(*map(str, range(20))), z=np.arange(20))(hash=("a",), test=0.3)
    first_bytes = [
        hashlib.sha256((7).to_bytes(8, "little") + f"{len(str(n))}:{n}".encode()).digest() for n in range(20)
    ]
    assert assigned["test"].tolist() == [n for n in range(20) if int.from_bytes(first_bytes[n][:8]) >= 0.7 * 2**64]
    assert len(assigned["test"]) == 8


def test_another_seed_gives_another_split_by_hash() -> None:
    first, second = (split(seed, z=np.arange(200))(hash=True) for seed in (1, 2))
    assert first["test"].tolist() != second["test"].tolist()


@pytest.mark.parametrize("column", [np.arange(6.0), np.arange(6, dtype="uint8"), np.arange(6)[:, None]])
def test_the_type_of_an_array_does_not_change_its_hash(column: np.ndarray) -> None:
    assert hash_rows([column], 3).tolist() == hash_rows([np.arange(6)], 3).tolist()


def test_rows_that_are_equal_when_joined_have_different_hashes() -> None:
    first = hash_rows([text("ab", "a", None, "1:a"), text("c", "bc", "", "")], 0)
    assert len(set(first.tolist())) == 4
    assert len(set(hash_rows([np.array([0.0, -0.0, np.nan, -np.nan, 1.0])], 0).tolist())) == 3
    assert len(set(hash_rows([np.array([[1, 2], [2, 1], [1, 2]])], 0).tolist())) == 2


def test_missing_and_empty_text_have_the_same_hash() -> None:
    (missing, empty) = hash_rows([text(None, "")], 0).tolist()
    assert missing == empty


def test_encoded_files_are_hashed_by_their_bytes() -> None:
    blobs = FileColumn(np.arange(4), lambda position: [b"a", b"b", b"a", b""][position])
    found = hash_rows([hash_files(blobs)], 0).tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_a_million_rows_are_hashed_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [text(*WORDS), np.arange(1000.0)]
    whole = hash_rows(columns, 5)
    monkeypatch.setattr("bmcli.data.splitting.row_hashes._ROWS_AT_ONCE", 7)
    assert (hash_rows(columns, 5) == whole).all()


def test_a_name_that_is_no_column_is_a_fault_at_its_place() -> None:
    options = {"split": {"hash": ("a", "bb")}, "sample": {"balance": "cc"}}
    data = DataOptions.model_validate(
        {"source": {"kind": "csv", "path": "t.csv"}, "targets": {"a": "number"}, **options}
    )
    with pytest.raises(BmcliError) as caught:
        check_names(SourceRows({"a": np.arange(3)}, None, str), data, data.targets_by_name())
    assert [fault.path for fault in caught.value.faults] == ["data.split.hash.1", "data.sample.balance"]


@pytest.mark.parametrize("way", ["group", "time"])
def test_the_column_of_the_splits_is_no_input_unless_listed(way: str) -> None:
    data = {"source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": "number"}, "split": {way: "a"}}
    columns = {"a": np.arange(3), "b": np.arange(3), "y": np.arange(3)}
    options = DataOptions.model_validate(data)
    assert list(resolve_inputs(columns, options, options.targets_by_name())) == ["b"]
    named = DataOptions.model_validate({**data, "inputs": {"a": "number"}})
    assert list(resolve_inputs(columns, named, named.targets_by_name())) == ["a"]


FOLDS = 4
HOME, WHEN = (
    np.random.default_rng(0).choice(list("abcdefghijklmnopqrst"), 300),
    np.random.default_rng(1).permutation(300),
)
FOLDED = split(seed=3, y=text(*"ab" * 150), home=text(*HOME.tolist()), when=WHEN)


def _folds(**way: Any) -> tuple[list[Splits], Splits]:
    """Each fold, and the splits without."""
    shares = {"validation": 0.2, "test": 0.2, **way}
    return [FOLDED(**shares, fold={"number": n + 1, "of": FOLDS}) for n in range(FOLDS)], FOLDED(**shares)


@pytest.mark.parametrize("way", [{}, {"group": "home"}, {"hash": True}, {"stratify": "none"}])
def test_folds_test_every_row_once_but_those_of_the_test_split(way: dict[str, Any]) -> None:
    folds, without = _folds(**way)
    tested = np.concatenate([fold["test"] for fold in folds])
    assert sorted(tested.tolist()) == sorted([*without["train"].tolist(), *without["validation"].tolist()])
    for fold in folds:
        learned = [*fold["train"].tolist(), *fold["validation"].tolist()]
        assert sorted([*learned, *fold["test"].tolist()]) == sorted(tested.tolist())
        assert 0.1 < len(fold["validation"]) / len(learned) < 0.4
        assert len(fold["test"]) > 0.5 * len(tested) / FOLDS
        if way == {"group": "home"}:
            assert not set(HOME[learned]) & set(HOME[fold["test"]])


def test_folds_in_the_order_of_time_test_what_is_newer() -> None:
    folds, without = _folds(time="when")
    for fold in folds:
        assert WHEN[fold["train"]].max() < WHEN[fold["validation"]].min()
        assert WHEN[fold["validation"]].max() < WHEN[fold["test"]].min()
        assert WHEN[fold["test"]].max() < WHEN[without["test"]].min()


def test_more_folds_than_rows_are_a_fault_of_the_fold() -> None:
    with pytest.raises(BmcliError, match="100 folds need more than") as caught:
        split(y=text(*"ab" * 20))(stratify="none", fold={"number": 1, "of": 100})
    assert caught.value.faults[0].path == "data.split.fold"


RARE = text(*"ab" * 45, *"cdefghijkl")


def test_no_row_of_a_fold_has_a_class_that_training_lacks() -> None:
    for number in range(1, 4):
        found = split(y=RARE)(fold={"number": number, "of": 3})
        codes = encode_categories(RARE)
        assert {*codes[found["test"]], *codes[found["validation"]]} <= {*codes[found["train"]]}


@pytest.mark.parametrize("way", [{}, {"hash": True}, {"group": "who"}], ids=str)
def test_classes_of_one_row_are_in_training(way: dict[str, Any]) -> None:
    rows = SourceRows({"y": RARE, "who": np.arange(100) // 4, "x": np.arange(100)}, None, str)
    options = {"source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": "category"}, "split": way}
    data = DataOptions.model_validate(options)
    for seed in range(5):
        found = splits.split_rows(rows, data, data.targets_by_name(), seed)
        check_each_row_once(found.indices, 100)
        assert {*range(90, 100)} <= {*found.indices["train"].tolist()}
        if "group" in way:
            groups = [{*(found.indices[name] // 4).tolist()} for name in SPLITS]
            assert sum(map(len, groups)) == 25
            assert found.groups == dict(zip(SPLITS, map(len, groups), strict=True))


LABELS = text(*["a;b", "b", ""] * 30, *(f"a;{name}" for name in "cdefghijkl"))
MATRIX = np.vstack([np.tile([1, 0] + [0] * 8, (90, 1)), np.eye(10, dtype="int64")])


@pytest.mark.parametrize("cells", [LABELS, MATRIX], ids=["text", "matrix"])
def test_labels_of_one_row_are_in_training(cells: Any) -> None:
    options = {"source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": {"kind": "labels"}}}
    data = DataOptions.model_validate(options)
    moved = []
    for seed in range(5):
        found = splits.split_rows(SourceRows({"y": cells}, None, str), data, data.targets_by_name(), seed)
        check_each_row_once(found.indices, 100)
        assert {*range(92, 100)} <= {*found.indices["train"].tolist()}
        moved.append(found.moved_rows)
    assert 0 < sum(moved) <= 50


def test_labels_in_columns_of_their_own_are_in_training() -> None:
    rows = {"a": text(*["yes", "no"] * 50), "b": text(*["no"] * 99, "yes"), "c": text(*["no"] * 98, "maybe", "yes")}
    options = {
        "source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": {"kind": "labels", "columns": ("a", "b", "c")}},
    }  # fmt: skip
    data = DataOptions.model_validate(options)
    for seed in range(10):
        found = splits.split_rows(SourceRows(rows, None, str), data, data.targets_by_name(), seed)
        assert 99 in found.indices["train"]


def test_moved_rows_are_counted() -> None:
    data = DataOptions.model_validate({"source": {"kind": "csv", "path": "t.csv"}, "targets": {"y": "category"}})
    moved = [
        splits.split_rows(SourceRows({"y": RARE}, None, str), data, data.targets_by_name(), seed).moved_rows
        for seed in range(9)
    ]
    assert 0 < sum(moved) < 90


def test_rows_that_the_source_has_placed_stay() -> None:
    given = np.where(np.arange(100) % 5 == 0, "test", "train")
    assert split(given=given, y=RARE)()["test"].tolist() == list(range(0, 100, 5))
    assert not {90, 95} & {*split(given=given, y=RARE)(validation=0.2)["train"].tolist()}


def test_the_newest_rows_stay_in_the_test_but_those_of_unknown_classes() -> None:
    found = split(when=np.arange(100), y=text(*"ab" * 45, *"acbdabaeba"))(time="when")
    assert found["test"].tolist() == [90, 92, 94, 95, 96, 98, 99]


def test_classes_of_one_row_each_leave_every_split_its_rows() -> None:
    found = split(y=text(*(f"c{n}" for n in range(30))))()
    assert sizes(found) == [24, 3, 3]


def test_fractions_are_strata() -> None:
    column = np.array([0.5, 1.5] * 50)
    found = split(y=column)()
    assert [np.unique(column[found[name]], return_counts=True)[1].tolist() for name in SPLITS] == [
        [40, 40],
        [5, 5],
        [5, 5],
    ]


def test_spellings_of_a_group_or_stratum_are_one() -> None:
    column = pa.chunked_array([pa.array(["A", "A ", "Zürich", "Zu\u0308rich", "3", "3.0"])])
    for encode in (splits.encode_groups, encode_categories):
        codes = encode(column)
        assert codes[0] == codes[1]
        assert codes[2] == codes[3]
        assert codes[4] == codes[5]
        assert len(set(codes.tolist())) == 3


def test_a_blank_around_the_name_of_a_split_does_not_count() -> None:
    column = pa.chunked_array([pa.array(["train\u00a0", " Test", "\ufeffvalidation"])])
    assert splits.read_split_names(column).tolist() == ["train", "test", "validation"]


def test_blanks_and_normal_forms_do_not_change_the_hash_of_a_row() -> None:
    clean, awkward = (pa.chunked_array([pa.array(cells)]) for cells in (["A", "Zürich"], ["A ", "Zu\u0308rich"]))
    assert hash_rows([clean], 0).tolist() == hash_rows([awkward], 0).tolist()
