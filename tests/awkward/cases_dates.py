"""Dates, and identifiers of rows that belong together: how people write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from tests.awkward.case import Case, Write, cell_case, pick, values, write_table

START = date(2021, 1, 1)


def _days(form: str) -> Write:
    """Write days in a format of Python's `strftime`."""
    return lambda day: day.strftime(form)


def _pairs(write: Write) -> Write:
    """Write each day for two rows, so that they are an input and not the order of the rows."""
    return lambda day: write(START + (day - START) // 2)


def _moments(form: str, hours: float = 0) -> Write:
    """Write a day with a time, the same one hours later."""
    return lambda day: _to_moment(day, hours).strftime(form)


def _to_moment(day: date, hours: float = 0) -> datetime:
    number = (day - START).days
    return datetime(2021, 1, 1) + timedelta(days=number, hours=hours, minutes=number * 37 % 1440, seconds=number % 60)


def _replace(write: Write, cell: Callable[[int], str | None]) -> Write:
    """Write another cell for some days, by their number; None keeps a day."""

    def written(day: date) -> str:
        found = cell((day - START).days)
        return write(day) if found is None else found

    return written


def _spell_month(day: date) -> str:
    ending = {1: "st", 21: "st", 31: "st", 2: "nd", 22: "nd", 3: "rd", 23: "rd"}.get(day.day, "th")
    return f"{day:%B} {day.day}{ending}, {day.year}"


def _write_lines(**writers: Callable[[Any], Any]) -> bytes:
    """Write the table of `values` as JSON lines, some columns in another way."""
    plain: dict[str, Callable[[Any], Any]] = {"day": date.isoformat}
    rows = [
        {name: {**plain, **writers}.get(name, lambda cell: cell)(cell) for name, cell in row.items()}
        for row in values()
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


ISO = _days("%Y-%m-%d")
ISO_TIMES = _moments("%Y-%m-%d %H:%M:%S")
TOWNS = ("Bern", "Genf", "Rom", "Wien")


def _few(cell: str) -> Callable[[int], str | None]:
    return lambda number: cell if number in (7, 50, 120) else None


def _day_case(name: str, write: Write, clean: Write = ISO) -> Case:
    return cell_case(name, "day", write, clean)


def _group_case(name: str, column: str, write: Callable[[int], str]) -> Case:
    """Make the case of eight rows a patient, whose clean twin has the same table with plain names of patients."""
    rows = [{**row, "group": number * 37 % 160 // 8} for number, row in enumerate(values())]
    return Case(
        name=name,
        awkward={"rows.csv": write_table(rows, {"group": write, **pick(day=None)}, names={"group": column})},
        clean={
            "rows.csv": write_table(rows, {"group": "P{:02}".format, **pick(day=None)}, names={"group": "patient_id"})
        },
    )


CASES: list[Case] = [
    _day_case("one unknown among days", _replace(ISO, {7: "unknown"}.get), _replace(ISO, {7: ""}.get)),
    _day_case("n/a among compact days", _replace(_days("%Y%m%d"), _few("n/a")), _replace(ISO, _few(""))),
    _day_case("0000-00-00 where there is no day", _replace(ISO, _few("0000-00-00")), _replace(ISO, _few(""))),
    _day_case(
        "31.12.9999 where there is no day", _replace(_days("%d.%m.%Y"), _few("31.12.9999")), _replace(ISO, _few(""))
    ),
    _day_case("remarks among days", _replace(_days("%d/%m/%Y"), _few("see letter")), _replace(ISO, _few(""))),
    _day_case("days that do not exist", _replace(ISO, _few("2021-02-30")), _replace(ISO, _few(""))),
    _day_case("compact days as the order of rows", _days("%Y%m%d")),
    _day_case("compact days as an input", _pairs(_days("%Y%m%d")), _pairs(ISO)),
    _day_case("compact days with a point", _pairs(_days("%Y%m%d.0")), _pairs(ISO)),
    _day_case("compact days before months", _pairs(_days("%d%m%Y")), _pairs(ISO)),
    _day_case("compact months before days", _pairs(_days("%m%d%Y")), _pairs(ISO)),
    _day_case(
        "compact days before months without the first zero",
        _pairs(lambda day: f"{day:%d%m%Y}".lstrip("0")),
        _pairs(ISO),
    ),
    _day_case("compact times", _moments("%Y%m%d%H%M"), _moments("%Y-%m-%d %H:%M")),
    _day_case("days before months with dots", _pairs(_days("%d.%m.%Y")), _pairs(ISO)),
    _day_case("days before months with slashes, by which rows are split", _days("%d/%m/%Y")),
    _day_case("months before days", _pairs(_days("%m/%d/%Y")), _pairs(ISO)),
    _day_case("years of two digits", _pairs(_days("%d.%m.%y")), _pairs(ISO)),
    _day_case("years of two digits first", _pairs(_days("%y-%m-%d")), _pairs(ISO)),
    _day_case("short names of months", _pairs(_days("%d %b %Y")), _pairs(ISO)),
    _day_case("names of months first", _days("%b %d, %Y")),
    _day_case("ordinal days", _pairs(_spell_month), _pairs(ISO)),
    _day_case("days of SAS", _pairs(_days("%d%b%Y")), _pairs(ISO)),
    _day_case("days without leading zeros", _pairs(lambda day: f"{day.year}-{day.month}-{day.day}"), _pairs(ISO)),
    _day_case("times with T and Z", _pairs(_moments("%Y-%m-%dT%H:%M:%SZ")), _pairs(ISO_TIMES)),
    _day_case("times with fractions", _pairs(_moments("%d.%m.%Y %H:%M:%S.250")), _pairs(ISO_TIMES)),
    _day_case("times with AM and PM", _pairs(_moments("%m/%d/%Y %I:%M:%S %p")), _pairs(ISO_TIMES)),
    _day_case("times of another zone", _pairs(_moments("%Y-%m-%dT%H:%M:%S+02", hours=2)), _pairs(ISO_TIMES)),
    _day_case("times of a web server", _pairs(_moments("%d/%b/%Y:%H:%M:%S +0000")), _pairs(ISO_TIMES)),
    _day_case("months", _days("%m/%Y"), _days("%Y-%m-01")),
    _day_case("weeks", _days("%G-W%V"), lambda day: (day - timedelta(days=day.weekday())).isoformat()),
    Case(
        name="compact days as numbers of JSON lines",
        awkward={"rows.jsonl": _write_lines(day=lambda day: int((START + (day - START) // 2).strftime("%Y%m%d")))},
        clean={"rows.jsonl": _write_lines(day=_pairs(ISO))},
    ),
    _group_case("numbers of patients", "patient_id", str),
    _group_case("numbers of patients above 2^53", "patient_id", lambda group: str(9007199254740992 + group)),
    _group_case("patients by their name alone", "Patient", "pat-{:03}".format),
    cell_case(
        "codes above 2^53",
        "town",
        lambda town: str(9007199254740992 + TOWNS.index(town)),
        lambda town: f"c{TOWNS.index(town)}",
    ),
    Case(
        name="codes above 2^53 in JSON lines",
        awkward={"rows.jsonl": _write_lines(town=lambda town: 9007199254740992 + TOWNS.index(town))},
        clean={"rows.jsonl": _write_lines(town=lambda town: f"c{TOWNS.index(town)}")},
    ),
    Case(
        name="codes above 2^63 in JSON lines",
        awkward={"rows.jsonl": _write_lines(town=lambda town: 2**64 + TOWNS.index(town))},
        clean={"rows.jsonl": _write_lines(town=lambda town: f"c{TOWNS.index(town)}")},
    ),
]
