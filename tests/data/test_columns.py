from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bmcli.data import columns
from bmcli.data.tables import PartlyReadableColumns
from bmcli.errors import BmcliError
from bmcli.raw_columns import ColumnCells, RawColumn, UnreadableColumn
from bmcli.recipe.data import DataOptions


def text(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


def detected(column: RawColumn) -> str:
    return columns.detect_kind(ColumnCells("x", column)).kind


SENTENCES = [f"this tea number {n} is good" for n in range(60)]
TITLES = [f"Landscape {n}" for n in range(60)]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.chunked_array([["1", " 2.5", None]]), "number"),
        (pa.chunked_array([["1", "two"]]), "category"),
        (text(None, ""), "number"),
        (text("1", "0", "1"), "number"),
        (text("yes", "No", None, " no "), "boolean"),
        (text("t", "f"), "boolean"),
        (text("f", "m"), "category"),
        (text("f", "n", "t"), "category"),
        (text("yes", "yes"), "category"),
        (text("yes", "no", "maybe"), "category"),
        (text("yes", "no", "unknown", "-"), "boolean"),
        (text("0", "1", "NULL"), "number"),
        (text("1,5", "2,5"), "number"),
        (text("$1,234.50", "$7.00"), "number"),
        (text("01234", "98765"), "category"),
        (text("NULL", "unknown"), "category"),
        (text("2024-01-31", None, "2024-02-01 10:00"), "date"),
        (text("01/02/2024", "03/04/2024"), "date"),
        (text("2024-01-31", "unknown"), "date"),
        (text("2024-01-31", "soon"), "category"),
        (text(*SENTENCES, None), "text"),
        (text(*SENTENCES[:40] * 3), "category"),
        (text(*TITLES), "text"),
        (text(*TITLES * 3), "category"),
        (np.zeros(3, "bool"), "boolean"),
        (np.zeros((3, 4, 5), "bool"), "number"),
        (np.zeros(3), "number"),
        (np.zeros(3, "uint8"), "number"),
        (np.zeros((3, 4), "uint8"), "number"),
        (np.zeros((3, 4, 5), "uint8"), "image"),
        (np.zeros((3, 4, 5, 2), "uint8"), "image"),
        (np.zeros((3, 4, 5)), "number"),
        (np.zeros((3, 4, 5, 1)), "image"),
        (np.zeros((3, 4, 5, 3), "float32"), "image"),
        (np.zeros((3, 4, 5, 6)), "number"),
    ],
)
def test_a_column_is_what_it_looks_like(column: RawColumn, kind: str) -> None:
    assert detected(column) == kind


def inputs(**training: RawColumn) -> dict[str, str]:
    options = DataOptions.model_validate(
        {"source": {"kind": "builtin", "name": "iris"}, "targets": {"y": {"kind": "number"}}}
    )
    return {name: kind.kind for name, kind in columns.resolve_inputs(training, options, {}).items()}


def test_row_labels_and_columns_that_cannot_be_read_are_no_inputs() -> None:
    unreadable = UnreadableColumn("column 'tags': lists of text cannot be read.")
    names = text(*(f"car {n}" for n in range(20)))
    table = PartlyReadableColumns(
        {
            "Unnamed: 0": text(*map(str, range(20))),
            "Unnamed: 0.1": names,
            "__index_level_0__": np.arange(20),
            "Unnamed: 4": text(*(f"2021-01-{n:02}" for n in range(1, 21))),
            "Unnamed: 5": text(*(f"{n}.5" for n in range(20))),
            "Unnamed: 6": pa.chunked_array([pa.nulls(20, pa.string())]),
            "x": text(*map(str, range(20))),
        },
        {"tags": unreadable},
    )
    options = DataOptions.model_validate(
        {"source": {"kind": "builtin", "name": "iris"}, "targets": {"y": {"kind": "number"}}}
    )
    found = columns.resolve_inputs(table, options, {})
    assert list(found) == ["Unnamed: 4", "Unnamed: 5", "x"]
    told = list(columns.describe_left_out(table, options, {}, found))
    assert [each.split(" is no input: ")[0] for each in told] == [
        "column 'Unnamed: 0'", "column 'Unnamed: 0.1'", "column '__index_level_0__'", "column 'Unnamed: 6'",
        "column 'tags'",
    ]  # fmt: skip
    assert told[-1].endswith("lists of text cannot be read.")
    dropped = options.model_copy(update={"drop": ("tags",)})
    assert "column 'tags'" not in " ".join(columns.describe_left_out(table, dropped, {}, found))


def test_an_identifier_is_a_fault_with_a_suggestion() -> None:
    codes = text(*(f"A{n:03}" for n in range(100)))
    with pytest.raises(
        BmcliError, match="column 'code': nearly every training row has a different value, such as 'A000'"
    ) as caught:
        inputs(code=codes)
    assert "`drop: [code]`" in caught.value.faults[0].suggestion


def test_categories_that_repeat_or_are_few_are_inputs() -> None:
    twice = text(*(f"A{n:03}" for n in range(100)), *(f"A{n:03}" for n in range(100)))
    assert inputs(twice=twice, few=text(*"abcdefghijkl")) == {"twice": "category", "few": "category"}


def test_numbers_with_a_few_mistakes_are_numbers_and_not_categories() -> None:
    cells = [str(n / 7) for n in range(80)]
    assert detected(text(*cells, "abc", None)) == "number"
    assert detected(text(*cells, *(f"k{n}" for n in range(20)))) != "number"
    assert detected(text(*["1", "2", "3"] * 40, "3+")) == "category"


def test_dates_of_several_formats_are_dates() -> None:
    cells = [f"{day:02}/01/2024" if day % 2 else f"Jan {day} 2024" for day in range(1, 31)]
    assert detected(text(*cells)) == "date"
    assert detected(text(*cells, "soon")) == "date"  # one foreign cell changes nothing
    assert detected(text(*cells, *["soon"] * 5)) != "date"


def test_prose_without_blanks_is_text_and_codes_are_not() -> None:
    words = ["今天", "天气", "很好", "我们", "喜欢", "电影", "这部", "非常", "无聊"]
    prose = text(*("".join(words[(n * 7 + k * (n % 5 + 1)) % 9] for k in range(n % 4 + 5)) for n in range(80)))
    assert inputs(message=prose) == {"message": "text"}
    with pytest.raises(BmcliError, match="nearly every training row has a different value"):
        inputs(plate=text(*(f"京A{n:05}" for n in range(80))))
