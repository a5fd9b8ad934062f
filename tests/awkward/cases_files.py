"""Files of tables: how programs and people separate, quote, title, encode and name them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

from tests.awkward.case import CLEAN, Case, Write, pick, values, write_table

ROWS = values()
TABLE = write_table(ROWS)
LINES = TABLE.decode().splitlines()
NUMBERED = {name: f"column_{position}" for position, name in enumerate(CLEAN, start=1)}
PLACES: dict[str, Write] = {"town": lambda value: {"Genf": "Genève", "Wien": "Wien \N{EN DASH} Süd"}.get(value, value)}
CHINESE = {"Bern": "北京", "Genf": "上海", "Rom": "广州", "Wien": "深圳"}
TRADITIONAL = {"Bern": "臺北", "Genf": "高雄", "Rom": "新竹", "Wien": "花蓮"}
JAPANESE = {"Bern": "みなと", "Genf": "さくら", "Rom": "ひだか", "Wien": "東京"}
RUSSIAN = {"Bern": "Москва", "Genf": "Казань", "Rom": "Самара", "Wien": "Тула"}
NOTES: dict[str, Write] = {"note": lambda value: f'"{value}' if "red house in Bern has 1" in value else value}


def file_case(name: str, content: bytes, file: str = "rows.csv", clean: bytes = TABLE, **options: Any) -> Case:
    """Make the case of a table in another file."""
    return Case(name=name, awkward={file: content}, clean={"rows.csv": clean}, **options)


def write_lines(change: Callable[[str], str], *above: str, end: str = "\n") -> bytes:
    """Change each line of the clean table, and write lines above it."""
    return (end.join([*above, *map(change, LINES)]) + end).encode()


def same(line: str) -> str:
    return line


def write_objects(**odd: Any) -> list[dict[str, Any]]:
    """Write rows as objects, with odd values that rows have in turn."""
    clean = {name: write for name, write in CLEAN.items() if name not in ("amount", "count")}
    return [
        {
            **{name: row[name] for name in ("amount", "count")},
            **{name: write(row[name]) for name, write in clean.items()},
            **{name: each[position % len(each)] for name, each in odd.items()},
        }
        for position, row in enumerate(ROWS)
    ]


def write_json_lines(**odd: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in write_objects(**odd)).encode()


def write_parquet() -> bytes:
    """Write Parquet with columns of types that no input has."""
    from datetime import timedelta
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(write_objects())
    odd = {
        "took": pa.array([timedelta(seconds=5)] * len(ROWS)),
        "tags": pa.array([[("a", 1)]] * len(ROWS), pa.map_(pa.string(), pa.int64())),
        "parts": pa.array([[{"a": 1}]] * len(ROWS)),
    }
    for name, column in odd.items():
        table = table.append_column(name, column)
    amounts = pa.array([Decimal(CLEAN["amount"](row["amount"])) for row in ROWS], pa.decimal128(9, 1))
    table = table.set_column(table.schema.get_field_index("amount"), "amount", amounts)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def write_archive() -> bytes:
    """Write NumPy arrays beside names of classes and a single value."""
    import numpy as np

    columns = {name: np.array([row[name] for row in write_objects()]) for name in CLEAN}
    stream = io.BytesIO()
    np.savez(stream, names=np.array(["high", "low"]), version=np.array(3), **columns)
    return stream.getvalue()


CASES: list[Case] = [
    file_case("semicolons", write_table(ROWS, delimiter=";")),
    file_case("tabs in a file that ends in .txt", write_table(ROWS, delimiter="\t"), "rows.txt"),
    file_case("tabs in a file that ends in .tsv", write_table(ROWS, delimiter="\t"), "rows.tsv"),
    file_case("bars in a file that ends in .psv", write_table(ROWS, delimiter="|"), "rows.psv"),
    file_case(
        "columns aligned by blanks in a file that ends in .data",
        "".join(
            "  ".join((f'"{cell}"' if " " in cell else cell).rjust(9) for cell in line.split(",")) + "\n"
            for line in LINES
        ).encode(),
        "rows.data",
    ),
    file_case("the separator line of Excel", b"sep=;\r\n" + write_table(ROWS, delimiter=";")),
    file_case(
        "the index of pandas",
        (
            "\n".join(f"{position - 1 if position else ''},{line}" for position, line in enumerate(LINES)) + "\n"
        ).encode(),
    ),
    file_case(
        "the shuffled index of pandas under its later name",
        (
            "\n".join(
                f"{position * 37 % 1000 if position else 'Unnamed: 0'},{line}" for position, line in enumerate(LINES)
            )
            + "\n"
        ).encode(),
    ),
    file_case(
        "row names of R without a name in the header",
        (
            "\n".join(
                f"row {position}\t{line}" if position else line
                for position, line in enumerate(write_table(ROWS, delimiter="\t").decode().splitlines())
            )
            + "\n"
        ).encode(),
        "rows.txt",
    ),
    file_case("a delimiter at the end of every line", write_lines(lambda line: line + ",")),
    file_case("a title above the header", write_lines(same, "Houses of 2021", "")),
    file_case("comments above the header", write_lines(same, "# houses, by me", "# in CHF")),
    file_case("a byte order mark", b"\xef\xbb\xbf" + TABLE),
    file_case("line ends of Windows", write_lines(same, end="\r\n")),
    file_case("line ends of old Macs", write_lines(same, end="\r")),
    file_case("blank lines between the rows", write_lines(same, end="\n\n")),
    *(
        file_case(
            f"the encoding {encoding}",
            write_table(ROWS, pick(town=towns.__getitem__)).decode().encode(encoding),
            clean=write_table(ROWS, pick(town=towns.__getitem__)),
        )
        for encoding, towns in (("gbk", CHINESE), ("big5", TRADITIONAL), ("shift_jis", JAPANESE), ("cp1251", RUSSIAN))
    ),
    file_case(
        "the encoding of Windows",
        write_table(ROWS, pick(**PLACES)).decode().encode("cp1252"),
        clean=write_table(ROWS, pick(**PLACES)),
    ),
    file_case(
        "UTF-16 as Excel writes it",
        write_table(ROWS, pick(**PLACES), delimiter="\t").decode().encode("utf-16"),
        clean=write_table(ROWS, pick(**PLACES)),
    ),
    *(
        file_case(
            f"{encoding} without a mark",
            write_table(ROWS, pick(**PLACES)).decode().encode(encoding),
            clean=write_table(ROWS, pick(**PLACES)),
        )
        for encoding in ("utf-16-le", "utf-16-be")
    ),
    file_case("quotes around every cell", write_table(ROWS, quote=True)),
    file_case("single quotes around every cell", write_lines(lambda line: f"'{line}'".replace(",", "','"))),
    file_case(
        "quotes at the start of some cells",
        write_table(ROWS, pick(**NOTES)).replace(b'"""', b'"').replace(b'garden"', b"garden"),
        clean=write_table(ROWS, pick(**NOTES)),
    ),
    file_case(
        "commas in names beside semicolons",
        write_table(ROWS, delimiter=";", names={"amount": "amount, CHF", "count": "count, total"}),
        clean=write_table(ROWS, names={"amount": "amount, CHF", "count": "count, total"}),
    ),
    file_case(
        "no header",
        "".join(f"{line}\n" for line in LINES[1:]).encode(),
        clean=write_table(ROWS, names=NUMBERED),
        target="column_7",
    ),
    file_case("a list of JSON objects", json.dumps(write_objects()).encode(), "rows.json"),
    file_case("JSON lines under another name", write_json_lines(), "rows.txt"),
    file_case("a gzip file without an ending", gzip.compress(TABLE), "rows"),
    file_case("JSON lines with a column of many types", write_json_lines(meta=[1, [2], {"a": "x"}, "y"]), "rows.jsonl"),
    file_case("Parquet with columns of odd types under another name", write_parquet()),
    file_case("arrays beside names of classes", write_archive(), "rows.npz"),
]
