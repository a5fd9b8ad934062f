"""Cells unlike those of the training rows are counted, alike from raw and from encoded cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli import inputs, parts
from bmcli.raw_columns import RawColumn
from tests.inputs.test_laws import CASES, Case, every_case


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def count(kind: str, rows: RawColumn, more: RawColumn, **options: Any) -> int:
    """Fit a column, and count the unseen cells among further rows, both ways."""
    part = parts.load("inputs", kind)
    column = part.fit("x", rows, part.Options(**options))
    traits = part.get_traits(column)
    counts = {traits.count_unseen(more, None), traits.count_unseen(more, part.encode(more, column))}
    assert len(counts) == 1
    return int(counts.pop())


@every_case
def test_raw_and_encoded_cells_give_the_same_count(case: Case) -> None:
    column = case.fit()
    traits = inputs.get_traits(column)
    for rows in (case.rows, case.more):
        encoded = inputs.kind_of(column).encode(rows, column)
        assert traits.count_unseen(rows, None) == traits.count_unseen(rows, encoded)


@pytest.mark.parametrize("name", [name for name in CASES if "rare" not in name and "most frequent" not in name])
def test_training_rows_are_seen_but_for_the_share_that_the_column_knows(name: str) -> None:
    column = CASES[name].fit()
    traits = inputs.get_traits(column)
    assert traits.count_unseen(CASES[name].rows, None) == pytest.approx(traits.unseen_share * len(CASES[name].rows))


def test_unknown_categories_are_counted_and_missing_ones_are_not() -> None:
    assert count("category", text("a", "b"), text("a", "c", "", None, " b", "C")) == 2
    assert count("category", np.array([1, 2]), np.array([1, 5, 7])) == 2
    assert count("category", text("a;b", "b"), text("a;c", "c;d", "b", None), separator=";") == 2
    assert count("category", text("a", "b"), text("c"), encoding="hash") == 0


def test_rare_categories_are_known_to_be_a_share_of_the_training_rows() -> None:
    part = parts.load("inputs", "category")
    column = part.fit("x", text("a", "a", "a", "b"), part.Options(min_count=2))
    assert part.get_traits(column).unseen_share == 0.25


def test_numbers_far_outside_of_the_training_rows_are_counted() -> None:
    rows = text("10", "20", None)
    assert count("number", rows, text("0", "30", "-0.5", "30.5", None, "15")) == 2
    for options in ({"log": True}, {"scale": "quantile"}, {"bins": 2}, {"scale": "none"}, {"scale": "minmax"}):
        assert count("number", rows, text("1e6", "12"), **options) == 1


def test_every_other_number_than_a_constant_is_counted() -> None:
    assert count("number", text("0.1", "0.1", "0.1"), text("0.1", "0.2")) == 1


def test_a_row_of_several_numbers_is_counted_once() -> None:
    rows = np.array([[0.0, 5.0], [1.0, 6.0]])
    assert count("number", rows, np.array([[9.0, 90.0], [0.5, 5.5], [0.5, 90.0]])) == 2


def test_dates_far_outside_of_the_training_rows_are_counted() -> None:
    rows, more = text("2021-01-01", "2021-12-31"), text("2022-06-01", "2024-01-01", "0021-05-01", None, "2021-06-01")
    assert count("date", rows, more) == 2
    assert count("date", rows, more, parts=("month",)) == 2


def test_texts_without_a_known_term_are_counted() -> None:
    rows, more = text("red house", "old house"), text("a house", "new tower", "", None, "x " * 100 + "house")
    tokens = {"kind": "words", "min_count": 1}
    assert count("text", rows, more, tokens=tokens) == 1
    assert count("text", rows, more, tokens=tokens, encoding="sequence", length=300) == 1


@pytest.mark.parametrize(
    ("kind", "rows", "more"),
    [
        ("boolean", text("yes", "no"), text("yes", "perhaps", "", None)),
        ("boolean", np.array([0.0, 1.0]), np.array([1.0, 2.0, np.nan])),
        ("date", text("2021-01-01", "2021-12-31"), text("2021-05-01", "soon", "2021-02-30 ", None)[:3]),
    ],
)
def test_cells_that_a_served_model_takes_as_missing_are_counted(kind: str, rows: RawColumn, more: RawColumn) -> None:
    part = parts.load("inputs", kind)
    traits = part.get_traits(part.fit("x", rows, part.Options()))
    assert traits.count_unseen(more, None) == (2 if kind == "date" else 1)
