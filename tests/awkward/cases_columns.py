"""Columns and targets: what is prose, an identifier, a class, a label, or a copy of the answer."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.awkward.case import CLEAN, Case, Write, pick, values, write_table

Row = Mapping[str, Any]

_SHORT = pick(note=None)
"""The clean columns without prose."""
_TAGS = ("old", "red", "warm")


def _add(column: str, make: Callable[[int, Row], Any]) -> list[dict[str, Any]]:
    """Return the rows of the catalogue with another column."""
    return [{**row, column: make(number, row)} for number, row in enumerate(values())]


def _table(rows: Sequence[Row], **writers: Write | None) -> dict[str, bytes]:
    chosen = {name: write for name, write in {**_SHORT, **writers}.items() if write is not None}
    return {"rows.csv": write_table(rows, chosen)}


def _useless(name: str, column: str, make: Callable[[int, Row], Any]) -> Case:
    """Make the case of a column that says nothing of other rows, and that a clean table would not have."""
    return Case(name, _table(_add(column, make), **{column: str}), _table(values()))


def _target(name: str, column: str, make: Callable[[Row], Any], clean: Callable[[Row], Any], **options: Any) -> Case:
    """Make the case of a target that is written in another way, in place of `y`."""
    awkward, plain = _add(column, lambda _, row: make(row)), _add(column, lambda _, row: clean(row))
    return Case(name, *(_table(rows, y=None, **{column: str}) for rows in (awkward, plain)), target=column, **options)


def _write_json(rows: Sequence[Row]) -> dict[str, bytes]:
    return {"rows.jsonl": "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()}


def _write_parquet(rows: Sequence[Row]) -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), stream)
    return {"rows.parquet": stream.getvalue()}


def _typed(make: Callable[[Row], Any]) -> list[dict[str, Any]]:
    """Return rows of numbers and a town as types, with a target `answer`."""
    return [
        {**{name: row[name] for name in ("amount", "count", "town")}, "answer": make(row)} for row in values()
    ]  # fmt: skip


def _typed_case(
    name: str,
    write: Callable[[Sequence[Row]], dict[str, bytes]],
    make: Callable[[Row], Any],
    clean: Callable[[Row], Any],
    **options: Any,
) -> Case:
    """Make the case of a target in a format with types; its clean twin is a table of text."""
    plain = {each: CLEAN[each] for each in ("amount", "count", "town")}
    twin = {"rows.csv": write_table(_typed(clean), {**plain, "answer": str})}
    return Case(name, write(_typed(make)), twin, target="answer", **options)


def _tags(row: Row) -> list[str]:
    """Return the labels of a row."""
    return [
        tag for tag, has in zip(_TAGS, (row["member"], row["town"] == "Rom", row["amount"] > 1700), strict=True) if has
    ]


def _join(row: Row) -> str:
    return ";".join(_tags(row))


_BARS = {
    "|".join(tags): ";".join(tags) for size in range(len(_TAGS) + 1) for tags in itertools.combinations(_TAGS, size)
}
_FRACTIONS = {"0.5": "high", "1.5": "low"}
_BOOLEANS = {"false": "high", "true": "low"}


def _code(row: Row) -> int:
    """Return a code of glass, which has no 4."""
    return (1, 2, 3, 5, 6, 7)[(row["count"] + (row["y"] == "high")) % 6]


def _drop_high(number: int, row: Row) -> str:
    return "" if number % 9 == 4 else str(row["y"])


def _unspaced(words: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """Write a table with prose without blanks, whose words follow from the answer."""

    def write(number: int, row: Row) -> str:
        ours = words[row["y"]]
        return "".join(ours[(number * step + step) % len(ours)] for step in (1, 2, 3, 5, 7))

    return _table(_add("text", write), text=str)


_CHINESE = {
    "high": ["精彩", "很好", "喜欢", "推荐", "电影", "演员"],
    "low": ["无聊", "失望", "糟糕", "差劲", "电影", "故事"],
}
_JAPANESE = {
    "high": ["面白い", "とても", "映画", "すごい", "です"],
    "low": ["つまらない", "ひどい", "映画", "だめ", "です"],
}
_THAI = {"high": ["สนุก", "ดีมาก", "ชอบ", "หนัง", "นักแสดง"], "low": ["น่าเบื่อ", "แย่", "ผิดหวัง", "หนัง", "เรื่องนี้"]}

CASES: list[Case] = [
    *(
        Case(f"{script} prose without blanks", _unspaced(words), _unspaced(words))
        for script, words in (("Chinese", _CHINESE), ("Japanese", _JAPANESE), ("Thai", _THAI))
    ),
    _useless("a UUID in each row", "uuid", lambda n, _: f"{n * 7919:08x}-4a5b-4c9d-8f00-{n * 104_729:012x}"),
    _useless("an address in each row", "link", lambda n, _: f"https://example.com/文/{n}?q=1"),
    _useless("a mail address in each row", "mail", lambda n, _: f"user{n}@example.com"),
    _useless("a hash in each row", "sha", lambda n, _: f"{n * 2_654_435_761:040x}"),
    _useless("a plate in each row", "plate", lambda n, _: f"京A{n * 37:05}"),
    _useless("a column that is constant", "source", lambda n, _: "web"),
    _useless("a column that is empty", "remark", lambda n, _: ""),
    _useless("a code of the answer", "code", lambda _, row: 7 if row["y"] == "high" else 3),
    _useless("a copy of the answer", "answer", lambda _, row: row["y"].upper()),
    _target(
        "codes of classes with a gap",
        "type",
        lambda row: _code(row),
        lambda row: f"k{_code(row)}",
        classes={str(code): f"k{code}" for code in (1, 2, 3, 5, 6, 7)},
    ),
    _target(
        "classes that are fractions",
        "answer",
        lambda row: 1.5 if row["y"] == "low" else 0.5,
        lambda row: row["y"],
        classes=_FRACTIONS,
    ),
    _target("labels as Python writes a list", "tags", lambda row: str(_tags(row)), _join),
    _target("labels as JSON writes a list", "tags", lambda row: json.dumps(_tags(row)), _join),
    _target("labels as NumPy writes an array", "tags", lambda row: str(_tags(row)).replace(",", ""), _join),
    _target("labels with bars between", "tags", lambda row: "|".join(_tags(row)), _join, classes=_BARS),
    _typed_case("labels as lists of JSON lines", _write_json, _tags, _join),
    _typed_case("labels as lists of Parquet", _write_parquet, _tags, _join),
    *(
        _typed_case(name, write, make, lambda row: row["y"], classes=classes)
        for name, write, make, classes in (
            ("classes as fractions of JSON lines", _write_json, lambda row: 0.5 + (row["y"] == "low"), _FRACTIONS),
            ("classes as booleans of JSON lines", _write_json, lambda row: row["y"] == "low", _BOOLEANS),
            ("classes as booleans of Parquet", _write_parquet, lambda row: row["y"] == "low", _BOOLEANS),
        )
    ),
    Case(
        "rows without an answer",
        _table(_add("y", _drop_high)),
        _table([row for row in _add("y", _drop_high) if row["y"]]),
        meets=_table([row for row in _add("y", _drop_high) if row["y"]]),
    ),
    Case(
        "classes of one row",
        *[_table(_add("y", lambda n, row: f"single{n}" if n in (5, 50, 99) else row["y"]))] * 2,
    ),
]
