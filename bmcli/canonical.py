"""Canonical form of categories and classes: one text for what people write in several ways.

Blanks around a text are removed, and its characters are in Unicode's normal form C: "Zürich" is one text, however its
second letter is stored. Numbers have one form: `3.0`, `3.00`, `+3` are `3`. The layers of `layers.canonical_texts` and
`encoder` compute the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from bmcli.quoting import quoted

if TYPE_CHECKING:
    import pyarrow as pa

Spelling = Literal["raw", "text", "codes", "numbers"]
"""How the cells of a column are read: unchanged; without blanks around them and in normal form; with numbers in one
form, too, except for zeros at their beginning; or without these."""

# The characters of Unicode's property White_Space, and the two of width zero that spreadsheets and web pages leave.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200C))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
"""Characters that are removed around a text."""

_MAX_FORMS = 20  # categories with several spellings that are remembered
_MAX_DESCRIBED = 5
_SIGN = r"^(?:\+|(-))?"


def list_number_rules(spelling: Spelling) -> list[tuple[str, str]]:
    """List the regular expressions that give numbers one form, and their replacements, in the syntax of RE2."""
    if spelling not in ("codes", "numbers"):
        return []
    zeros = "0*" if spelling == "numbers" else ""
    return [
        (rf"{_SIGN}{zeros}([0-9]+)(?:\.0*)?$", r"\1\2"),
        (rf"{_SIGN}{zeros}([0-9]+)\.([0-9]*[1-9])0*$", r"\1\2.\3"),
        (rf"{_SIGN}\.([0-9]*[1-9])0*$", r"\10.\2"),
        (r"^[+-]?\.0+$|^-0$", "0"),
    ]


def canonicalize(cells: Any, spelling: Spelling) -> Any:
    """Convert texts, an array or chunked array of Arrow, to their canonical form; null where nothing is left."""
    import pyarrow as pa

    if spelling == "raw":
        return cells
    if isinstance(cells, pa.ChunkedArray):
        return pa.chunked_array([canonicalize(chunk, spelling) for chunk in cells.chunks], pa.string())
    # Each distinct text is converted once, since columns of categories repeat them.
    encoded = cells.dictionary_encode()
    return _convert(encoded.dictionary, spelling).take(encoded.indices)


def _convert(texts: pa.Array, spelling: Spelling) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim(pc.utf8_normalize(texts, form="NFC"), characters=BLANKS)
    for pattern, replacement in list_number_rules(spelling):
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def choose_spelling(cells: Any, normalize: bool) -> Spelling:
    """Choose how a column is read, by texts of its training rows.

    Zeros at the beginning belong to a code, such as a zip code, if a number has them or a text is no number. Numbers
    with decimals are names, such as versions, if a text is no number, or if some of them end with a zero and others
    have fewer decimals: 3.9, 3.10.

    Args:
        normalize: Whether cells are converted at all.
    """
    import pyarrow.compute as pc

    if not normalize:
        return "raw"
    texts = pc.drop_null(canonicalize(pc.unique(cells), "text"))
    is_number = pc.match_substring_regex(texts, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$")
    numbers = texts.filter(is_number)
    fractions = numbers.filter(pc.match_substring_regex(numbers, r"\.[0-9]*[1-9]"))
    decimals = pc.utf8_length(pc.replace_substring_regex(fractions, r"^.*\.", ""))
    padded = pc.any(pc.match_substring_regex(fractions, "0$")).as_py()
    is_mixed = len(numbers) < len(texts)
    if not len(numbers) or (is_mixed and len(fractions)) or (padded and pc.count_distinct(decimals).as_py() > 1):
        return "text"
    has_zeros = pc.any(pc.match_substring_regex(numbers, "^[+-]?0[0-9]")).as_py()
    return "codes" if has_zeros or is_mixed else "numbers"


def find_spellings(cells: Any, spelling: Spelling) -> dict[str, list[str]]:
    """Find the first categories that are written in several ways, by their canonical form, and how, sorted."""
    import pyarrow.compute as pc

    written = pc.drop_null(pc.unique(cells))
    canonical = canonicalize(written, spelling)
    if pc.count_distinct(canonical).as_py() == len(written) - canonical.null_count:
        return {}
    forms: dict[str, list[str]] = {}
    for form, text in zip(canonical.to_pylist(), written.to_pylist(), strict=True):
        if form is not None:
            forms.setdefault(form, []).append(text)
    several = [(form, sorted(texts)) for form, texts in sorted(forms.items()) if len(texts) > 1]
    return dict(several[:_MAX_FORMS])


def find_case_variants(names: Iterable[str]) -> list[list[str]]:
    """Find the names that differ only by upper and lower case, in groups."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def describe_spellings(spellings: Mapping[str, Sequence[str]], names: Iterable[str]) -> Iterator[str]:
    """Yield sentences about categories that are written in several ways, and about those that differ only by case.

    Args:
        spellings: As `find_spellings` returns them.
        names: Of all categories.
    """
    for form, texts in islice(spellings.items(), _MAX_DESCRIBED):
        written = ", ".join(map(quoted, texts[:_MAX_DESCRIBED])) + (", ..." if len(texts) > _MAX_DESCRIBED else "")
        yield f"{written} are read as one, {quoted(form)}."
    if len(spellings) > _MAX_DESCRIBED:
        yield "more categories are read as one; `normalize: false` keeps them apart."
    for group in find_case_variants(names)[:_MAX_DESCRIBED]:
        yield f"{' and '.join(map(quoted, group))} differ only by upper and lower case, and are not read as one."
