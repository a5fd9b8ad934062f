from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from bmcli.evaluation.intervals import Resampling
from bmcli.evaluation.slices import (
    MIN_SLICE_ROWS,
    Slices,
    Slicing,
    add_crossed_slicings,
    can_slice,
    compare_slices,
    cross_slicings,
    make_slicing,
)
from bmcli.metrics.info import ERROR
from bmcli.metrics.weighted_metrics import WeightedMetrics, make_weighted_means

HOW = Resampling(resamples=200)


def _text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def _compare(right: np.ndarray, slicings: tuple[Slicing, ...], how: Resampling = HOW) -> Slices:
    return compare_slices(
        "y", "accuracy", right, slicings, WeightedMetrics(make_weighted_means({"accuracy": right})), how
    )


def _random(rows: int, columns: int, seed: int) -> tuple[Slicing, ...]:
    dice = np.random.default_rng(seed)
    return tuple(make_slicing(f"c{i}", dice.normal(size=rows)) for i in range(columns))


def test_rows_are_divided_by_what_a_column_holds() -> None:
    assert make_slicing("home", _text("rent", "own", None, "rent")).names == ("own", "rent", "missing")
    assert make_slicing("rooms", np.array([2, 1, 2, 3])).names == ("1", "2", "3")
    assert make_slicing("fee", _text("1,5", "10,0", "NULL", "10,0")).names == ("1.5", "10", "missing")
    assert make_slicing("state", _text("none", "unknown")).names == ("none", "unknown")
    found = make_slicing("age", np.array([*range(100), np.nan]), bins=4)
    assert found.names == ("up to 24.75", "24.75 to 49.5", "49.5 to 74.25", "above 74.25", "missing")
    assert np.bincount(found.codes).tolist() == [25, 25, 25, 25, 1]


def test_rare_categories_are_one_slice() -> None:
    found = make_slicing("town", _text(*(f"t{i:02}" for i in range(30) for _ in range(40 - i))))
    assert len(found.names) == 21
    assert found.names[-1] == "other"
    assert np.bincount(found.codes)[-1] == sum(40 - i for i in range(20, 30))


def test_crossed_slices_are_the_pairs_that_occur() -> None:
    first, second = make_slicing("a", _text("x", "x", "y")), make_slicing("b", _text("1", "2", "1"))
    found = cross_slicings(first, second)
    assert found.name == "a x b"
    assert [found.names[code] for code in found.codes] == ["x, 1", "x, 2", "y, 1"]
    assert len(add_crossed_slicings((first, second))) == 3


def test_a_planted_bad_slice_is_the_worst_of_all_pairs() -> None:
    dice = np.random.default_rng(0)
    home, sex = (make_slicing(name, _text(*dice.choice(list("abcd"), 3000))) for name in ("home", "sex"))
    bad = (home.codes == 1) & (sex.codes == 2)
    right = dice.random(3000) < np.where(bad, 0.6, 0.9)
    found = _compare(right, add_crossed_slicings((home, sex, *_random(3000, 5, 1))))
    worst = found.slices[0]
    assert (worst.slicing, worst.name) == ("home x sex", "b, c")
    assert worst.adjusted_p_value < 0.05
    assert found.significantly_worse >= 1
    assert worst.interval is not None
    assert worst.interval.low < 0.6 < worst.interval.high < 0.85
    assert worst.metrics["accuracy"] == worst.value == pytest.approx(right[bad].mean())
    assert "compared slices" in found.summary


def test_where_all_slices_are_alike_hardly_any_search_finds_one() -> None:
    found = 0
    for seed in range(60):
        right = np.random.default_rng([9, seed]).random(400) < 0.85
        found += bool(
            _compare(right, add_crossed_slicings(_random(400, 4, seed)), Resampling(resamples=100)).significantly_worse
            > 0
        )
    assert found <= 6


def test_rows_that_belong_together_are_less_evidence() -> None:
    groups = np.repeat(np.arange(40), 10)
    errors = np.random.default_rng(5).normal(size=40)[groups] ** 2
    parts = (make_slicing("half", (groups % 2).astype(float)),)
    figures = WeightedMetrics(make_weighted_means({"mae": errors}))
    alone = compare_slices("y", "mae", errors, parts, figures, HOW).slices[0]
    together = compare_slices("y", "mae", errors, parts, figures, Resampling(resamples=200, groups=groups)).slices[0]
    assert together.p_value > alone.p_value


def test_small_slices_are_counted_and_left_out() -> None:
    column = _text(*["a"] * 100, *["b"] * (MIN_SLICE_ROWS - 1))
    found = _compare(np.arange(100 + MIN_SLICE_ROWS - 1) % 3 > 0, (make_slicing("c", column),))
    assert (found.compared, found.skipped) == (1, 1)


def test_for_errors_more_is_worse() -> None:
    errors = np.where(np.arange(200) % 2, 2.0, 1.0) + np.random.default_rng(0).random(200)
    parts = (make_slicing("parity", (np.arange(200) % 2).astype(float)),)
    figures = WeightedMetrics(make_weighted_means({"mae": errors}), info={"mae": ERROR})
    found = compare_slices("y", "mae", errors, parts, figures, HOW)
    assert (found.slices[0].name, found.significantly_worse) == ("1", 1)


def test_columns_with_unique_values_are_no_slices() -> None:
    assert not can_slice(_text(*(f"id{i}" for i in range(50))))
    assert not can_slice(np.zeros((5, 3)))
    assert can_slice(_text(*"aabb"))
    assert can_slice(np.arange(50.0))


def test_values_pass_through_json() -> None:
    found = _compare(np.arange(100) % 5 > 0, (make_slicing("c", np.arange(100) % 2),))
    assert Slices.from_json(json.loads(json.dumps(found.to_json()))) == found
