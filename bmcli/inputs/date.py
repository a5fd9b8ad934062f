"""Date input: calendar cycles as sine and cosine, and a trend.

A missing date is 0 in all parts, which is the middle of each; it is flagged if the training rows have missing cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from bmcli import dates, raw_columns
from bmcli.errors import BmcliError
from bmcli.inputs import Feature, Guess, InputTraits, make_object_array
from bmcli.quoting import quoted
from bmcli.raw_columns import ColumnCells, RawColumn, RowFault
from bmcli.recipe.fields import fault
from bmcli.recipe.inputs import InputOptions
from bmcli.recipe.nodes import write_scalar
from bmcli.specs import Column

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bmcli.layers.date_encoder import DateEncoder

_BATCH_ROWS = 65_536
_DAY_S = 86_400
_ISO_DAY, _MONTH = re.compile(r"\d{4}-\d{2}-\d{2}"), re.compile(r"\d{4}-\d{1,2}")
_SEVERAL_FORMATS = "dates in several formats; to use it, list these in `inputs`"
_Part = Literal["trend", "month", "day", "day_of_year", "weekday", "hour", "minute"]


class Options(InputOptions):
    """One date or time per row."""

    kind: Literal["date"] = "date"
    format: str | tuple[str, ...] | None = Field(
        default=None,
        description="Date format: `iso`, `seconds` or `milliseconds` since 1970, strptime directives such as "
        "%d.%m.%Y, or a list of which the first match is used. By default the one common format that fits all "
        "training rows.",
    )
    parts: tuple[_Part, ...] | None = Field(
        default=None,
        min_length=1,
        description="Features of the date: cycles as sine and cosine, and the trend as a scaled number. By default "
        "trend, day_of_year and weekday, and hour if the training rows contain times.",
    )

    @field_validator("format")
    @classmethod
    def _check_formats(cls, value: Any) -> Any:
        for form in _as_tuple(value):
            try:
                dates.compile_format(form)
            except ValueError as error:
                hint = "Write iso, seconds, milliseconds, or directives such as %Y-%m-%d %H:%M:%S."
                raise fault("format", f"{error}.", hint) from None
        if value is not None and not _as_tuple(value):
            raise fault("format", "expected at least one format, received none.")
        return value

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, value: Any) -> Any:
        if value is not None and len(set(value)) < len(value):
            repeated = next(part for position, part in enumerate(value) if part in value[:position])
            raise fault("parts", f"expected different parts, received {repeated} twice.")
        return value


def guess(cells: ColumnCells) -> Guess | None:
    """Recognise texts that are dates in a common format, or in several; months need their format as an option."""
    if not cells.is_text or cells.is_numeric:
        return None
    if dates.find_matching_formats(cells.present):
        is_day = _ISO_DAY.match(cells.present[0].as_py().strip()) is not None
        return Guess("date", 0.8, "dates", is_timeline=is_day)
    if dates.has_mixed_formats(cells.present):
        return Guess("date", 0.8, "dates", obstacle=_SEVERAL_FORMATS)
    # The first cell excludes most columns, whose distinct cells are then not looked for.
    first = cells.present[0].as_py().strip()
    if not dates.DATE_LIKE.fullmatch(first) or not all(map(dates.DATE_LIKE.fullmatch, cells.samples)):
        return None
    if _MONTH.fullmatch(first):
        return Guess("date", 0.8, "months", {"format": "%Y-%m"}, needs_options=True)
    return Guess("date", 0.8, "dates", needs_options=True, obstacle=_SEVERAL_FORMATS)


def fit(name: str, rows: RawColumn, options: Options) -> Column:
    """Fit the format, the mean and standard deviation of the time, and whether any date is missing."""
    import numpy as np

    rows = raw_columns.require_values(rows)
    if not raw_columns.is_text_column(rows) and rows.size != len(rows):
        raise BmcliError(
            f"column {quoted(name)}: expected one date a row, received an array of shape {tuple(rows.shape[1:])}.",
            path=f"data.inputs.{name}",
        )
    # Parsing is slow, and columns of dates often repeat the same days: each distinct cell is parsed once.
    distinct, codes = raw_columns.factorize(rows)
    with raw_columns.translate_fault_rows(codes):
        formats = _resolve_formats(name, distinct, options)
        parsed = [_parse_seconds(distinct, batch, formats) for batch in _split_batches(distinct)]
    seconds, present = (np.concatenate([batch[i] for batch in parsed])[codes] for i in (0, 1))
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
            "flag": not bool(present.all()),
        },
    )


def check(rows: RawColumn, options: Options) -> None:
    """Refuse a cell that is not a date in a format of the options, or in a common one."""
    distinct, codes = raw_columns.factorize(rows)
    formats = list(_as_tuple(options.format)) or ([] if raw_columns.is_text_column(rows) else ["seconds"])
    with raw_columns.translate_fault_rows(codes):
        if not formats:
            texts = raw_columns.to_texts(distinct)
            _check_all_parsed(texts, dates.select_formats(texts))
        for batch in _split_batches(distinct) if formats else ():
            _parse_seconds(distinct, batch, formats)


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
        for start, batch in _split_batches(distinct):
            seconds, present = _parse_seconds(distinct, (start, batch), column.state["formats"])
            encoded[start : start + len(seconds)] = layer.encode(seconds, present).numpy()
    return encoded[codes]


def build_encoder(column: Column) -> DateEncoder:
    from bmcli.layers.date_encoder import DateEncoder

    state = column.state
    return DateEncoder(state["formats"], state["parts"], state["offset"], state["scale"], state["flag"])


def build_feature(column: Column, encoded: Any) -> Feature:
    return Feature(column, encoded)


def get_traits(column: Column) -> InputTraits:
    return DateTraits(column)


class DateTraits(InputTraits):
    """Traits of a column of dates."""

    noun = "a date"
    derived_state = ("patterns",)
    has_numpy_encoder = True

    @property
    def flags(self) -> int:
        return int(self.column.state["flag"])

    @property
    def reading_options(self) -> Mapping[str, Any]:
        formats = self.column.state["formats"]
        return {"format": formats[0] if len(formats) == 1 else tuple(formats)}

    def summarize(self) -> str:
        return ""

    def make_random_cells(self, count: int, generator: np.random.Generator) -> np.ndarray:
        column, state = self.column, self.column.state
        if column.raw_dtype == "string":
            return make_object_array(["2026-01-31"] * count)
        shape = (count, *(size or 1 for size in column.raw_shape))
        return (state["offset"] + state["scale"] * generator.normal(size=shape)).astype(column.raw_dtype)

    def derive_state(self) -> Mapping[str, Any]:
        """Derive the regular expressions of the formats."""
        if self.column.raw_dtype != "string":
            return {}
        compiled = [(date_format, dates.compile_format(date_format)) for date_format in self.column.state["formats"]]
        patterns = [[date_format, pattern.regex, list(pattern.fields)] for date_format, pattern in compiled]
        return {"patterns": patterns}


def _as_tuple(formats: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (formats,) if isinstance(formats, str) else formats or ()


def _resolve_formats(name: str, rows: RawColumn, options: Options) -> list[str]:
    """Return the formats of the options, or the only common one that matches."""
    formats = list(_as_tuple(options.format))
    if not raw_columns.is_text_column(rows):
        if formats and (len(formats) > 1 or formats[0] not in dates.EPOCHS):
            raise BmcliError(
                f"column {quoted(name)}: expected `seconds` or `milliseconds`, because the column has numbers, "
                f"received {_join_with_and(formats)}.",
                path=f"data.inputs.{name}.format",
            )
        return formats or ["seconds"]
    return formats or [_guess_format(name, raw_columns.to_texts(rows))]


def _guess_format(name: str, texts: pa.ChunkedArray) -> str:
    """Return the only common format that matches all cells, `iso` if all are missing.

    Raises:
        BmcliError: Several formats match, or the cells have several formats.
        RowFault: A cell is not a date.
    """
    import numpy as np

    matching = dates.find_matching_formats(texts)
    if len(matching) == 1 or texts.null_count == len(texts):
        return matching[0] if matching else "iso"
    path = f"data.inputs.{name}.format"
    if matching:
        first = int(np.argmin(np.asarray(texts.is_null())))
        raise BmcliError(
            f"column {quoted(name)}: dates such as {raw_columns.format_cell(texts, first)} can be read as "
            f"{_join_with_and(matching)}.",
            path=path,
            suggestion=f"Set one of them: `format: {json.dumps(matching[0])}`.",
        )
    formats = dates.select_formats(texts)
    _check_all_parsed(texts, formats)
    raise BmcliError(
        f"column {quoted(name)}: its dates are written in {len(formats)} formats: {_join_with_and(formats)}.",
        path=path,
        suggestion=f"If that is intended, write `format: {json.dumps(formats)}`: the first format that matches a cell "
        "is used.",
    )


def _check_all_parsed(texts: pa.ChunkedArray, formats: list[str]) -> None:
    """Raise RowFault at the first cell that no format matches."""
    import numpy as np

    matched = np.asarray(texts.is_null()).copy()
    for form in formats:
        matched |= np.asarray(dates.match_format(texts, form).fill_null(False))
    if not matched.all():
        raise _make_date_fault(texts, int(np.argmin(matched)), "expected a date")


def _make_date_fault(rows: RawColumn, row: int, expected: str) -> RowFault:
    cell = rows[row].as_py() if raw_columns.is_text_column(rows) else None
    return RowFault(row, f"{expected}, received {raw_columns.format_cell(rows, row)}.", cell=cell)


def _join_with_and(formats: list[str]) -> str:
    return " and ".join([", ".join(formats[:-1]), formats[-1]] if len(formats) > 1 else formats)


def _parse_seconds(rows: RawColumn, batch: tuple[int, Any], formats: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Parse a batch of cells to seconds since 1970; also return which cells are not missing.

    The layer of the served model parses the cells, so that both read the same dates.

    Raises:
        RowFault: A cell is not a date.
    """
    import numpy as np

    from bmcli.layers.date_encoder import DateEncoder

    start, values = batch
    seconds, present = (each.numpy() for each in DateEncoder(formats, (), 0.0, 1.0).seconds(values))
    missing = values == "" if values.dtype == object else np.isnan(values)
    wrong = ~present & ~missing
    if wrong.any():
        row = start + int(np.argmax(wrong))
        raise _make_date_fault(rows, row, f"expected a date in the format {' or '.join(formats)}")
    return seconds, present


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


def _split_batches(rows: RawColumn) -> Iterator[tuple[int, np.ndarray]]:
    """Yield batches of cells as inputs of the layer, "" or NaN where missing, with the row of the first cell."""
    import numpy as np

    for start in range(0, len(rows), _BATCH_ROWS):
        part = rows[start : start + _BATCH_ROWS]
        if raw_columns.is_text_column(rows):
            texts = raw_columns.to_texts(part).fill_null("").to_pylist()
            yield start, np.asarray(texts, object)
        else:
            yield start, np.asarray(part, "float64").reshape(-1)
