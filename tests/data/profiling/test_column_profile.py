"""Profiles of columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data.profiling.column_profile import ColumnProfile, profile_column
from bmcli.raw_columns import ColumnCells, RawColumn


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([list(cells)], pa.string())


def test_numbers_are_counted_and_measured() -> None:
    found = profile_column("a", text("1", "2", None, "2", "4"))
    assert (found.is_number, found.is_integer, found.missing, found.distinct) == (True, True, 1, 3)
    assert (found.minimum, found.maximum, found.mean, found.top_share) == (1, 4, 2.25, 0.5)
    assert not profile_column("a", text("1.5", "2")).is_integer


def test_a_counter_has_each_number_once_in_any_order() -> None:
    assert profile_column("a", text("3", "1", "2")).is_row_index
    assert profile_column("a", np.array([7, 8, 9])).is_row_index
    assert not profile_column("a", text("1", "2", "4")).is_row_index
    assert not profile_column("a", text("1", "2", None)).is_row_index


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("yes", "No", None), "is_boolean"),
        (("true", "false"), "is_boolean"),
        (("2024-01-31", "2024-02-01"), "is_date"),
        (("1949-01", "1949-02"), "is_date"),
        (("31/12/2024", "1/1/2025"), "is_date"),
        (("2024-01-31 10:30:00", None), "is_date"),
        (("a/1.wav", "b/2.wav"), "is_file"),
        (("a/1.PNG", "b/2.jpeg"), "is_picture"),
    ],
)
def test_cells_of_one_sort_are_known(cells: tuple[str | None, ...], expected: str) -> None:
    found = profile_column("a", text(*cells))
    sorts = {name for name in ("is_boolean", "is_date", "is_file", "is_picture") if getattr(found, name)}
    assert expected in sorts
    assert sorts <= {expected, "is_file"}


@pytest.mark.parametrize("cells", [("yes", "maybe"), ("yes", "on"), ("2024-01-31", "soon"), ("see 1.2", "e.g. this")])
def test_other_words_are_only_words(cells: tuple[str, ...]) -> None:
    found = profile_column("a", text(*cells))
    assert not any((found.is_boolean, found.is_date, found.is_file, found.is_number))


def test_splits_need_training_rows_and_others() -> None:
    assert profile_column("a", text("train", "Test", "dev")).splits == ("train", "validation", "test")
    assert profile_column("a", text("train", "train")).splits == ()
    assert profile_column("a", text("train", "bus")).splits == ()
    assert profile_column("a", text("train", "test", None)).splits == ()


@pytest.mark.parametrize("column", [text(None, None), np.array([np.nan, np.nan])])
def test_nothing_has_no_values(column: RawColumn) -> None:
    assert profile_column("a", column) == ColumnProfile("a", 2, 2, dtype=profile_column("a", column).dtype)


def test_arrays_have_a_shape() -> None:
    found = profile_column("a", np.full((3, 4, 5), np.nan))
    assert (found.shape, found.is_array, found.missing) == ((4, 5), True, 60)
    assert profile_column("a", np.ones((3, 4))).distinct == 1


def test_words_are_counted() -> None:
    assert ColumnCells("a", text("one two", "three four five six")).mean_words == 3
