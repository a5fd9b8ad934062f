"""Date input: calendar cycles as sine and cosine, and a trend.

A missing date is 0 in all parts, which is the middle of each; it is flagged if the training rows have missing cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from bmcli import dates, raw_columns
from bmcli.column_records import ColumnRecord, Count, StrictRecord
from bmcli.dates import parsing, reading
from bmcli.errors import BmcliError
from bmcli.inputs import ENCODERS, Feature, Guess, InputTraits, make_object_array, widen_range
from bmcli.notation import find_markers, list_counts
from bmcli.quoting import quoted
from bmcli.raw_columns import ColumnCells, RawColumn, RowFault
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions, MissingCells
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column
from bmcli.windows import EncodedRows

if TYPE_CHECKING:
    import numpy as np

    from bmcli.dates.reading import DateReading
    from bmcli.layers.date_encoder import DateEncoder

_BATCH_ROWS = 65_536
_DAY_S = 86_400
_TREND_ERROR = 1e-6  # rounding of an encoded time, as a share of the range of the training rows
_MAX_FOREIGN = 30  # distinct cells that are no dates, which `init` writes
_MANY_DAYS = 10  # distinct numbers that are all days of the calendar, from which on that is no accident
_LIKELY_EPOCHS = {"seconds": (9e8, 2.2e9), "milliseconds": (9e11, 2.2e12)}  # of the years 1998 to 2039
_DIGITS = re.compile(r"(\d{6}|\d{8,14})(\.0*)?")  # numbers that may be days or seconds
_FIRST_CELLS = 20
_MIXED_ORDERS = "dates of which some have the day before the month, and others after it"
_UNKNOWN_FORMAT = "dates in a format that is not known; to use it, give the column a `format` in `inputs`"
_FILL = "Name their format in `inputs`, or write `invalid: fill` to treat them as missing."
_Part = Literal["trend", "month", "day", "day_of_year", "weekday", "hour", "minute"]


class Options(InputOptions):
    """One date or time per row."""

    kind: Literal["date"] = "date"
    format: str | tuple[str, ...] | None = Field(
        default=None,
        description="Date format: `iso`, `seconds` or `milliseconds` since 1970, strptime directives such as "
        "%d.%m.%Y, or a list of which the first match is used. By default the common format that fits the training "
        "rows.",
    )
    missing_cells: MissingCells = ()
    parts: tuple[_Part, ...] | None = Field(
        default=None,
        min_length=1,
        description="Features of the date: cycles as sine and cosine, and the trend as a scaled number. By default "
        "trend, day_of_year and weekday, and hour if the training rows contain times.",
    )

    @field_validator("format")
    @classmethod
    def _check_formats(cls, value: Any) -> Any:
        if problem := dates.find_format_problem(value):
            raise fault("format", *problem)
        return value

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, value: Any) -> Any:
        if value is not None and len(set(value)) < len(value):
            repeated = next(part for position, part in enumerate(value) if part in value[:position])
            raise fault("parts", f"expected different parts, received {repeated} twice.")
        return value


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise texts and whole numbers of which nearly all are dates in common formats."""
    if cells.is_file or cells.shape not in ((), (1,)):
        return None
    if not cells.is_text or cells.is_numeric:
        return _guess_numbers(cells)
    found = reading.read_formats(cells.present)
    if found is None or (found.foreign_share >= reading.FOREIGN_SHARE and not found.contradicts):
        # The first cell excludes most columns, whose distinct cells are then not looked for.
        first = cells.present[0].as_py().strip()
        if not dates.DATE_LIKE.fullmatch(first) or not all(map(dates.DATE_LIKE.fullmatch, cells.samples)):
            return None
        return Guess("date", 0.8, "dates", needs_options=True, obstacle=_UNKNOWN_FORMAT)
    if found.formats[0] in dates.EPOCHS or (_is_compact(found) and not _are_days(cells, found)):
        return None
    return _make_guess(found)


def _guess_numbers(cells: ColumnCells) -> Guess | None:
    """Recognise numbers such as 20210131; seconds since 1970 are a doubt, because any number could be one."""
    import numpy as np

    first = cells.present.slice(0, _FIRST_CELLS).to_pylist() if cells.is_text else []
    if cells.is_text and not any(_DIGITS.fullmatch(cell.strip()) for cell in first):
        return None  # most columns of numbers, whose texts are then not parsed here
    numbers = cells.numbers
    if not len(numbers) or cells.dtype == "bool" or not _are_whole(numbers):
        return None
    typical = float(np.median(numbers))
    for unit, (low, high) in _LIKELY_EPOCHS.items():
        is_likely = low < typical < high and bool((numbers > low).all() and (numbers < high).all())
        if is_likely and reading.has_date_name(cells.name):
            doubt = f"if its numbers are {unit} since 1970, write `{{kind: date, format: {unit}}}`"
            return Guess("date", 0.2, f"{unit} since 1970", {"format": unit}, needs_options=True, doubt=doubt)
    if not 190_001 <= typical <= 21_001_231_235_959:
        return None
    found = reading.read_formats(raw_columns.to_texts(cells.rows))
    is_likely = found is not None and _is_compact(found) and found.foreign_share < reading.FOREIGN_SHARE
    return _make_guess(found) if found and is_likely and _are_days(cells, found) else None


def _is_compact(found: DateReading) -> bool:
    return all(map(dates.is_compact, found.formats))


def _are_days(cells: ColumnCells, found: DateReading) -> bool:
    """Whether numbers such as 20210131 are days, and no counts or identifiers."""
    is_named = reading.has_date_name(cells.name)
    # Six digits are a month by accident far more often than eight are a day.
    return is_named or (found.formats[0] != "%Y%m" and found.distinct >= _MANY_DAYS)


def _make_guess(found: DateReading) -> Guess:
    """Make the guess of a column of dates, with its formats as an option where they are not ISO 8601."""
    obstacle = ""
    if found.contradicts:
        obstacle = f"{_MIXED_ORDERS}; write them in one way, for example as 2021-01-31"
    elif len(found.foreign) > _MAX_FOREIGN:
        count, first = sum(found.foreign.values()), next(iter(found.foreign))
        obstacle = f"dates except for {count:,} cells of {len(found.foreign):,} kinds, such as {quoted(first)}"
    doubt = ""
    if found.rivals:
        doubt = (
            f"no cell shows whether days or months are first: it is read as {found.days[0]}; if that is wrong, write "
            f"`format: {json.dumps(found.formats[0].replace(found.days[0], found.rivals[0]))}`"
        )
    formats = found.formats
    is_complete = not found.markers and not found.foreign and "%d" in _join_formats(formats)
    return Guess(
        "date",
        0.8,
        "; ".join(["dates", *([found.why] if found.why else []), *_describe_missing(found)]),
        {} if formats == ("iso",) else {"format": formats[0] if len(formats) == 1 else list(formats)},
        obstacle=obstacle,
        foreign=found.foreign,
        doubt=doubt,
        time_formats=formats if is_complete else (),
    )


def _join_formats(formats: Sequence[str]) -> str:
    return " ".join("%Y-%m-%d" if each == "iso" else each for each in formats)


def _describe_missing(found: DateReading) -> Iterator[str]:
    if missing := {**found.markers, **found.foreign}:
        yield f"missing: {list_counts(missing)}"


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the format, the mean and standard deviation of the time, and whether any date is missing."""
    rows = raw_columns.require_values(rows)
    if not raw_columns.is_text_column(rows) and rows.size != len(rows):
        raise BmcliError(
            f"column {quoted(name)}: expected one date a row, received an array of shape {tuple(rows.shape[1:])}.",
            path=f"data.inputs.{name}",
        )
    # Parsing is slow, and columns of dates often repeat the same days: each distinct cell is parsed once.
    distinct, codes = raw_columns.factorize(rows)
    with raw_columns.translate_fault_rows(codes):
        formats = _resolve_formats(name, rows, options)
        seconds, present = (each[codes] for each in _parse_seconds(distinct, formats, options.missing_cells))
    seconds = seconds[present]
    if not len(seconds):
        raise BmcliError(
            f"column {quoted(name)}: the training rows have no value.",
            path=f"data.inputs.{name}",
            suggestion=f"Leave it out: `drop: [{write_scalar(name)}]`.",
        )
    parts = _choose_parts(name, seconds, options)
    return Column(
        name=name,
        kind="date",
        shape=(sum(1 if part == "trend" else 2 for part in parts) + int(not present.all()),),
        dtype="float32",
        raw_shape=() if raw_columns.is_text_column(rows) else tuple(rows.shape[1:]),
        # float32 holds seconds since 1970 only to about two minutes.
        raw_dtype="string" if raw_columns.is_text_column(rows) else "float64",
        state={
            "formats": formats,
            "parts": parts,
            "offset": float(seconds.mean()),
            "scale": float(seconds.std()) or 1.0,  # All dates may be equal.
            "low": float(seconds.min()),
            "high": float(seconds.max()),
            "flag": not bool(present.all()),
            "missing_cells": list(options.missing_cells),
            **_count_marked(rows, formats, options),
        },
    )


def _count_marked(rows: RawColumn, formats: Sequence[str], options: Options) -> dict[str, Any]:
    """Count the texts that mean that there is no date, the most frequent first, if there are any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not raw_columns.is_text_column(rows) and formats[0] in dates.EPOCHS:
        return {}
    texts = raw_columns.to_texts(rows)
    is_marker = reading.find_no_dates(texts, options.missing_cells) & ~texts.is_null().to_numpy()
    counted = pc.value_counts(pc.utf8_trim_whitespace(texts.filter(pa.array(is_marker)))).to_pylist()
    marked = {each["values"]: each["counts"] for each in sorted(counted, key=lambda each: -each["counts"])}
    return {"marked": marked} if marked else {}


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a cell that is not a date in a format of the options, or in a common one."""
    distinct, codes = raw_columns.factorize(rows)
    with raw_columns.translate_fault_rows(codes):
        formats = list(dates.list_formats(options.format)) or _list_common_formats(rows)
        _parse_seconds(distinct, formats, options.missing_cells)


def encode(rows: RawColumn, column: Column) -> np.ndarray:
    """Encode dates by the layer DateEncoder: cycles, trend and flag, float32 `(rows, channels)`."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    if raw_columns.is_text_column(rows) != (column.raw_dtype == "string"):
        expected = "text" if column.raw_dtype == "string" else "numbers"
        received = "text" if raw_columns.is_text_column(rows) else "numbers"
        raise BmcliError(
            f"column {quoted(column.name)}: expected dates as {expected}, as in the training rows, received {received}."
        )
    layer = build_encoder(column)
    distinct, codes = raw_columns.factorize(rows)
    encoded = np.zeros((len(distinct), *column.shape), column.dtype)
    with raw_columns.translate_fault_rows(codes):
        seconds, present = _parse_seconds(distinct, column.state["formats"], column.state["missing_cells"])
    for start in range(0, len(distinct), _BATCH_ROWS):
        batch = slice(start, start + _BATCH_ROWS)
        encoded[batch] = layer.encode(seconds[batch], present[batch]).numpy()
    return encoded[codes]


def build_encoder(column: Column) -> DateEncoder:
    from bmcli.layers.date_encoder import DateEncoder

    state = column.state
    names = ("formats", "parts", "offset", "scale", "flag", "missing_cells")
    return DateEncoder(*(state[name] for name in names))


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded)


def get_traits(column: Column) -> InputTraits:
    return DateTraits(column)


class DateState(StrictRecord):
    """What is fitted to a column of dates."""

    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    parts: tuple[Literal["minute", "hour", "weekday", "day", "month", "day_of_year", "trend"], ...]
    offset: float
    scale: float
    low: float
    high: float
    flag: bool
    missing_cells: tuple[str, ...]
    marked: dict[str, Count] = Field(default={})
    patterns: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


class DateRecord(ColumnRecord):
    """A column of dates."""

    kind: Literal["date"]
    dtype: Literal["float32"]
    raw_dtype: Literal["string", "float64"]
    state: DateState  # type: ignore[assignment]  # of this kind


class DateTraits(InputTraits):
    """Traits of a column of dates."""

    noun = "a date"
    derived_state = ("patterns",)
    record = DateRecord
    encoder_file = ENCODERS / "date.py"

    @property
    def flags(self) -> int:
        return int(self.column.state["flag"])

    @property
    def reading_options(self) -> Mapping[str, Any]:
        formats, missing_cells = self.column.state["formats"], self.column.state["missing_cells"]
        named = {"missing_cells": tuple(missing_cells)} if missing_cells else {}
        return {"format": formats[0] if len(formats) == 1 else tuple(formats), **named}

    @property
    def example(self) -> str:
        return dates.write_example(self.column.state["formats"][0])

    def summarize(self) -> str:
        return ""

    def count_unseen(self, rows: RawColumn, encoded: EncodedRows | None) -> int:
        import numpy as np

        state = self.column.state
        low, high = widen_range(state["low"], state["high"])
        if encoded is not None and "trend" in state["parts"]:
            # Missing dates are 0, the mean of the training rows.
            place = sum(1 if part == "trend" else 2 for part in state["parts"][: state["parts"].index("trend")])
            seconds = np.asarray(encoded)[:, place].astype("float64") * state["scale"] + state["offset"]
            margin = (high - low) * _TREND_ERROR
            return int(np.count_nonzero((seconds < low - margin) | (seconds > high + margin)))
        distinct, codes = raw_columns.factorize(rows)
        seconds, is_date, is_unreadable = _read_seconds(distinct, state["formats"], state["missing_cells"])
        return int(np.count_nonzero((is_unreadable | (is_date & ((seconds < low) | (seconds > high))))[codes]))

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        import numpy as np

        state = self.column.state
        seconds = generator.uniform(state["low"], state["high"], count)
        cells = [self._write_date(each) for each in seconds]
        if self.column.raw_dtype == "string":
            return make_object_array(cells)
        shape = (count, *(size or 1 for size in self.column.raw_shape))
        return np.array(cells).astype(self.column.raw_dtype).reshape(shape)

    def make_example_cell(self) -> Any:
        """Make the date in the middle of the training rows."""
        import numpy as np

        text = self._write_date((self.column.state["low"] + self.column.state["high"]) / 2)
        if self.column.raw_dtype == "string":
            return text
        return np.full(tuple(size or 1 for size in self.column.raw_shape), float(text))

    def _write_date(self, seconds: float) -> str:
        """Write a time since 1970 in the first format of the column."""
        date_format = self.column.state["formats"][0]
        if date_format in dates.EPOCHS:
            return str(int(seconds) * dates.EPOCHS[date_format])
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
        return time.strftime("%Y-%m-%d" if date_format == "iso" else date_format)

    def derive_state(self) -> Mapping[str, Any]:
        """Derive the regular expressions of the formats."""
        if self.column.raw_dtype != "string" and self.column.state["formats"][0] in dates.EPOCHS:
            return {}
        compiled = [(date_format, dates.compile_format(date_format)) for date_format in self.column.state["formats"]]
        patterns = [[date_format, pattern.regex, list(pattern.fields)] for date_format, pattern in compiled]
        return {"patterns": patterns}


def _resolve_formats(name: str, rows: RawColumn, options: Options) -> list[str]:
    """Return the formats of the options, or the common ones that fit the cells.

    Raises:
        BmcliError: Several formats fit in different ways, or the cells have several formats.
        RowFault: A cell is not a date.
    """
    formats = list(dates.list_formats(options.format))
    if raw_columns.is_text_column(rows):
        return formats or _guess_formats(name, rows, options)
    if formats and not (formats[0] in dates.EPOCHS and len(formats) == 1) and not all(map(dates.is_compact, formats)):
        raise BmcliError(
            f"column {quoted(name)}: expected `seconds`, `milliseconds` or digits such as %Y%m%d, because the column "
            f"has numbers, received {_join_with_and(formats)}.",
            path=f"data.inputs.{name}.format",
        )
    return formats or _list_common_formats(rows)


def _list_common_formats(rows: RawColumn) -> list[str]:
    """List the common formats of dates; other numbers are seconds, and texts without any date would be ISO 8601."""
    is_text = raw_columns.is_text_column(rows)
    found = (
        reading.read_formats(raw_columns.to_texts(rows))
        if is_text or _are_whole(raw_columns.to_numbers(rows))
        else None
    )
    formats = [] if found is None else list(found.formats)
    if not is_text and not all(map(dates.is_compact, formats)):
        return ["seconds"]
    return formats or (["iso"] if is_text else ["seconds"])


def _are_whole(numbers: np.ndarray) -> bool:
    """Whether numbers, or NaN, are integers that keep their digits in floating point."""
    import numpy as np

    return bool((np.isnan(numbers) | ((np.rint(numbers) == numbers) & (np.abs(numbers) < 2**53))).all())


def _guess_formats(name: str, rows: RawColumn, options: Options) -> list[str]:
    """Return the only common format of days that fits a column of text, `iso` if all cells are missing."""
    found = reading.read_formats(raw_columns.to_texts(rows))
    if found is None:
        _parse_seconds(rows, ["iso"], options.missing_cells)
        return ["iso"]
    path = f"data.inputs.{name}.format"
    if found.rivals:
        row = int(parsing.parse_times(rows, found.formats)[1].argmax())
        formats = [found.days[0], *found.rivals]
        raise BmcliError(
            f"column {quoted(name)}: dates such as {raw_columns.format_cell(rows, row)} can be read as "
            f"{_join_with_and(formats)}.",
            path=path,
            suggestion=f"Set one of them: `format: {json.dumps(formats[0])}`.",
        )
    if found.contradicts:
        row = int(parsing.parse_times(rows, found.formats)[1].argmin())
        raise BmcliError(
            f"column {quoted(name)}: it has {_MIXED_ORDERS}, such as {raw_columns.format_cell(rows, row)} beside "
            f"{found.days[0]}.",
            path=path,
            suggestion="Write its dates in one way, for example as 2021-01-31.",
        )
    formats = list(found.formats)
    _parse_seconds(rows, formats, options.missing_cells)
    if len(set(found.days)) > 1:
        raise BmcliError(
            f"column {quoted(name)}: its dates are written in {len(formats)} formats: {_join_with_and(formats)}.",
            path=path,
            suggestion=f"If that is intended, write `format: {json.dumps(formats)}`: the first format that matches a "
            "cell is used.",
        )
    return formats


def _join_with_and(formats: list[str]) -> str:
    return " and ".join([", ".join(formats[:-1]), formats[-1]] if len(formats) > 1 else formats)


def _parse_seconds(
    rows: RawColumn, formats: Sequence[str], missing_cells: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Parse cells to whole seconds since 1970, int64, and whether each is a date, both `(rows,)`.

    Raises:
        RowFault: A cell is neither a date nor missing.
    """
    seconds, is_date, is_wrong = _read_seconds(rows, formats, missing_cells)
    if is_wrong.any():
        raise _make_date_fault(rows, is_wrong, formats)
    return seconds, is_date


def _read_seconds(
    rows: RawColumn, formats: Sequence[str], missing_cells: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parse cells as `_parse_seconds` does; also return which are neither dates nor missing."""
    import numpy as np

    if not raw_columns.is_text_column(rows) and formats[0] in dates.EPOCHS:
        values = np.asarray(rows, "float64").reshape(-1) / dates.EPOCHS[formats[0]]
        is_date = np.isfinite(values) & (np.abs(values) < parsing.LAST_S)
        return np.floor(np.where(is_date, values, 0.0)).astype("int64"), is_date, ~is_date & ~np.isnan(values)
    texts = raw_columns.to_texts(rows)
    times, is_date = parsing.parse_times(texts, formats)
    if missing_cells:  # A recipe may also name a date, such as 1900-01-01.
        is_date &= ~np.asarray(find_markers(texts, missing_cells))
    is_missing = np.asarray(texts.is_null()) | reading.find_no_dates(texts, missing_cells)
    return np.where(is_date, times // parsing.MICROSECONDS, 0), is_date, ~is_date & ~is_missing


def _make_date_fault(rows: RawColumn, wrong: np.ndarray, formats: Sequence[str]) -> RowFault:
    """Make the fault of the first wrong cell; its suggestion names all of them, if they are few."""
    import numpy as np
    import pyarrow as pa

    row = int(np.argmax(wrong))
    message = f"expected a date in the format {' or '.join(formats)}, received {raw_columns.format_cell(rows, row)}."
    if not raw_columns.is_text_column(rows):
        return RowFault(row, message)
    cells = list(dict.fromkeys(raw_columns.to_texts(rows).filter(pa.array(wrong)).to_pylist()))
    option = f"If they are missing, write `missing_cells: {json.dumps(cells, ensure_ascii=False)}` beside its kind."
    option = option if len(cells) <= _MAX_FOREIGN else _FILL
    return RowFault(row, message, cell=rows[row].as_py(), option=option)


def _choose_parts(name: str, seconds: np.ndarray, options: Options) -> list[str]:
    has_time = bool((seconds % _DAY_S).any())
    if options.parts is None:
        # Without a time of day all hours would be 0, a constant feature.
        return ["trend", "day_of_year", "weekday", *(["hour"] if has_time else [])]
    for position, part in enumerate(options.parts):
        if part in ("hour", "minute") and not has_time:
            raise BmcliError(
                f"column {quoted(name)}: the training rows have dates without a time of day, so there is no {part}.",
                path=f"data.inputs.{name}.parts.{position}",
                suggestion="Leave it out.",
            )
    return list(options.parts)
