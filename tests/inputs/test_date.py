from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bmcli import dates
from bmcli.dates import parsing, reading
from bmcli.encoder import date as encoder_of_dates
from bmcli.errors import BmcliError
from bmcli.inputs import Guess, date
from bmcli.layers.date_encoder import PERIODS, DateEncoder
from bmcli.raw_columns import ColumnCells, RowFault
from bmcli.specs import Column

NAN = float("nan")


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def fit(rows: Any, **options: Any) -> Column:
    return date.fit("x", rows, date.Options(**options))


def seconds(cell: str, form: str) -> int | None:
    """Read a cell by the layer, in NumPy, and by the encoder beside artefacts, which must agree."""
    moments, present = DateEncoder([form], ["trend"], 0.0, 1.0).seconds([cell])
    times, is_date = parsing.parse_times(text(cell), [form])
    pattern = dates.compile_format(form)
    state = {"formats": [form], "patterns": [[form, pattern.regex, list(pattern.fields)]], "missing_cells": []}
    encoded = encoder_of_dates._parse_seconds(cell, {"raw_dtype": "string", "state": state})
    found = {
        int(moments[0]) if present[0] else None,
        int(times[0] // parsing.MICROSECONDS) if is_date[0] else None,
        encoded,
    }
    assert len(found) == 1
    return found.pop()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), min_size=1, max_size=20))
def test_every_moment_of_the_calendar_is_read_as_python_reads_it(moments: list[datetime]) -> None:
    moments = [moment.replace(microsecond=0) for moment in moments]
    layer = DateEncoder(["iso"], ["month", "day", "day_of_year", "weekday", "hour", "minute"], 0.0, 1.0)
    found, present = layer.seconds([moment.isoformat() for moment in moments])
    assert bool(np.all(present))
    expected_s = [round((m - datetime(1970, 1, 1)) / timedelta(seconds=1)) for m in moments]
    assert found.numpy().tolist() == expected_s
    times, is_date = parsing.parse_times(text(*(moment.isoformat() for moment in moments)), ["iso"])
    assert (times // parsing.MICROSECONDS).tolist() == expected_s
    assert is_date.all()
    steps = [
        (m.month - 1, m.day - 1, m.timetuple().tm_yday - 1, m.weekday(), m.hour * 60 + m.minute, m.minute)
        for m in moments
    ]
    angles = 2 * np.pi * np.array(steps) / [PERIODS[part] for part in layer.parts]
    expected = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(moments), -1)
    np.testing.assert_allclose(layer.encode(found, present), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "form", "expected"),
    [
        ("2024-02-29", "iso", datetime(2024, 2, 29)),
        (" 2024-02-29T23:59 ", "iso", datetime(2024, 2, 29, 23, 59)),
        ("2024-02-29 01:02:03.999", "iso", datetime(2024, 2, 29, 1, 2, 3)),
        ("2024-02-29T01:00:00Z", "iso", datetime(2024, 2, 29, 1)),
        ("2024-02-29T01:00:00+05:30", "iso", datetime(2024, 2, 28, 19, 30)),
        ("2024-02-29T01:00-0130", "iso", datetime(2024, 2, 29, 2, 30)),
        ("29.2.2024", "%d.%m.%Y", datetime(2024, 2, 29)),
        ("1/2/69", "%m/%d/%y", datetime(1969, 1, 2)),
        ("1/2/68", "%m/%d/%y", datetime(2068, 1, 2)),
        ("20240229", "%Y%m%d", datetime(2024, 2, 29)),
        ("29022024", "%d%m%Y", datetime(2024, 2, 29)),
        ("1022024", "%d%m%Y", datetime(2024, 2, 1)),
        ("11112024", "%m%d%Y", datetime(2024, 11, 11)),
        ("1122024.0", "%m%d%Y", datetime(2024, 1, 12)),
        ("122024", "%d%m%Y", None),
        ("3 SEPT 2024", "%d %b %Y", datetime(2024, 9, 3)),
        ("Mon, 03 June 2024 12:05 am", "%a, %d %B %Y %I:%M %p", datetime(2024, 6, 3, 0, 5)),
        ("June 3, 2024 12:05 PM", "%b %d, %Y %I:%M %p", datetime(2024, 6, 3, 12, 5)),
        ("May 2024", "%b %Y", datetime(2024, 5, 1)),
        ("100% 2024/5", "100%% %Y/%m", datetime(2024, 5, 1)),
        ("1709164800.75", "seconds", datetime(2024, 2, 29)),
        ("1709164800999", "milliseconds", datetime(2024, 2, 29)),
        ("2024-02-29t01:00:00z", "iso", datetime(2024, 2, 29, 1)),
        ("2024-02-29  01:00:00,5 +01", "iso", datetime(2024, 2, 29)),
        ("2024-02-29T01:00 UTC", "iso", datetime(2024, 2, 29, 1)),
        ("202402291530", "%Y%m%d%H%M", datetime(2024, 2, 29, 15, 30)),
        ("20240229.0", "%Y%m%d", datetime(2024, 2, 29)),
        ("20240229T153000Z", "%Y%m%dT%H%M%S%z", datetime(2024, 2, 29, 15, 30)),
        ("31st Jan. 2024", "%d %b %Y", datetime(2024, 1, 31)),
        ("31JAN2024:10:30", "%d%b%Y:%H:%M", datetime(2024, 1, 31, 10, 30)),
        ("1/31/2024 3:05 p.m.", "%m/%d/%Y %I:%M %p", datetime(2024, 1, 31, 15, 5)),
        ("31/Jan/2024:14:05:00 -0500", "%d/%b/%Y:%H:%M:%S %z", datetime(2024, 1, 31, 19, 5)),
        ("2021-W05", "%G-W%V", datetime(2021, 2, 1)),
        ("2020-W53-7", "%G-W%V-%u", datetime(2021, 1, 3)),
        ("2021-W53", "%G-W%V", None),
        ("0000-00-00", "iso", None),
        ("0001-01-01", "iso", None),
        ("9999-12-31 23:59:59", "iso", None),
        ("99991231", "%Y%m%d", None),
        ("2023-02-29", "iso", None),
        ("31.4.2024", "%d.%m.%Y", None),
        ("2024-13-01", "iso", None),
        ("2024-1-1", "iso", None),
        ("2024021", "%Y%m%d", None),
        ("24:00 1.1.2024", "%H:%M %d.%m.%Y", None),
        ("yesterday", "iso", None),
        ("99999999999999", "seconds", None),
        ("", "iso", None),
    ],
)
def test_formats(cell: str, form: str, expected: datetime | None) -> None:
    moment = None if expected is None else round(expected.replace(tzinfo=UTC).timestamp())
    assert seconds(cell, form) == moment


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["2024-01-31", None, "1999-12-01 10:00:00"], "iso"),
        (["31/1/2024", "01/02/2024"], "%d/%m/%Y"),
        (["1/31/24", "01/02/24"], "%m/%d/%y"),
        (["31.01.2024 10:00", ""], "%d.%m.%Y %H:%M"),
        (["Jan 31, 2024", "February 1, 2024"], "%b %d, %Y"),
        (["20240131", "19991231"], "%Y%m%d"),
        (["2021-1-5", "2021-12-31"], "%Y-%m-%d"),
        (["202401311530", "199912312359"], "%Y%m%d%H%M"),
        (["20240131.0", "19991231.0"], "%Y%m%d"),
        (["31/01/2024", "01/02/2024", "UNKNOWN", "9999-12-31"], "%d/%m/%Y"),
        (["01.02.2024", "03.04.2024"], "%d.%m.%Y"),
        (["21-01-31", "21-02-28", "21-03-15", "22-01-01", "22-01-02"], "%y-%m-%d"),
        (["31-01-21", "28-02-21", "15-03-21", "01-01-22", "02-01-22"], "%d-%m-%y"),
        (["2021-W05", "2021-W53", "2020-W53"][::2], "%G-W%V"),
        (["1709164800", "1709164900"], "seconds"),
        (["1709164800000", "1709164900123"], "milliseconds"),
    ],
)
def test_the_only_format_that_fits_is_found(cells: list[str | None], form: str) -> None:
    assert fit(text(*cells)).state["formats"] == [form]


def test_usual_formats_are_all_right() -> None:
    formats = [day + time for day in reading.DAY_FORMATS for time in reading.TIME_FORMATS[:4]]
    assert len(set(formats)) == len(formats)
    for form in formats:
        if form.count("%H") <= 1:
            assert dates.compile_format(form).fields


def test_times_with_and_without_seconds_are_read_together() -> None:
    column = fit(text("31/01/2024 10:00", "28/02/2024 10:00:30"))
    assert column.state["formats"] == ["%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S"]


def test_a_date_that_can_be_read_in_two_ways_is_a_fault() -> None:
    with pytest.raises(BmcliError, match=r"such as '01/02/2024' can be read as %m/%d/%Y and %d/%m/%Y") as caught:
        fit(text(None, "01/02/2024", "03/04/2024"))
    assert caught.value.faults[0].path == "data.inputs.x.format"
    assert caught.value.faults[0].suggestion == 'Set one of them: `format: "%m/%d/%Y"`.'


def test_days_before_and_after_months_are_a_fault() -> None:
    days = [datetime(2021, 1, 1) + timedelta(days=day) for day in range(60)]
    cells = [day.strftime("%d/%m/%Y" if row % 2 else "%m/%d/%Y") for row, day in enumerate(days)]
    with pytest.raises(
        BmcliError, match="some have the day before the month, and others after it, such as '14/01/2021'"
    ):
        fit(text(*cells))
    guessed = guess(text(*cells))
    assert guessed is not None
    assert guessed.obstacle.startswith("dates of which some have the day before the month")


def test_a_column_in_three_formats_is_a_fault_unless_they_are_listed() -> None:
    rows = text("2024-01-31", "31.01.2024", "Jan 31, 2024", "2024-02-01")
    with pytest.raises(BmcliError, match=r"written in 3 formats: iso, %d.%m.%Y and %b %d, %Y") as caught:
        fit(rows)
    assert '`format: ["iso", "%d.%m.%Y", "%b %d, %Y"]`' in caught.value.faults[0].suggestion
    column = fit(rows, format=("iso", "%d.%m.%Y", "%b %d, %Y"))
    array = date.encode(rows, column)
    assert (array[:3] == array[0]).all()
    assert array[3, 0] > array[0, 0]


@pytest.mark.parametrize(
    ("cells", "options", "received"),
    [
        (["2024-01-31", "soon"], {}, "expected a date in the format iso, received 'soon'"),
        (["2024-01-31", "2024-02-30"], {}, "format iso, received '2024-02-30'"),
        (["2024-01-31", "31.1.2024"], {"format": "iso"}, "format iso, received '31.1.2024'"),
    ],
)
def test_what_is_no_date_is_a_fault(cells: list[str], options: dict[str, Any], received: str) -> None:
    with pytest.raises(RowFault, match=received) as caught:
        fit(text(*cells), **options)
    assert (caught.value.row, caught.value.cell) == (1, cells[1])


def test_a_date_of_another_split_that_cannot_be_read_is_a_fault() -> None:
    column = fit(text("2024-01-31", "2024-02-01"))
    with pytest.raises(RowFault, match=r"received '1\.2\.2024'") as caught:
        date.encode(text("2024-01-31", None, "1.2.2024"), column)
    assert caught.value.row == 2


def test_missing_dates_are_the_middle_and_flagged() -> None:
    column = fit(text("2024-01-01", None, "2024-01-03"), parts=("trend", "weekday"))
    array = date.encode(text(None, "2024-01-02"), column)
    assert array[0].tolist() == [0, 0, 0, 1]
    assert array[1, [0, 3]].tolist() == [0, 0]
    unflagged = fit(text("2024-01-01", "2024-01-03"), parts=("trend",))
    assert date.encode(text(None, "2024-01-03"), unflagged).tolist() == [[0], [1]]


def test_the_time_of_day_is_a_part_where_rows_have_it() -> None:
    assert fit(text("2024-01-01", "2024-01-02")).state["parts"] == ["trend", "day_of_year", "weekday"]
    assert fit(text("2024-01-01 10:30")).state["parts"] == ["trend", "day_of_year", "weekday", "hour"]
    with pytest.raises(BmcliError, match="have dates without a time of day, so there is no hour") as caught:
        fit(text("2024-01-01"), parts=("trend", "hour"))
    assert caught.value.faults[0].path == "data.inputs.x.parts.1"


def test_numbers_are_seconds_or_milliseconds() -> None:
    column = fit(np.array([0.0, NAN, 86400.0]), parts=("trend",))
    assert date.encode(np.array([0, 86400, 43200]), column).tolist() == [[-1, 0], [1, 0], [0, 0]]
    column = fit(np.array([[0], [86_400_000]]), parts=("trend",), format="milliseconds")
    assert date.encode(np.array([[0], [86_400_000]]), column).tolist() == [[-1], [1]]
    with pytest.raises(BmcliError, match="digits such as %Y%m%d, because the column has numbers, received iso"):
        fit(np.array([20240131]), format="iso")
    with pytest.raises(BmcliError, match="expected one date a row"):
        fit(np.zeros((2, 3)))
    with pytest.raises(RowFault, match="expected a date in the format seconds, received 1e\\+300"):
        fit(np.array([1e300]))


@pytest.mark.parametrize("rows", [np.array([20240131, 20240229]), np.array([20240131.0, NAN, 20240229.0])])
def test_numbers_whose_digits_are_days_are_dates(rows: Any) -> None:
    column = fit(rows)
    assert (column.state["formats"], column.raw_dtype) == (["%Y%m%d"], "float64")
    found = date.encode(rows, column)
    wanted = date.encode(
        text("2024-01-31", *([None] if len(rows) > 2 else []), "2024-02-29"),
        fit(text("2024-01-31", *([None] if len(rows) > 2 else []), "2024-02-29")),
    )
    np.testing.assert_array_equal(found, wanted)


def guess(rows: Any, name: str = "x") -> Guess | None:
    return date.guess(ColumnCells(name, rows))


DAYS = [datetime(2021, 1, 1) + timedelta(days=7 * week) for week in range(100)]


def test_one_foreign_cell_does_not_change_that_a_column_is_dates() -> None:
    for foreign in ("unknown", "n/a", "0000-00-00", "9999-12-31"):
        guessed = guess(text(*(f"{day:%Y-%m-%d}" for day in DAYS), foreign))
        assert guessed is not None
        assert (guessed.kind, guessed.options, guessed.foreign) == ("date", {}, {})
        assert f"missing: '{foreign}' (1)" in guessed.why
    guessed = guess(text(*(f"{day:%Y-%m-%d}" for day in DAYS), "see note", "2021-02-30", "see note"))
    assert guessed is not None
    assert guessed.foreign == {"see note": 2, "2021-02-30": 1}
    assert guess(text(*(f"{day:%Y-%m-%d}" for day in DAYS), *["see note"] * 10)) is None


def test_the_order_of_day_and_month_is_guessed_from_all_cells() -> None:
    for form, why in (
        ("%d/%m/%Y", "days are first, as in 15/01/2021"),
        ("%m/%d/%Y", "months are first, as in 01/15/2021"),
        ("%d.%m.%y", "its year is the part that changes least"),
    ):
        guessed = guess(text(*(day.strftime(form) for day in DAYS)))
        assert guessed is not None
        assert guessed.options == {"format": form}
        assert why in guessed.why
        assert not guessed.doubt
    doubtful = guess(text("01/02/2024", "03/04/2024"))
    assert doubtful is not None
    assert doubtful.options == {"format": "%m/%d/%Y"}
    assert 'write `format: "%d/%m/%Y"`' in doubtful.doubt


def test_numbers_are_days_only_where_that_is_no_accident() -> None:
    days = [int(f"{day:%Y%m%d}") for day in DAYS]
    for rows in (np.array(days), np.array([*map(float, days), NAN]), text(*map(str, days), "0", "unknown")):
        guessed = guess(rows)
        assert guessed is not None
        assert guessed.options == {"format": "%Y%m%d"}
    assert guess(np.array(days[:5])) is None
    assert guess(np.array(days[:5]), "order_date") is not None
    assert guess(np.arange(20210101, 20210101 + 200), "day") is None  # a count: February has no 40 days
    assert guess(np.array([1999, 2000, 2021]), "year") is None
    assert guess(np.array([202101, 202102, 202112]), "price") is None
    assert guess(np.array([202101, 202102, 202112]), "month") is not None


def test_seconds_since_1970_are_a_doubt_and_no_date() -> None:
    guessed = guess(np.array([int(day.timestamp()) for day in DAYS]), "created_at")
    assert guessed is not None
    assert guessed.needs_options
    assert guessed.certainty < 0.5
    assert guessed.doubt == "if its numbers are seconds since 1970, write `{kind: date, format: seconds}`"
    assert guess(np.array([int(day.timestamp()) for day in DAYS]), "amount") is None


def test_missing_cells_of_the_recipe_may_look_like_dates() -> None:
    rows = text("2024-01-01", "1900-01-01", "Soon", "2024-01-03", None)
    column = fit(rows, missing_cells=("1900-01-01", "soon"), parts=("trend",))
    found = date.encode(rows, column)
    assert found[:, 0].tolist() == [-1, 0, 0, 1, 0]
    assert found[:, 1].tolist() == [0, 1, 1, 0, 1]
    np.testing.assert_array_equal(
        date.build_encoder(column)(np.array([cell or "" for cell in rows.to_pylist()])), found
    )


def test_cells_that_mark_missing_dates_are_counted() -> None:
    column = fit(text("2024-01-01", "unknown", "9999-12-31", "unknown", "2024-01-03", None))
    assert column.state["marked"] == {"unknown": 2, "9999-12-31": 1}
    assert fit(np.array([20240101, 0, 20240103])).state["marked"] == {"0": 1}
    assert "marked" not in fit(text("2024-01-01", None)).state


def test_a_fault_names_all_cells_that_are_no_dates() -> None:
    with pytest.raises(RowFault, match="received 'soon'") as caught:
        fit(text("2024-01-01", "soon", "2024-01-02", "later"), format="iso")
    assert caught.value.option == 'If they are missing, write `missing_cells: ["soon", "later"]` beside its kind.'


def test_dates_as_numbers_do_not_fit_dates_as_text() -> None:
    with pytest.raises(BmcliError, match="expected dates as text"):
        date.encode(np.array([0]), fit(text("2024-01-01")))


@pytest.mark.parametrize("rows", [text(None, ""), np.array([NAN])])
def test_a_column_without_values_is_a_fault(rows: Any) -> None:
    with pytest.raises(BmcliError, match="the training rows have no value"):
        fit(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "%d.%m.%Q"}, "no directive '%Q'"),
        ({"format": "%d.%m"}, "lacks the year or the month"),
        ({"format": ("iso", "%Y %m %Y")}, "contains a field twice"),
        ({"format": "%Y-%m-%d %I:%M"}, "needs both %I and %p"),
        ({"format": ()}, "at least one format"),
        ({"parts": ("hour", "hour")}, "received hour twice"),
    ],
)
def test_wrong_options_are_a_fault(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        date.Options(**options)


def test_days_that_begin_with_a_zero_are_no_markers_of_missing_ones() -> None:
    cells = ["01.01.2021", "01/02/2021", "0", "0000-00-00", "31.12.9999", "00.00.0000 00:00"]
    found = reading.find_no_dates(pa.chunked_array([pa.array(cells)]))
    assert found.tolist() == [False, False, True, True, True, True]
