"""Encoding of dates, as text or numbers, by parts of the calendar; for preparing data and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmcli import dates

DAY_S = 86_400
PERIODS = {"minute": 60, "hour": 1440, "weekday": 7, "day": 31, "month": 12, "day_of_year": 366}
"""Cycles of the calendar, and their numbers of steps; the cycle of the hour has a step per minute."""


@keras.saving.register_keras_serializable(package="bmcli")
class DateEncoder(keras.layers.Layer):
    """Sine and cosine of each cycle of the calendar, and the time since the mean of the training rows.

    A text in none of the formats, or a day that does not exist, is missing: all its parts are 0. `dates.parsing` reads
    the same dates in NumPy.

    Args:
        formats: Formats of `bmcli.dates`; the first that matches a cell is used. Formats of numbers also read numeric
            cells.
        parts: Cycles, and `trend`.
        offset, scale: Constants of the trend, `(seconds since 1970 - offset) / scale`.
        flag: Append a channel that is 1 where the date is missing.
        missing_cells: Texts that are missing although a format may match them, in any case.

    Input shape:
        `(batch,)` or `(batch, 1)`, text, or float64 in which NaN is missing.

    Output shape:
        `(batch, channels)`, float32: two for a cycle, one for the trend and the flag.
    """

    def __init__(
        self,
        formats: Sequence[str],
        parts: Sequence[str],
        offset: float,
        scale: float,
        flag: bool = False,
        missing_cells: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False, "trainable": False})
        self.formats, self.parts = list(formats), list(parts)
        self.missing_cells = list(missing_cells)
        self.offset, self.scale, self.flag = offset, scale, flag

    def seconds(self, inputs: Any) -> tuple[Any, Any]:
        """Parse cells to whole seconds since 1970, int64, and whether a cell is a date, both `(batch,)`."""
        cells = tf.reshape(inputs, [-1])
        if cells.dtype != tf.string and self.formats[0] in dates.EPOCHS:
            values = tf.cast(cells, "float64") / dates.EPOCHS[self.formats[0]]
            valid = tf.math.is_finite(values) & (tf.abs(values) < _LAST_S)
            return tf.cast(tf.floor(tf.where(valid, values, 0.0)), "int64"), valid
        cells = tf.strings.strip(cells if cells.dtype == tf.string else _to_digits(cells))
        seconds, valid = tf.zeros_like(cells, "int64"), tf.zeros_like(cells, "bool")
        # Backwards, so that the first format that matches a cell is the last to overwrite it.
        for form in reversed(self.formats):
            parsed, fits = _parse_cells(cells, form)
            seconds, valid = tf.where(fits, parsed, seconds), valid | fits
        if self.missing_cells:
            missing = tf.constant([text.strip().lower() for text in self.missing_cells])
            lower = tf.strings.lower(cells, encoding="utf-8")
            valid &= ~tf.reduce_any(lower[:, tf.newaxis] == missing[tf.newaxis], axis=1)
        return tf.where(valid, seconds, 0), valid

    def call(self, inputs):
        return self.encode(*self.seconds(inputs))

    def encode(self, seconds: Any, valid: Any) -> Any:
        """Encode times as channels, `(batch, channels)`, float32."""
        channels = [self._part(part, seconds) for part in self.parts]
        encoded = tf.where(valid[:, tf.newaxis], tf.concat(channels, axis=1), 0.0)
        return tf.concat([encoded, tf.cast(~valid, "float32")[:, tf.newaxis]], axis=1) if self.flag else encoded

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "formats": self.formats,
            "parts": self.parts,
            "offset": self.offset,
            "scale": self.scale,
            "flag": self.flag,
            "missing_cells": self.missing_cells,
        }

    def _part(self, part, seconds):
        """Encode one part, `(batch, 1)` or `(batch, 2)`, float32."""
        if part == "trend":
            # Seconds since 1970 need more than the 24 bits of float32.
            since = (tf.cast(seconds, "float64") - tf.constant(self.offset, "float64")) / self.scale
            return tf.cast(since, "float32")[:, tf.newaxis]
        # From a table, because the last bit of a computed sine may depend on the position in the batch.
        return tf.gather(_cycle(PERIODS[part]), _step(part, seconds))


_LAST_S = 2**38  # in the year 10,680


def _cycle(period: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(period) / period
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype("float32")


def _step(part, seconds):
    """Step of the cycle at a time, from 0."""
    days = seconds // DAY_S
    if part in ("minute", "hour"):
        return seconds % DAY_S // 60 % PERIODS[part]
    if part == "weekday":
        return (days + 3) % 7  # 1970 began on a Thursday.
    year, month, day = _civil(days)
    if part == "day_of_year":
        return days - _days(year, tf.ones_like(month), tf.ones_like(day))
    return (month if part == "month" else day) - 1


def _days(year, month, day):
    """Days from 1970 to a date of the Gregorian calendar."""
    # Years begin in March here, so that the leap day is the last day of a year. An era of 400 years has 146,097 days.
    year = tf.where(month <= 2, year - 1, year)
    era, month = year // 400, (month + 9) % 12
    in_year = (153 * month + 2) // 5 + day - 1
    in_era = year % 400 * 365 + year % 400 // 4 - year % 400 // 100 + in_year
    return era * 146_097 + in_era - 719_468


def _civil(days):
    """Year, month and day of the days since 1970: the inverse of `_days`."""
    days = days + 719_468
    era, in_era = days // 146_097, days % 146_097
    year = (in_era - in_era // 1460 + in_era // 36_524 - in_era // 146_096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    month = (5 * in_year + 2) // 153
    day = in_year - (153 * month + 2) // 5 + 1
    month = tf.where(month < 10, month + 3, month - 9)
    return year + era * 400 + tf.cast(month <= 2, "int64"), month, day


def _to_digits(numbers):
    """Write whole numbers as texts; others become a text that is no date."""
    values = tf.cast(numbers, "float64")
    whole = tf.math.is_finite(values) & (tf.floor(values) == values) & (tf.abs(values) < 2**53)
    return tf.where(whole, tf.strings.as_string(tf.cast(tf.where(whole, values, 0.0), "int64")), "")


def _parse_cells(cells: Any, form: str) -> tuple[Any, Any]:
    """Parse cells in one format; returns their seconds, and which of them match it."""
    pattern = dates.compile_format(form)
    fits = tf.strings.regex_full_match(cells, pattern.regex)
    texts = {
        field: tf.where(fits, tf.strings.regex_replace(cells, f"^(?:{pattern.regex})$", f"\\{group}"), "")
        for group, field in enumerate(pattern.fields, start=1)
    }
    if form in dates.EPOCHS:
        values = tf.strings.to_number(tf.where(fits, texts["number"], "0"), "float64") / dates.EPOCHS[form]
        fits &= tf.abs(values) < _LAST_S
        return tf.cast(tf.floor(tf.where(fits, values, 0.0)), "int64"), fits
    days, exists = (_week_days if "iso_week" in texts else _month_days)(texts, cells)
    return days * DAY_S + _time(texts, cells) - _zone(texts, cells), fits & exists


def _month_days(texts, cells):
    """Days from 1970 to the day of a month, and whether it exists."""
    year, month, day = _year(texts, cells), _month(texts, cells), _parse_integers(texts, "day", cells, "1")
    days = _days(year, month, day)
    # A date that does not exist, such as the 30th of February, comes back as another one.
    _, actual_month, actual_day = _civil(days)
    return days, (actual_month == month) & (actual_day == day) & _is_year(year)


def _week_days(texts, cells):
    """Days from 1970 to the day of a week of ISO 8601, to its Monday without one, and whether the week exists."""
    year, week = _parse_integers(texts, "iso_year", cells, "1970"), _parse_integers(texts, "iso_week", cells, "1")
    january, one = tf.ones_like(year), tf.ones_like(year)
    # The 4th of January is in the first week of its year.
    fourth = _days(year, january, 4 * one)
    monday = fourth - (fourth + 3) % 7 + 7 * (week - 1)
    # The year of a week is that of its Thursday: only some years have a week 53.
    exists = monday + 3 < _days(year + 1, january, one)
    return monday + _parse_integers(texts, "iso_day", cells, "1") - 1, exists & _is_year(year)


def _is_year(year):
    return (year >= dates.FIRST_YEAR) & (year <= dates.LAST_YEAR)


def _parse_integers(texts, field, cells, otherwise="0"):
    """Parse a field as integers; `otherwise` where it is empty, or the format has no such field."""
    digits = texts.get(field, tf.zeros_like(cells))
    return tf.strings.to_number(tf.where(digits == "", otherwise, digits), "int64")


def _year(texts, cells):
    if "year" in texts:
        return _parse_integers(texts, "year", cells, "1970")
    year = _parse_integers(texts, "short_year", cells)
    return tf.where(year < 69, year + 2000, year + 1900)  # the rule of POSIX


def _month(texts, cells):
    if "month" in texts:
        return _parse_integers(texts, "month", cells, "1")
    name = tf.strings.substr(tf.strings.lower(texts["month_name"]), 0, 3)
    return 1 + tf.argmax(tf.cast(name[:, tf.newaxis] == tf.constant(dates.MONTHS), "int32"), axis=1)


def _time(texts, cells):
    """Parse the seconds since midnight."""
    hour = _parse_integers(texts, "hour", cells)
    if "half" in texts:
        afternoon = tf.cast(tf.strings.substr(tf.strings.lower(texts["half"]), 0, 1) == "p", "int64")
        hour = _parse_integers(texts, "half_hour", cells) % 12 + 12 * afternoon
    return hour * 3600 + _parse_integers(texts, "minute", cells) * 60 + _parse_integers(texts, "second", cells)


def _zone(texts, cells):
    """Parse the seconds by which the time zone is ahead of UTC."""
    if "zone" not in texts:
        return tf.zeros_like(cells, "int64")
    # `Z` and `UTC` become +0000, and `+01` becomes +0100.
    zone = tf.strings.regex_replace(texts["zone"], "[A-Za-z:]", "") + "0000"
    zone = tf.where(tf.strings.regex_full_match(zone, "0.*"), "+0000", zone)
    hours = tf.strings.to_number(tf.strings.substr(zone, 1, 2), "int64")
    minutes = tf.strings.to_number(tf.strings.substr(zone, 3, 2), "int64")
    ahead = hours * 3600 + minutes * 60
    return tf.where(tf.strings.substr(zone, 0, 1) == "-", -ahead, ahead)
