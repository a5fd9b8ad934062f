"""Tables of predictions and their files."""

from __future__ import annotations

import csv
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bmcli import disk
from bmcli.answers import Answers, AnswerTable
from bmcli.answers.numbers import NumberAnswers
from bmcli.errors import BmcliError
from bmcli.specs import Column, OutputSpec
from bmcli.workflows.prediction_table import count_formulas, make_table, open_writer
from tests.evaluation.columns import answers_of


def test_several_labels_stand_in_one_cell() -> None:
    column = Column("tags", "labels", (3,), "uint8", classes=("a", "b", "c"), state={"separator": ";"})
    probabilities = np.array([[0.9, 0.2, 0.8], [0.1, 0.2, 0.3]], "float32")
    rows = make_table({}, {"tags": probabilities}, answers_of(column)).to_pylist()
    assert [row["tags"] for row in rows] == ["a;c", ""]
    assert list(rows[0]) == ["tags", "tags_probability_a", "tags_probability_b", "tags_probability_c"]
    assert rows[0]["tags_probability_c"] == pytest.approx(0.8)


def test_an_ordered_class_is_the_median() -> None:
    column = Column("grade", "ordered", (), "int32", classes=("low", "middle", "high"))
    (row,) = make_table({}, {"grade": np.array([[0.4, 0.25, 0.35]], "float32")}, answers_of(column)).to_pylist()
    assert row["grade"] == "middle"


def test_quantiles_have_columns_of_their_own() -> None:
    column = Column("price", "number", (), "float32", state={"mean": 0.0, "scale": 1.0})
    made = make_table(
        {},
        {"price": np.array([[1.0, 2.0, 9.0]], "float32")},
        answers_of(column, quantiles={"price": (0.05, 0.5, 0.95)}),
    )
    assert made.to_pylist() == [
        {"price": 2.0, "price_quantile_0.05": 1.0, "price_quantile_0.5": 2.0, "price_quantile_0.95": 9.0}
    ]


def test_columns_are_kept_first_and_as_they_are() -> None:
    column = Column("visits", "count", (), "float32")
    kept = {"id": pa.chunked_array([["007", None]]), "day": np.array([3, 4])}
    made = make_table(kept, {"visits": np.array([1.5, 2.5], "float32")}, answers_of(column))
    assert made.to_pylist() == [{"id": "007", "day": 3, "visits": 1.5}, {"id": None, "day": 4, "visits": 2.5}]


def test_arrays_cannot_be_kept() -> None:
    column = Column("y", "number", (), "float32")
    with pytest.raises(BmcliError, match="not have one value per row"):
        make_table({"x": np.zeros((1, 2))}, {"y": np.zeros(1, "float32")}, answers_of(column))


@dataclass(frozen=True)
class Found(NumberAnswers):
    """The numbers above 0 of each row, a line for each."""

    def make_columns(self, predictions: np.ndarray) -> AnswerTable:
        rows, places = np.nonzero(predictions > 0)
        found = {"place": pa.array(places), self.name: pa.array(predictions[rows, places])}
        return AnswerTable(found, rows)

    def make_truth_column(self, truth: np.ndarray) -> pa.Array:
        return pa.array([" ".join(f"{value:g}" for value in row[row > 0]) for row in truth], pa.string())


def find(name: str) -> dict[str, Answers]:
    return {name: Found(OutputSpec(name, "found", (3,)), Column(name, "number", (3,), "float32"))}


FOUND = np.array([[0, 5, 7], [-1, 0, -2], [9, -1, 8]], "float32")


def test_a_row_may_have_several_lines_or_none() -> None:
    kept = {"id": pa.chunked_array([["a", "b"], ["c"]]), "day": np.array([3, 4, 5])}
    assert make_table(kept, {"spot": FOUND}, find("spot")).to_pylist() == [
        {"id": "a", "day": 3, "place": 1, "spot": 5.0},
        {"id": "a", "day": 3, "place": 2, "spot": 7.0},
        {"id": "c", "day": 5, "place": 0, "spot": 9.0},
        {"id": "c", "day": 5, "place": 2, "spot": 8.0},
    ]


def test_an_output_of_one_line_is_repeated_beside_several_lines() -> None:
    answers = {**find("spot"), **answers_of(Column("visits", "count", (), "float32"))}
    made = make_table({}, {"spot": FOUND, "visits": np.array([1.5, 2.5, 3.5], "float32")}, answers)
    assert [(row["place"], row["spot"], row["visits"]) for row in made.to_pylist()] == [
        (1, 5.0, 1.5), (2, 7.0, 1.5), (None, None, 2.5), (0, 9.0, 3.5), (2, 8.0, 3.5)
    ]  # fmt: skip


def test_outputs_of_several_lines_stand_side_by_side() -> None:
    @dataclass(frozen=True)
    class Words(Found):
        def make_columns(self, predictions: np.ndarray) -> AnswerTable:
            table = super().make_columns(predictions)
            return AnswerTable({self.name: table.columns[self.name].cast(pa.string())}, table.rows)

    word = Words(OutputSpec("word", "words", (3,)), Column("word", "number", (3,), "float32"))
    others = np.array([[1, 0, 0], [0, 2, 0], [3, 4, 6]], "float32")
    made = make_table({}, {"spot": FOUND, "word": others}, {**find("spot"), "word": word})
    assert [(row["spot"], row["word"]) for row in made.to_pylist()] == [
        (5.0, "1"), (7.0, None), (None, "2"), (9.0, "3"), (8.0, "4"), (None, "6")
    ]  # fmt: skip


def test_a_row_without_an_answer_still_shows_its_truth() -> None:
    made = make_table({"row": np.array([1, 2, 3])}, {"spot": FOUND}, find("spot"), {"spot": np.abs(FOUND)})
    assert [(row["row"], row["spot"], row["spot_true"]) for row in made.to_pylist()] == [
        (1, 5.0, "5 7"), (1, 7.0, "5 7"), (2, None, "1 2"), (3, 9.0, "9 1 8"), (3, 8.0, "9 1 8")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "expected"), [("csv", '"place","spot"\n0,4\n'), ("jsonl", '{"place": 0, "spot": 4.0}\n')]
)
def test_a_table_without_lines_writes_none(tmp_path: Path, chosen: Any, expected: str) -> None:
    with open_writer(tmp_path / "table", chosen, 4) as write:
        for rows in (FOUND[1:2], np.array([[4, 0, 0]], "float32"), FOUND[1:2]):
            write(make_table({}, {"spot": rows}, find("spot")))
    assert (tmp_path / "table").read_text() == expected


def test_no_cell_of_a_safe_csv_file_is_a_formula(tmp_path: Path) -> None:
    texts = ["=cmd()", "+1", "-1+2", "@SUM(A1)", "  =1", "\t=1", "\uff1d1", "-2.5e3", "plain", "", None, "a=b"]
    rows = pa.table({"=name()": pa.array(texts, pa.string()), "number": pa.array(range(-1, 11))})
    with open_writer(tmp_path / "table.csv", "csv", 1, spreadsheet_safe=True) as write:
        write(rows)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        head, *read = csv.reader(file)
    assert count_formulas(rows) == 6
    assert head == ["'=name()", "number"]
    expected = ["'=cmd()", "+1", "'-1+2", "'@SUM(A1)", "'  =1", "'\t=1", "'\uff1d1", "-2.5e3", "plain", "", "", "a=b"]
    assert [text for text, _ in read] == expected
    assert read[0][1] == "-1"


def test_csv_holds_texts_as_they_are(tmp_path: Path) -> None:
    texts = ["=cmd()", "+", "@user2", "-17B1", "\t=1"]
    with open_writer(tmp_path / "table.csv", "csv", 1) as write:
        write(pa.table({"=name()": texts}))
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        assert [text for (text,) in csv.reader(file)] == ["=name()", *texts]


def test_a_kept_column_of_the_name_of_a_prediction_is_a_fault() -> None:
    with pytest.raises(BmcliError, match="column 'spot' cannot be kept: the predictions have a column of this name"):
        make_table({"spot": np.array([1, 2, 3])}, {"spot": FOUND}, find("spot"))


def test_other_formats_hold_texts_as_they_are(tmp_path: Path) -> None:
    with open_writer(tmp_path / "table.jsonl", "jsonl", 1) as write:
        write(pa.table({"=name()": ["=cmd()"]}))
    assert json.loads((tmp_path / "table.jsonl").read_text()) == {"=name()": "=cmd()"}


@pytest.mark.parametrize("chosen", ["csv", "parquet", "jsonl"])
def test_a_full_disk_tells_about_the_bytes_of_all_rows(tmp_path: Path, small_files: Any, chosen: Any) -> None:
    def write_to(file: Path) -> None:
        with open_writer(file, chosen, 10_000) as write:
            for _ in range(10):
                write(pa.table({"price": np.random.default_rng(0).normal(size=1000)}))

    whole = tmp_path / "whole"
    write_to(whole)
    small_files(2000)
    with pytest.raises(disk.WriteFailure) as caught:
        write_to(tmp_path / "cut")
    small_files(resource.RLIM_INFINITY)
    assert caught.value.is_estimate
    assert caught.value.needed == pytest.approx(whole.stat().st_size, rel=0.2)
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]
