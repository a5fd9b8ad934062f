"""Rows that follow each other in time are recognised by the order and the distances of their dates."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data.profiling.time_order import describe_order, divides_classes, is_birth

START = datetime(2024, 1, 1)
HOURS = [START + timedelta(hours=row) for row in range(300)]
SHUFFLED = np.random.default_rng(0).permutation(300)


def column(times: list[datetime], style: str = "%Y-%m-%d %H:%M:%S") -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([f"{time:{style}}" for time in times])])


def months(count: int) -> list[datetime]:
    return [datetime(2000 + row // 12, row % 12 + 1, 1) for row in range(count)]


def working_days(count: int) -> list[datetime]:
    return [day for day in (START + timedelta(days=row) for row in range(2 * count)) if day.weekday() < 5][:count]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (HOURS, "every hour"),
        (HOURS[::-1], "every hour"),
        ([HOURS[row] for row in SHUFFLED], "every hour"),
        ([HOURS[row // 2] for row in SHUFFLED], ""),  # in no order
        ([time for time in HOURS for _ in "abc"], "every hour"),  # three sensors, side by side
        (3 * HOURS, "every hour"),  # three sensors, one after the other
        ([START + timedelta(minutes=15 * row) for row in range(96)], "every 15 minutes"),
        ([time.replace(hour=0) for time in HOURS * 3], ""),  # 13 days are too few
        ([START + timedelta(days=row // 24) for row in range(2400)], "every day"),
        (working_days(100), "every day"),
        (months(60), "every month"),
        ([START.replace(year=year) for year in range(1980, 2020)], "every year"),
        (HOURS[:150] + HOURS[170:], "every hour"),  # with a gap
    ],
)
def test_times_at_equal_distances_follow_each_other(times: list[datetime], expected: str) -> None:
    order = describe_order(column(times), ("iso",))
    assert order == (f"its times follow each other {expected}" if expected else "")


def test_sorted_times_follow_each_other_however_far_apart() -> None:
    gaps = np.random.default_rng(0).exponential(1000, 200).cumsum()
    times = [START + timedelta(seconds=float(second)) for second in gaps]
    assert describe_order(column(times), ("iso",)) == "the rows are sorted by it"
    assert describe_order(column(times[::2] + times[1::2]), ("iso",)) == ""


@pytest.mark.parametrize("spread", [20_000, 300])
def test_dates_of_persons_or_orders_are_unevenly_spread(spread: int) -> None:
    days = np.random.default_rng(0).triangular(0, spread, spread, 900).astype(int)
    assert describe_order(column([START + timedelta(days=int(day)) for day in days]), ("iso",)) == ""


def test_formats_are_those_of_the_guess() -> None:
    assert (
        describe_order(column(HOURS, "%d.%m.%Y %H:%M"), ("%d.%m.%Y %H:%M",)) == "its times follow each other every hour"
    )
    assert describe_order(column([*HOURS[:-1]]).slice(0, 10), ("iso",)) == ""


def test_classes_that_come_one_after_the_other_are_divided() -> None:
    times = column(HOURS)
    assert divides_classes(times, ("iso",), pa.chunked_array([["a"] * 150 + ["b"] * 150]), 0.1)
    assert not divides_classes(times, ("iso",), pa.chunked_array([["a", "b"] * 150]), 0.1)
    # A rare class may be missing among the newest rows.
    assert not divides_classes(times, ("iso",), pa.chunked_array([["rare"] * 5 + ["a"] * 295]), 0.1)


@pytest.mark.parametrize("name", ["date_of_birth", "DateOfBirth", "dob", "born", "Geburtsdatum", "customer_dob"])
def test_a_birth_is_no_time_of_a_row(name: str) -> None:
    assert is_birth(name)


@pytest.mark.parametrize("name", ["date", "time", "ordered", "adobe_date"])
def test_other_names_may_be_times(name: str) -> None:
    assert not is_birth(name)
