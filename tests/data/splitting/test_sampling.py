"""Fewer training rows: none twice, nested, balanced or in proportion, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmcli.data.resolution import resolve_options
from bmcli.data.splitting.sampling import sample_rows
from bmcli.errors import BmcliError
from bmcli.recipe.data import DataOptions, SampleOptions
from bmcli.recipe.fields import dump
from bmcli.specs import SPLITS, PreparedData
from tests.data.test_preparation import TABLE, run, table

ROWS = np.arange(0, 900, 3)
STRATA = np.repeat([0, 1, 2], [600, 270, 30])  # in ROWS: 200, 90 and 10


def balanced(count: int | None = None, share: float | None = None) -> SampleOptions:
    return SampleOptions(count=count, share=share, balance="y")


@given(
    few=st.integers(1, 300),
    more=st.integers(0, 299),
    seed=st.integers(0, 2**32 - 1),
    strata=st.sampled_from([None, STRATA]),
    balance=st.sampled_from([None, "y"]),
)
def test_a_smaller_sample_is_part_of_a_larger_one(
    few: int, more: int, seed: int, strata: Any, balance: str | None
) -> None:
    larger = min(300, few + more)
    first, second = (
        sample_rows(ROWS, SampleOptions(count=count, balance=balance), seed, strata) for count in (few, larger)
    )
    assert (len(first), len(second)) == (few, larger)
    assert set(first) <= set(second) <= set(ROWS)
    assert (np.diff(second) > 0).all()
    assert (sample_rows(ROWS, SampleOptions(count=few, balance=balance), seed, strata) == first).all()


def test_a_share_is_that_of_the_training_rows() -> None:
    assert [len(sample_rows(ROWS, share, 0)) for share in (0.01, 0.1, 0.5, 0.999)] == [3, 30, 150, 300]


def test_a_whole_number_is_a_count() -> None:
    assert len(sample_rows(ROWS, 1, 0)) == 1
    assert sample_rows(ROWS, 300, 0).tolist() == ROWS.tolist()


def test_another_seed_takes_other_rows() -> None:
    assert sample_rows(ROWS, 30, 0).tolist() != sample_rows(ROWS, 30, 1).tolist()


def test_the_same_rows_for_good() -> None:
    assert sample_rows(ROWS, 5, 7).tolist() == [189, 690, 762, 789, 864]


@pytest.mark.parametrize("count", [30, 60, 150, 299])
def test_a_sample_keeps_the_proportions_of_the_splits(count: int) -> None:
    kept = np.bincount(STRATA[sample_rows(ROWS, count, 4, STRATA)], minlength=3)
    assert np.abs(kept - np.array([200, 90, 10]) * count / 300).max() <= 1


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [1, 1, 1]), (30, [10, 10, 10]), (60, [25, 25, 10]), (200, [100, 90, 10])]
)
def test_a_balanced_sample_has_equally_many_as_far_as_there_are(count: int, expected: list[int]) -> None:
    assert np.bincount(STRATA[sample_rows(ROWS, balanced(count), 0, STRATA)]).tolist() == expected


def test_balanced_alone_takes_as_many_as_the_rarest_has() -> None:
    assert np.bincount(STRATA[sample_rows(ROWS, balanced(), 0, STRATA)]).tolist() == [10, 10, 10]


def test_a_balanced_share() -> None:
    assert np.bincount(STRATA[sample_rows(ROWS, balanced(share=0.2), 0, STRATA)]).tolist() == [25, 25, 10]


def test_more_rows_than_there_are_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="expected a sample of at most 300 training rows, received 301"):
        sample_rows(ROWS, 301, 0)


def test_a_share_of_no_row_is_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"0\.001 of 300 training rows is less than one row"):
        sample_rows(ROWS, 0.001, 0)


def ranks(prepared: PreparedData, split: str) -> set[float]:
    """Return the rows of a split, identified by a column of different numbers."""
    column = prepared.spec.input("rank").state
    encoded = prepared.split(split).inputs["rank"][:, 0].astype("float64")
    return set(np.round(encoded * column["scale"][0] + column["offset"][0], 3).tolist())


@pytest.mark.parametrize("sampled", [0.5, 12, {"count": 12, "balance": "city"}])
def test_validation_and_test_rows_stay(cache: Path, file: Path, sampled: Any) -> None:
    data = table(file, split={"column": "split", "validation": 0.25})
    whole, some = run(cache, **data), run(cache, **data, sample=sampled)
    assert whole.spec.key != some.spec.key
    assert some.spec.counts == {"train": 18 if sampled == 0.5 else 12, "validation": 12, "test": 12}
    assert ranks(some, "train") < ranks(whole, "train")
    for split in ("validation", "test"):
        assert ranks(some, split) == ranks(whole, split)


def test_preprocessing_is_fitted_on_the_sample_alone(cache: Path, file: Path) -> None:
    some = run(cache, **table(file, sample=12))
    assert some.split("train").inputs["age"].mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("split", [{}, {"group": "rank"}, {"time": "rank"}, {"hash": True}, {"column": "split"}])
@pytest.mark.parametrize("sampled", [None, 0.5, {"balance": "y"}])
def test_what_was_resolved_gives_the_same_arrays(cache: Path, file: Path, split: Any, sampled: Any) -> None:
    data = table(file, TABLE.replace(",test,", ",validation,"), split=split, sample=sampled)
    first = run(cache, **data)
    options = DataOptions.model_validate(data)
    found = dump(resolve_options(options, options.targets_by_name(), first.spec))
    assert found.pop("seed") is None, "the recipe's decides"
    again = run(cache, **found)
    assert again.spec.counts == first.spec.counts
    for name in SPLITS:
        arrays = [{**each.split(name).inputs, **each.split(name).targets} for each in (first, again)]
        assert arrays[0].keys() == arrays[1].keys()
        assert all((arrays[0][column] == arrays[1][column]).all() for column in arrays[0])
