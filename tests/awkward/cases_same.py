"""One value in several spellings: blanks, Unicode normal forms, and numbers in text."""

from __future__ import annotations

import io
import json
import unicodedata
from itertools import cycle
from typing import Any

from tests.awkward.case import CLEAN, Case, Write, cell_case, pick, values, write_table

ACCENTED = {"Bern": "Zürich", "Genf": "Genève", "Rom": "Ñuñoa", "Wien": "Ångström"}
CODES = {"Bern": "7", "Genf": "A3", "Rom": "12", "Wien": "40"}
PADDED_CODES = {"Bern": "01234", "Genf": "CH-1200", "Rom": "00100", "Wien": "1010"}


def decompose(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def in_turn(*writers: Write) -> Write:
    """Write the cells of a column in several ways, one row after the other."""
    turns = cycle(writers)
    return lambda value: next(turns)(value)


def met_case(name: str, column: str, write: Write, clean: Write | None = None, **options: Any) -> Case:
    """Make the case of a model of clean data that meets another spelling."""
    twin = {"rows.csv": write_table(values(), pick(**({column: clean} if clean else {})))}
    met = {"rows.csv": write_table(values(), pick(**{column: write}))}
    return Case(name, twin, twin, meets=met, **options)


def write_json_lines(**writers: Any) -> bytes:
    """Write the table as JSON lines, with other values than texts where a column has a writer."""
    writers = {**CLEAN, "amount": float, "count": int, **writers}
    rows = [{name: write(row[name]) for name, write in writers.items()} for row in values()]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_parquet(**writers: Any) -> bytes:
    """Write the table as a Parquet file, as `write_json_lines` does."""
    import pyarrow as pa
    from pyarrow import parquet

    writers = {**CLEAN, "amount": float, "count": int, **writers}
    table = pa.table({name: [write(row[name]) for row in values()] for name, write in writers.items()})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def to_code(value: str) -> str:
    return "1" if value == "high" else "0"


def to_number(value: str) -> float:
    return float(to_code(value))


def leave_out_rome(value: str) -> str:
    return value.replace("Rom", "")


CLASS_CODES = {"rows.csv": write_table(values(), pick(y=to_code))}

CASES: list[Case] = [
    cell_case("categories with blanks around", "town", lambda value: f" {value}  "),
    cell_case("categories with a blank in some rows", "town", in_turn(str, "{} ".format, str)),
    cell_case("categories with a non-breaking blank", "town", in_turn(str, "{}\u00a0".format)),
    cell_case("categories with a blank of width zero", "town", in_turn("\u200b{}".format, str)),
    cell_case("categories in Unicode form D", "town", lambda v: decompose(ACCENTED[v]), ACCENTED.__getitem__),
    cell_case(
        "categories in both Unicode forms",
        "town",
        in_turn(lambda value: decompose(ACCENTED[value]), ACCENTED.__getitem__),
        ACCENTED.__getitem__,
    ),
    cell_case(
        "blanks for a missing category", "town", lambda v: "  " if v == "Rom" else v, lambda v: v.replace("Rom", "")
    ),
    cell_case(
        "codes with a point in some rows",
        "town",
        in_turn(lambda value: CODES[value] + (".0" if CODES[value].isdigit() else ""), CODES.__getitem__),
        CODES.__getitem__,
    ),
    cell_case("codes with zeros and blanks", "town", lambda v: f"{PADDED_CODES[v]} ", PADDED_CODES.__getitem__),
    cell_case("classes with a blank in some rows", "y", in_turn(str, "{} ".format, " {}".format)),
    cell_case("classes with a point", "y", lambda value: f"{to_code(value)}.0", to_code),
    cell_case(
        "classes with a sign, a point or a blank",
        "y",
        in_turn(
            lambda value: f"{to_code(value)}.00", lambda value: f"+{to_code(value)}", lambda value: f"{to_code(value)} "
        ),
        to_code,
    ),
    cell_case("classes in Unicode form D", "y", lambda v: decompose(f"{v} für"), lambda v: f"{v} für"),
    cell_case(
        "text in Unicode form D",
        "note",
        lambda value: decompose(value.replace("house", "château")),
        lambda value: value.replace("house", "château"),
    ),
    cell_case("text with non-breaking blanks", "note", lambda value: value.replace(" ", "\u00a0", 2)),
    Case(
        "classes as floats of JSON lines", {"rows.jsonl": write_json_lines(y=lambda v: float(to_code(v)))}, CLASS_CODES
    ),
    Case("classes as floats of Parquet", {"rows.parquet": write_parquet(y=lambda v: float(to_code(v)))}, CLASS_CODES),
    met_case("a known category with blanks is met", "town", lambda value: f" {value}\u00a0"),
    met_case(
        "a known category in Unicode form D is met", "town", lambda v: decompose(ACCENTED[v]), ACCENTED.__getitem__
    ),
    met_case(
        "a known code with a point is met",
        "town",
        lambda value: f"{CODES[value]}.0" if CODES[value].isdigit() else CODES[value],
        CODES.__getitem__,
    ),
    met_case("a known class with a blank is met", "y", lambda value: f"{value} "),
    met_case("a known class with a point is met", "y", lambda value: f"+{to_code(value)}.0", to_code),
    met_case(
        "known text in Unicode form D is met",
        "note",
        lambda value: decompose(value.replace("house", "château")),
        lambda value: value.replace("house", "château"),
    ),
]
