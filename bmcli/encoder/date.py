"""Encoder of dates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._cells import ASCII_SPACE, read_cell

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
PERIODS = {"minute": 60, "hour": 1440, "weekday": 7, "day": 31, "month": 12, "day_of_year": 366}
EPOCHS = {"seconds": 1, "milliseconds": 1000}
DAY_S = 86400
MAX_SECONDS = 2**38
FIRST_YEAR, LAST_YEAR = 2, 9998  # others mean that there is no date


def encode(column: Mapping[str, Any], cells: Any) -> Any:
    """Encode cells of one column of dates."""
    state = column["state"]
    timestamps = [_parse_seconds(cell, column) for cell in np.asarray(cells, object).reshape(-1)]
    is_known = np.array([timestamp is not None for timestamp in timestamps])
    seconds = np.array([timestamp or 0 for timestamp in timestamps], "int64")
    channels = [_encode_date_part(part, seconds, state) for part in state["parts"]]
    encoded = np.where(is_known[:, None], np.concatenate(channels, axis=1), np.float32(0))
    return np.concatenate([encoded, (~is_known).astype("float32")[:, None]], axis=1) if state["flag"] else encoded


def _parse_seconds(cell: Any, column: Mapping[str, Any]) -> int | None:
    """Parse a cell as whole seconds since 1970; None if it is missing or unreadable."""
    state = column["state"]
    if column["raw_dtype"] != "string" and state["formats"][0] in EPOCHS:
        value = float("nan") if cell is None else float(cell)
        value /= EPOCHS[state["formats"][0]]
        return int(np.floor(value)) if np.isfinite(value) and abs(value) < MAX_SECONDS else None
    if isinstance(cell, (float, np.floating)) and not np.isfinite(cell):
        return None
    text = read_cell(cell).strip(ASCII_SPACE)
    if text.lower() in [each.strip().lower() for each in state["missing_cells"]]:
        return None
    for date_format, regex, fields in state["patterns"]:
        match = re.fullmatch(regex, text)
        seconds = (
            None if match is None else _convert_fields(date_format, dict(zip(fields, match.groups(), strict=True)))
        )
        if seconds is not None:
            return seconds
    return None


def _convert_fields(date_format: str, texts: Mapping[str, Any]) -> int | None:
    """Convert the fields of a cell to seconds; None for a day that does not exist."""
    if "number" in texts:
        value = float(texts["number"]) / EPOCHS[date_format]
        return int(np.floor(value)) if abs(value) < MAX_SECONDS else None
    days = (_find_week_day if "iso_week" in texts else _find_month_day)(texts)
    if days is None:
        return None
    hour = int(texts.get("hour") or 0)
    if "half" in texts:
        hour = int(texts.get("half_hour") or 0) % 12 + 12 * (texts["half"].lower()[0] == "p")
    time = hour * 3600 + int(texts.get("minute") or 0) * 60 + int(texts.get("second") or 0)
    zone = re.sub("[A-Za-z:]", "", texts.get("zone") or "") + "0000"
    zone = "+0000" if zone[0] == "0" else zone
    ahead = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
    return days * DAY_S + time - (-ahead if zone[0] == "-" else ahead)


def _find_month_day(texts: Mapping[str, Any]) -> int | None:
    """Count the days from 1970 to the day of a month; None if it does not exist."""
    if "year" in texts:
        year = int(texts["year"] or 1970)
    else:
        short = int(texts.get("short_year") or 0)
        year = short + (2000 if short < 69 else 1900)  # the convention of POSIX and of strptime
    name = texts.get("month_name")
    month = MONTHS.index(name[:3].lower()) + 1 if name else int(texts.get("month") or 1)
    day = int(texts.get("day") or 1)
    days = _days_from_civil(np.int64(year), np.int64(month), np.int64(day))
    exists = tuple(map(int, _civil_from_days(days)))[1:] == (month, day) and FIRST_YEAR <= year <= LAST_YEAR
    return int(days) if exists else None


def _find_week_day(texts: Mapping[str, Any]) -> int | None:
    """Count the days from 1970 to the day of a week of ISO 8601; None if the week does not exist."""
    year, week = int(texts["iso_year"]), int(texts["iso_week"])
    fourth = int(_days_from_civil(np.int64(year), np.int64(1), np.int64(4)))  # in the first week of its year
    monday = fourth - (fourth + 3) % 7 + 7 * (week - 1)
    exists = monday + 3 < int(_days_from_civil(np.int64(year + 1), np.int64(1), np.int64(1)))
    return monday + int(texts.get("iso_day") or 1) - 1 if exists and FIRST_YEAR <= year <= LAST_YEAR else None


def _encode_date_part(part: str, seconds: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    if part == "trend":
        return ((seconds.astype("float64") - state["offset"]) / state["scale"]).astype("float32")[:, None]
    angles = 2 * np.pi * np.arange(PERIODS[part]) / PERIODS[part]
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype("float32")[_compute_period_index(part, seconds)]


def _compute_period_index(part: str, seconds: np.ndarray) -> Any:
    days = seconds // DAY_S
    if part in ("minute", "hour"):
        return seconds % DAY_S // 60 % PERIODS[part]
    if part == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday, weeks begin on Monday
    year, month, day = _civil_from_days(days)
    if part == "day_of_year":
        return days - _days_from_civil(year, np.ones_like(month), np.ones_like(day))
    return (month if part == "month" else day) - 1


def _days_from_civil(year: Any, month: Any, day: Any) -> Any:
    """Compute the days from 1970 to a date of the Gregorian calendar."""
    year = np.where(month <= 2, year - 1, year)
    # Years begin in March here, so that the leap day is their last; 719468 is the day number of 1970-01-01.
    era, month = year // 400, (month + 9) % 12
    in_year = (153 * month + 2) // 5 + day - 1
    return era * 146097 + year % 400 * 365 + year % 400 // 4 - year % 400 // 100 + in_year - 719468


def _civil_from_days(days: Any) -> tuple[Any, Any, Any]:
    days = days + 719468
    era, in_era = days // 146097, days % 146097
    year = (in_era - in_era // 1460 + in_era // 36524 - in_era // 146096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    month = (5 * in_year + 2) // 153
    day = in_year - (153 * month + 2) // 5 + 1
    month = np.where(month < 10, month + 3, month - 9)
    return year + era * 400 + (month <= 2), month, day
