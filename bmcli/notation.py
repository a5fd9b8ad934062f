"""How people write numbers and missing values: markers, notations, and the numbers that texts of a notation mean.

Columns of text are read as a whole by pyarrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bmcli.quoting import quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

DecimalMark = Literal[".", ","]
ThousandsMark = Literal["", ",", ".", " ", "'"]

MISSING_MARKERS = (
    "", "na", "n/a", "#n/a", "#na", "n.a.", "n.a", "<na>", "nan", "nat", "null", "(null)", "#null!", "none", "(none)",
    "nil", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}", "?", ".", "..", "...", "\\n", "unknown",
    "(unknown)", "missing", "(missing)", "not available", "n.d.", "k.a.", "k. a.", "unbekannt", "#div/0!", "#value!",
    "#ref!", "#name?", "#num!", "#error!",
)  # fmt: skip
"""Texts in lower case that mark a missing cell where numbers, booleans or dates are expected."""


def find_markers(texts: pa.Array | pa.ChunkedArray, further: Sequence[str] = ()) -> Any:
    """Find the texts that mark a missing cell, in any case and with blanks around.

    Args:
        further: Markers beside MISSING_MARKERS, such as those of the option `missing_cells`.

    Returns:
        A boolean Arrow array; false for null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    markers = pa.array([*MISSING_MARKERS, *(_fold(text) for text in further)], pa.string())
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    return pc.fill_null(pc.and_(pc.is_valid(folded), pc.is_in(folded, value_set=markers)), False)


def count_markers(texts: pa.Array | pa.ChunkedArray, further: Sequence[str] = ()) -> dict[str, int]:
    """Count the cells of each text that marks a missing one, the most frequent first; empty cells are not counted."""
    import pyarrow.compute as pc

    found = pc.value_counts(pc.utf8_trim_whitespace(texts.filter(find_markers(texts, further))))
    counts = order_counts(found.field("values"), found.field("counts"))
    counts.pop("", None)
    return counts


def _fold(text: str) -> str:
    return text.strip().lower()


@dataclass(frozen=True)
class NumberNotation:
    """How the numbers of a column are written.

    Whatever the notation, a number may have a sign, an exponent, full-width digits, or parentheses if it is negative.

    Args:
        decimal: Mark before the fraction.
        thousands: Mark between groups of three digits, empty if there are no groups; " " stands for every kind of
            blank and "'" for every kind of apostrophe. Digits without groups are read, too.
        unit: Text before or after the numbers, such as `$`, `EUR` or `%`; empty if there is none. Numbers without it
            are read, too, except for those that are not 0 where it is `%`: 0.5 beside 45 % may mean 50 %.
    """

    decimal: DecimalMark = "."
    thousands: ThousandsMark = ""
    unit: str = ""

    def to_options(self) -> dict[str, str]:
        """Return the options of a recipe that differ from the defaults."""
        plain = vars(PLAIN)
        return {name: value for name, value in vars(self).items() if value != plain[name]}


PLAIN = NumberNotation()


def write_number(number: str, notation: NumberNotation) -> str:
    """Write a number of at least 0, which is in the notation of Python, in another one."""
    whole, point, fraction = number.partition(".")
    text = f"{int(whole):,}".replace(",", notation.thousands) + point.replace(".", notation.decimal) + fraction
    is_after = notation.unit == "%" or notation.unit.isalpha()
    return f"{text} {notation.unit}".replace(" %", "%") if is_after else notation.unit + text


_NOTATIONS = (
    PLAIN, NumberNotation(".", ","), NumberNotation(","), NumberNotation(",", "."), NumberNotation(".", " "),
    NumberNotation(",", " "), NumberNotation(".", "'"), NumberNotation(",", "'"),
)  # fmt: skip
"""Notations that are guessed; of several that fit equally well, the first."""

_UNITS = (
    r"US\$|R\$|A\$|C\$|\p{Sc}|%|USD|EUR|Euro|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|HUF|BRL|AUD|CAD|NZD|ZAR|MXN|Fr\."
    r"|kr|z\x{142}|K\x{10D}|Ft|Rs\.?"
)
"""Currencies and the per cent sign, which are guessed; other units are read only if a recipe names them."""

_AFFIXES = rf"^[(+-]{{0,2}} ?(?P<before>{_UNITS})? ?[(+-]{{0,2}}(?:[0-9.,][0-9 .,'eE+-]*?) ?(?P<after>{_UNITS})? ?\)?$"
_SAMPLE = 2000  # cells by which columns without numbers are recognised
_NUMERIC_SHARE = 0.95  # share of numbers among the cells that are not missing, from which on the others are mistakes
_GUESSED = 20_000  # distinct cells from which the notation is guessed first
_MANY_DISTINCT = 50  # distinct numbers without which numbers beside other words may be names of categories
_SOME_DISTINCT = 10  # distinct numbers without which markers that are more frequent may be a category
MAX_LISTED = 10
"""Number of distinct cells that a message lists at most."""

MAX_FOREIGN = 30
"""Number of distinct foreign cells that a recipe names at most."""


@dataclass(frozen=True)
class WrittenNumbers:
    """A column of numbers: how they are written, and its other cells.

    Args:
        example: The longest number of those that were looked at.
        markers: Counts of the distinct texts that mark a missing cell.
        foreign: Counts of the distinct cells that are neither numbers nor missing, the most frequent first.
        doubt: What else the numbers may mean; empty if nothing else.
        obstacle: Reason for which the numbers cannot be read; empty if there is none.
    """

    notation: NumberNotation = PLAIN
    example: str = ""
    markers: Mapping[str, int] = field(default_factory=dict)
    foreign: Mapping[str, int] = field(default_factory=dict)
    doubt: str = ""
    obstacle: str = ""


def guess_numbers(texts: pa.ChunkedArray) -> WrittenNumbers | None:
    """Guess how the numbers of a column are written; None if it is not a column of numbers.

    Nearly all cells that are not missing must be numbers, in one notation. Digits of one length that begin with a zero
    somewhere, such as postcodes, are no numbers.

    Args:
        texts: Cells without null.
    """
    import pyarrow.compute as pc

    sample = pc.utf8_trim_whitespace(texts.slice(0, _SAMPLE))
    candidates = sample.filter(pc.invert(find_markers(sample)))
    if len(candidates) and _find_candidates(candidates).mean() < _NUMERIC_SHARE / 2:
        return None  # without work on the whole column, which may be large prose
    cells = pc.utf8_trim_whitespace(texts)
    if _are_codes(sample) and _are_codes(cells):
        return None
    if _cast(cells) is None or (_is_ambiguous(sample) and _is_ambiguous(cells)):
        return _guess_distinct(cells)
    return WrittenNumbers()


def _guess_distinct(cells: pa.ChunkedArray) -> WrittenNumbers | None:
    """Guess from distinct cells with their counts: those of a part of a long column if it explains all others."""
    step = max(1, len(cells) // _GUESSED)
    guess = _guess_from_part(cells, step)
    if step == 1 or (guess is not None and not guess.foreign and not guess.obstacle):
        return guess
    return _guess_from_part(cells, 1)


def _guess_from_part(cells: pa.ChunkedArray, step: int) -> WrittenNumbers | None:
    """Guess the notation from cells `step` apart, and find all cells that are not numbers of it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    part = cells if step == 1 else cells.take(pa.array(np.arange(0, len(cells), step)))
    texts, weights = _count_distinct(part.filter(pc.invert(find_markers(part))))
    if not len(texts) or _are_codes(texts):
        return None
    notation, doubt = _guess_notation(texts, weights)
    values, is_foreign = parse_numbers(cells, notation)
    missing, others = np.isnan(values) & ~is_foreign, int(is_foreign.sum())
    numbers = len(values) - int(missing.sum()) - others
    if numbers < _NUMERIC_SHARE * (numbers + others):
        return _describe_mixture(texts, weights)
    readable = texts.filter(pa.array(~parse_numbers(texts, notation)[1]))
    needed = _MANY_DISTINCT if others else _SOME_DISTINCT if numbers < missing.sum() else 1
    if len(readable) < needed or _are_other_signs(readable, notation):
        return None
    foreign = order_counts(*_count_distinct(cells.filter(pa.array(is_foreign))))
    markers = order_counts(*_count_distinct(cells.filter(pa.array(missing))))
    markers.pop("", None)
    obstacle = ""
    if len(foreign) > MAX_FOREIGN:
        obstacle = (
            f"numbers except for {others:,} cells of {len(foreign):,} kinds, such as {quoted(next(iter(foreign)))}; to "
            "use it, name its kind, and write `invalid: fill`"
        )
    example = readable[int(np.argmax(np.asarray(pc.utf8_length(readable))))].as_py()
    return WrittenNumbers(notation, example, markers, foreign, doubt, obstacle)


def _count_distinct(cells: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Count the cells of each distinct text."""
    import numpy as np
    import pyarrow.compute as pc

    counted = pc.value_counts(cells)
    return counted.field("values"), np.asarray(counted.field("counts"))


def _guess_unit(texts: Any) -> str:
    """Return the most frequent currency or per cent sign of distinct numbers, empty if there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    affixes = pc.drop_null(pc.extract_regex(_remove_quotes(_simplify_characters(texts)), _AFFIXES))
    units = pa.concat_arrays([affixes.field("before"), affixes.field("after")])
    counted = pc.value_counts(units.filter(pc.not_equal(units, ""))).to_pylist()
    return str(max(counted, key=lambda each: each["counts"])["values"]) if counted else ""


def _guess_notation(texts: pa.Array, weights: np.ndarray) -> tuple[NumberNotation, str]:
    """Return the notation that reads most cells, the first in `_NOTATIONS` of several; also its doubt.

    1.250 beside 17 means 1250: if the point were that of a fraction, 17 would be written as 17.000, or 1.250 as 1.25.
    """
    import numpy as np
    import pyarrow.compute as pc

    bodies = _to_bodies(texts)
    matched = {each: np.asarray(pc.match_substring_regex(bodies, _compile_number(each))) for each in _NOTATIONS}
    totals = {each: int(weights[mask].sum()) for each, mask in matched.items()}
    best = max(_NOTATIONS, key=lambda each: totals[each])
    fraction, groups = (PLAIN, NumberNotation(",", ".")) if best == PLAIN else (NumberNotation(","), _NOTATIONS[1])
    doubt = ""
    if best in (fraction, groups) and totals[fraction] == totals[groups]:
        mark = fraction.decimal
        numbers = bodies.filter(matched[best])
        marked = numbers.filter(pc.match_substring(numbers, mark))
        bare = numbers.filter(pc.invert(pc.match_substring(numbers, mark)))
        has_long = bool(pc.any(pc.match_substring_regex(bare, "[0-9]{4}")).as_py())
        ends_in_zero = bool(pc.any(pc.ends_with(marked, "0")).as_py())
        if len(marked) and len(bare) and has_long != ends_in_zero:
            best = fraction if has_long else groups
        elif len(marked):
            example, other = marked[0].as_py(), fraction if best == groups else groups
            doubt = _describe_doubt(example, best, other)
    return NumberNotation(best.decimal, best.thousands, _guess_unit(texts)), doubt


def _describe_doubt(example: str, notation: NumberNotation, other: NumberNotation) -> str:
    import pyarrow as pa

    readings = [float(parse_numbers(pa.array([example]), each)[0][0]) for each in (notation, other)]
    options = ", ".join(f'{name}: "{value}"' for name, value in other.to_options().items())
    return f"{example} is read as {readings[0]:.12g}; if it means {readings[1]:.12g}, write `{options}`"


def _to_bodies(texts: Any) -> Any:
    """Simplify numbers, and remove parentheses and the units that are guessed."""
    return _negate_parentheses(_strip_unit(_remove_quotes(_simplify_characters(texts)), _UNITS))


def _find_candidates(texts: Any) -> np.ndarray:
    """Find the texts that are numbers in any notation that is guessed."""
    import numpy as np
    import pyarrow.compute as pc

    bodies = _to_bodies(texts)
    return np.logical_or.reduce(
        [np.asarray(pc.match_substring_regex(bodies, _compile_number(each))) for each in _NOTATIONS]
    )


def _describe_mixture(texts: Any, weights: np.ndarray) -> WrittenNumbers | None:
    """Describe numbers in several notations, of which no single one fits; None if the cells are no numbers at all."""
    import numpy as np

    is_candidate = _find_candidates(texts)
    if weights[is_candidate].sum() < _NUMERIC_SHARE * weights.sum() or is_candidate.sum() < _MANY_DISTINCT:
        return None
    places = np.flatnonzero(is_candidate)[:2].tolist()
    examples = " and ".join(quoted(texts[place].as_py()) for place in places)
    return WrittenNumbers(obstacle=f"numbers that are written in several ways, such as {examples}")


def _are_other_signs(numbers: Any, notation: NumberNotation) -> bool:
    """Whether texts that can be read as numbers are others, such as (1) and (2), or the phone number 555 123 456."""
    import pyarrow.compute as pc

    if pc.all(pc.starts_with(numbers, "(")).as_py():
        return True
    lengths = pc.min_max(pc.utf8_length(numbers))
    return bool(
        notation.thousands == " "
        and lengths["min"] == lengths["max"]
        and pc.all(pc.match_substring_regex(numbers, r"\S\s\S+\s\S")).as_py()
    )


def _are_codes(cells: Any) -> bool:
    """Whether cells are digits of one length, some of which begin with 0, such as postcodes."""
    import pyarrow.compute as pc

    lengths = pc.min_max(pc.binary_length(cells))
    if lengths["min"] != lengths["max"] or (lengths["max"].as_py() or 0) < 2:
        return False
    all_digits = pc.all(pc.match_substring_regex(cells, "^[0-9]+$")).as_py()
    return bool(all_digits and pc.any(pc.starts_with(cells, "0")).as_py())


def _is_ambiguous(cells: Any) -> bool:
    """Whether each point may stand before a fraction, or between groups of digits."""
    import pyarrow.compute as pc

    pattern = r"^[+-]?(?:[0-9]+|[1-9][0-9]{0,2}\.[0-9]{3})$"
    has_point = pc.any(pc.match_substring(cells, ".")).as_py()
    return bool(has_point and pc.all(pc.match_substring_regex(cells, pattern)).as_py())


def order_counts(texts: Any, counts: Any) -> dict[str, int]:
    """Pair texts with their counts, the most frequent first."""
    pairs = zip(texts.to_pylist(), counts.tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def list_counts(counts: Mapping[str, int], limit: int = MAX_LISTED) -> str:
    """List texts with their counts for a message: `'NULL' (14) and 'tbd' (1)`."""
    shown = [f"{quoted(text)} ({count:,})" for text, count in list(counts.items())[:limit]]
    if len(counts) > limit:
        shown.append(f"{len(counts) - limit:,} others")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def parse_numbers(
    texts: pa.Array | pa.ChunkedArray, notation: NumberNotation = PLAIN, missing_cells: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Read texts as numbers.

    Args:
        missing_cells: Texts that mark a missing cell, beside MISSING_MARKERS.

    Returns:
        The numbers, float64 `(rows,)`, NaN where there is none; and whether each cell is foreign: neither a finite
        number nor missing.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.utf8_trim_whitespace(texts)
    # At once where no cell is unusual, which is several times faster. The cast also accepts `nan` and `inf`.
    numbers = None if notation.unit == "%" else _cast(cells, notation.decimal)
    if numbers is not None:
        return numbers, np.zeros(len(cells), bool)
    plain = _to_plain(cells, notation)
    foreign = np.array(pc.and_(pc.is_null(plain), pc.is_valid(cells)))
    if foreign.any():
        places = np.flatnonzero(foreign)
        foreign[places] = ~np.asarray(find_markers(cells.take(pa.array(places)), missing_cells))
    numbers = np.array(pc.fill_null(pc.cast(plain, pa.float64()), float("nan")), "float64")
    return numbers, foreign | np.isinf(numbers)


def _cast(cells: Any, decimal: DecimalMark = ".") -> np.ndarray | None:
    """Cast trimmed texts to finite numbers, NaN where null; None if one is no such number."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if decimal == ",":
        if pc.any(pc.match_substring(cells, ".")).as_py():
            return None
        cells = pc.replace_substring(cells, ",", ".")
    try:
        numbers = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        return None
    if pc.any(pc.invert(pc.is_finite(numbers))).as_py():
        return None
    return np.array(pc.fill_null(numbers, float("nan")), "float64")


def _to_plain(cells: Any, notation: NumberNotation) -> Any:
    """Rewrite trimmed texts in the notation that pyarrow parses; null where a text is no number.

    Groups must have three digits, so that 1,5 is not 15 where a comma separates thousands.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    original = simplified = _remove_quotes(_simplify_characters(cells))
    if notation.unit:
        simplified = _strip_unit(simplified, re.escape(_simplify_characters(pa.array([notation.unit]))[0].as_py()))
    plain = _negate_parentheses(simplified)
    is_number = pc.match_substring_regex(plain, _compile_number(notation))
    plain = pc.if_else(is_number, plain, pa.scalar(None, pa.string()))
    for mark in {notation.thousands, " "} - {""}:  # a blank may also follow the sign
        plain = pc.replace_substring(plain, mark, "")
    plain = plain if notation.decimal == "." else pc.replace_substring(plain, notation.decimal, ".")
    if notation.unit == "%":
        is_bare = pc.and_(pc.equal(original, simplified), pc.match_substring_regex(plain, "[1-9]"))
        plain = pc.if_else(pc.fill_null(is_bare, False), pa.scalar(None, pa.string()), plain)
    return plain


def _simplify_characters(cells: Any) -> Any:
    """Replace blanks, minus signs, apostrophes and digits of other widths by those of ASCII."""
    import pyarrow.compute as pc

    if pc.all(pc.string_is_ascii(cells)).as_py() is not False:
        return cells
    # The normal form would make 52 of 5\N{SUPERSCRIPT TWO}, and 112 of 1\N{VULGAR FRACTION ONE HALF}.
    is_unsafe = pc.match_substring_regex(cells, r"[\p{No}\p{Nl}]")
    cells = pc.if_else(is_unsafe, cells, pc.utf8_normalize(cells, form="NFKC"))
    cells = pc.replace_substring_regex(cells, r"[\x{2010}\x{2012}\x{2013}\x{2212}]", "-")
    return pc.replace_substring_regex(cells, r"[\x{2018}\x{2019}\x{02BC}\x{B4}`]", "'")


def _remove_quotes(cells: Any) -> Any:
    """Remove the quotes around numbers, and the apostrophe before them by which spreadsheets mark a text."""
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring_regex(cells, r"^[\"']")).as_py():
        return cells
    cells = pc.replace_substring_regex(cells, r'^" *([^"]*?) *"$', r"\1")
    return pc.replace_substring_regex(cells, r"^' *([^']*?) *'?$", r"\1")


def _strip_unit(cells: Any, pattern: str) -> Any:
    """Remove a unit before or after each number.

    Args:
        pattern: Regular expression of the unit.
    """
    import pyarrow.compute as pc

    cells = pc.replace_substring_regex(cells, rf"^([(+-]{{0,2}}) ?(?:{pattern}) ?", r"\1")
    return pc.replace_substring_regex(cells, rf" ?(?:{pattern}) ?(\)?)$", r"\1")


def _negate_parentheses(cells: Any) -> Any:
    """Replace parentheses around a number, by which accountants mark negative amounts, by a minus sign."""
    import pyarrow.compute as pc

    if not pc.any(pc.starts_with(cells, "(")).as_py():
        return cells
    return pc.replace_substring_regex(cells, r"^\( ?([0-9.,][^()]*?) ?\)$", r"-\1")


def _compile_number(notation: NumberNotation) -> str:
    """Return the regular expression of the numbers of a notation, without unit and parentheses."""
    decimal, thousands = re.escape(notation.decimal), re.escape(notation.thousands)
    whole = "[0-9]+"
    if thousands:
        whole += rf"|[1-9][0-9]{{0,2}}(?:{thousands}[0-9]{{3}})+"
    if notation.thousands == ",":
        whole += "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"  # lakhs and crores
    return rf"^[+-]? ?(?:(?:{whole})(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?$"
