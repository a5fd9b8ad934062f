"""`bmcli init`: a recipe that trains as it is, from nothing but data."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmcli.commands.plan import list_warnings
from bmcli.data.raw_rows import read_raw_splits
from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import parse_tree, read_text
from bmcli.specs import SPLITS
from bmcli.training import prepare_data

from .conftest import Bmcli

WORDS = ("lovely red apple pie", "old grey stone wall by the road", "a quick brown fox jumps", "rain falls on the roof")


def table(rows: int = 60, split: bool = False) -> str:
    """Make a table with a column of every sort; `grade` follows from `size` and `colour`."""
    header = "rownames,size,colour,member,constant,grade" + (",split" if split else "")
    lines = [header]
    for row in range(rows):
        size, colour = (row * 7) % 10 / 2, ("red", "green", "blue")[row % 3]
        grade = "high" if size > 2 or colour == "red" else "low"
        split_cell = f",{'test' if row % 5 == 4 else 'train'}" if split else ""
        lines.append(f"{row + 1},{size},{colour},{('yes', 'no')[row % 2]},same,{grade}{split_cell}")
    return "\n".join(lines) + "\n"


Drafted = dict[str, dict[str, str | None]]


@pytest.fixture
def init(bmcli: Bmcli, tmp_path: Path) -> Callable[..., Drafted]:
    """Write data, make a recipe of it, and return the roles of the columns."""

    def call(text: str, *arguments: str, name: str = "table.csv") -> Drafted:
        (tmp_path / name).write_text(text)
        done = bmcli("init", name, *arguments, "--json")
        assert done.code == 0, done.err
        return {column["name"]: column for column in done.json()["columns"]}

    return call


def test_the_encoding_of_a_table_can_be_named(bmcli: Bmcli, tmp_path: Path) -> None:
    text = "town,size,y\n" + "".join(
        f"{('東京', '大阪')[row % 2]},{row % 7},{'ab'[row % 5 > 2]}\n" for row in range(60)
    )
    (tmp_path / "towns.csv").write_bytes(text.encode("shift_jis"))
    refused = bmcli("init", "towns.csv")
    assert refused.code == 2
    assert "--encoding" in refused.err
    done = bmcli("init", "towns.csv", "--target", "y", "--encoding", "shift_jis")
    assert done.code == 0, done.err
    assert load_recipe("recipe.yaml").recipe.data.source.model_dump()["encoding"] == "shift_jis"
    prepared = prepare_data(load_recipe("recipe.yaml").recipe, tmp_path / "cache")
    assert {column.name: column.classes for column in prepared.spec.inputs}["town"] == ("大阪", "東京")


def test_an_encoding_that_cannot_be_used_is_a_fault(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table())
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": 2}\n' * 9)
    assert "no text encoding 'klingon'" in bmcli("init", "t.csv", "--encoding", "klingon").err
    assert "--encoding has no effect" in bmcli("init", "t.jsonl", "--encoding", "gbk").err


def test_several_spellings_of_yes_and_no_are_one_boolean_with_a_note(bmcli: Bmcli, tmp_path: Path) -> None:
    words = ("yes", "y", "no", "n", "Y", "No")
    text = "size,member,paid\n" + "".join(f"{row % 7},{words[row % 6]},{words[row * 7 % 4]}\n" for row in range(120))
    (tmp_path / "t.csv").write_text(text)
    done = bmcli("init", "t.csv", "--target", "paid", "--json")
    assert done.code == 0, done.err
    (member,) = (column for column in done.json()["columns"] if column["name"] == "member")
    assert (member["kind"], member["why"]) == (
        "boolean", "yes or no, in several spellings: 'y' (40), 'no' (40), 'yes' (20) and 'n' (20)"
    )  # fmt: skip
    notes = done.json()["notes"]
    assert "member: if its words are more than yes and no, write {kind: category}." in notes
    assert any("spellings of yes and no, so write each of the two in one way" in note for note in notes)


def test_columns_are_what_they_look_like(init: Callable[..., Drafted]) -> None:
    columns = init(table(split=True), "--target", "grade")
    roles = {name: (column["role"], column["kind"]) for name, column in columns.items()}
    assert roles["grade"] == ("target", "category")
    assert roles["split"] == ("split", None)
    assert roles["rownames"] == roles["constant"] == ("dropped", None)
    assert roles["size"] == ("input", "number")
    assert roles["colour"] == ("input", "category")
    assert columns["rownames"]["why"] == "a row number"
    assert columns["constant"]["why"] == "every cell has the same value"


def test_what_is_guessed_of_cells_is_written_with_the_reason(init: Callable[..., Drafted], tmp_path: Path) -> None:
    lines = ["a,zip,m,price"]
    for row in range(100):
        a = "see note" if row % 50 == 7 else row * 1.5
        lines.append(
            f'{a},0{1000 + row % 20},{"unknown" if row % 9 == 4 else "YN"[row % 2]},"${1 + row % 9},{row:03}.50"'
        )
    columns = init("\n".join(lines), "--target", "price")
    assert {name: column["kind"] for name, column in columns.items()} == {
        "a": "number", "zip": "category", "m": "boolean", "price": "number",
    }  # fmt: skip
    assert columns["m"]["why"] == "yes or no; missing: 'unknown' (11)"
    text = (tmp_path / "recipe.yaml").read_text()
    assert "# a: numbers; missing: 'see note' (2)" in text
    data = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.model_dump()
    assert data["inputs"]["a"]["missing_cells"] == ("see note",)
    assert (data["targets"]["price"]["thousands"], data["targets"]["price"]["unit"]) == (",", "$")


def test_a_doubtful_notation_is_a_note(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = "".join(f"{row + 1}.{37 * row % 1000:03},{row % 5},{row % 2}\n" for row in range(100))
    (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
    notes = bmcli("init", "t.csv", "--json").json()["notes"]
    assert 'a: 1.000 is read as 1; if it means 1000, write `decimal: ",", thousands: "."`.' in notes


def test_a_word_of_a_target_is_a_class_and_no_missing_row(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = "".join(f"{row / 3},{'unknown' if row % 10 == 3 else row % 2}\n" for row in range(100))
    (tmp_path / "t.csv").write_text("a,y\n" + rows)
    result = bmcli("init", "t.csv", "--json").json()
    assert result["columns"][1]["why"].endswith("its 2 numbers are treated as classes, and so is 'unknown' (10)")
    assert not [note for note in result["notes"] if "have no y" in note]


def test_the_recipe_trains_and_is_measured(init: Callable[..., Drafted], bmcli: Bmcli) -> None:
    init(table(split=True), "--target", "grade")
    done = bmcli("train", "recipe.yaml", "train.epochs=1", "--json")
    assert done.code == 0, done.err
    assert "test/accuracy" in done.json()["metrics"]


def test_the_recipe_is_short_and_gives_reasons(init: Callable[..., Drafted], tmp_path: Path) -> None:
    init(table(split=True), "--target", "grade")
    text = (tmp_path / "recipe.yaml").read_text()
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= 120
    assert "# dropped rownames: a row number" in text
    assert "by --target; 2 classes" in text
    assert "inputs:" not in text  # they are found as they are


def test_what_the_data_tells_of_splits_is_used(init: Callable[..., Drafted], tmp_path: Path) -> None:
    init(table(split=True), "--target", "grade")
    split = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.split
    assert (split.column, split.train, split.validation) == ("split", None, 0.2)


def test_without_splits_shares_are_drawn(init: Callable[..., Drafted], tmp_path: Path) -> None:
    init(table(), "--target", "grade")
    split = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.split
    assert (split.train, split.validation, split.test) == (0.6, 0.2, 0.2)


def test_rows_of_different_days_are_split_by_time(init: Callable[..., Drafted], bmcli: Bmcli, tmp_path: Path) -> None:
    days = "".join(f"2024-{1 + d // 28:02}-{1 + d % 28:02},{d % 7},{d % 7 * 2.5 + 1}\n" for d in range(150))
    init("day,weekday,sales\n" + days, "--target", "sales")
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.split.time == "day"
    assert bmcli("train", "recipe.yaml", "train.epochs=1").code == 0


@pytest.mark.parametrize(
    ("header", "row", "target", "kind"),
    [
        ("a,b,label", lambda i: f"{i / 3},{i % 7},{'xyz'[i % 3]}", "label", "category"),
        ("class,a,b", lambda i: f"{i % 2},{i / 3},{i % 7}", "class", "category"),
        ("a,b,price", lambda i: f"{i / 3},{i % 7},{i * 1.5}", "price", "number"),
        ("a,b,visits", lambda i: f"{i / 3},{i % 7},{(i * i) % 83}", "visits", "count"),
        ("a,b,kind", lambda i: f"{i / 3},{i % 7},{'xy'[i % 2]}", "kind", "category"),
        ("x,y,z,kind", lambda i: f"{i / 3},{i / 7},{i / 9},{'xy'[i % 2]}", "kind", "category"),
    ],
)
def test_the_target_that_is_clearly_meant_is_taken(
    init: Callable[..., Drafted], header: str, row: Callable[[int], str], target: str, kind: str
) -> None:
    columns = init("\n".join([header, *map(row, range(100))]) + "\n")
    assert (columns[target]["role"], columns[target]["kind"]) == ("target", kind)


def test_an_unclear_target_is_asked_for_with_candidates(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = (f"{'abc'[i % 3]},{i / 7},{'xy'[i % 2]},{i / 9}" for i in range(60))
    (tmp_path / "birds.csv").write_text("species,mass,sex,wing\n" + "\n".join(lines))
    done = bmcli("init", "birds.csv")
    assert done.code == 2
    assert "Candidates: species (3 values), wing (number), mass (number), sex (2 values)" in done.err
    assert "--target species" in done.err
    assert not (tmp_path / "recipe.yaml").exists()


def test_texts_that_do_not_repeat_lead_to_the_objectives_without_a_target(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("text\n" + "\n".join(f"the cat of house {i} sat on its mat" for i in range(60)))
    done = bmcli("init", "notes.csv")
    assert done.code == 2
    assert "texts that do not repeat" in done.err
    assert "such as `causal_language_model`" in done.err
    listed = bmcli("ls", "objectives")
    assert listed.code == 0
    assert re.search("causal_language_model.*which needs no target", listed.out)
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("header", "row", "suggested"),
    [
        ("price,rooms,Latitude,Longitude", lambda i: f"{i / 3},{'xyz'[i % 3]},{i / 7},{i / 9}", "price"),
        ("Latitude,rooms,sea,churned", lambda i: f"{i / 3},{i % 7},{'xy'[i % 2]},{'nj'[i % 2]}", "churned"),
        ("Survived,Sex,Age", lambda i: f"{i % 2},{'mf'[i % 2]},{i / 3}", "Survived"),
        ("height,colour,Latitude", lambda i: f"{i / 3},{'xyz'[i % 3]},{i / 7}", "colour"),
    ],
)  # fmt: skip
def test_the_suggested_target_looks_like_one(
    bmcli: Bmcli, tmp_path: Path, header: str, row: Callable[[int], str], suggested: str
) -> None:
    (tmp_path / "rows.csv").write_text("\n".join([header, *map(row, range(80))]) + "\n")
    done = bmcli("init", "rows.csv")
    assert done.code == 2
    assert f"for example --target {suggested}." in done.err


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("churn/train.csv", "churn"),
        ("churn/data/train.csv", "churn"),
        ("churn/raw/training data.csv.gz", "churn"),
        ("churn/data.csv", "churn"),
        ("churn/all rows.csv", "churn"),
        ("churn/houses.csv", "houses"),
    ],
)
def test_a_general_file_name_gives_way_to_its_folder(bmcli: Bmcli, tmp_path: Path, file: str, name: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(table().encode()) if file.endswith(".gz") else table().encode())
    assert bmcli("init", path, "--target", "grade").code == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.name == name


def test_a_general_folder_name_gives_way_to_the_folder_above(bmcli: Bmcli, tmp_path: Path) -> None:
    folder = tmp_path / "flowers" / "data"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(table())
    (folder / "test.csv").write_text(table())
    assert bmcli("init", folder, "--target", "grade").code == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.name == "flowers"


def write_json(rows: Sequence[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_target(tmp_path: Path) -> tuple[str, dict[str, object], str]:
    """Return kind and options of the target of the recipe, and the text of the recipe."""
    (target,) = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.targets_by_name().values()
    values = target.model_dump(exclude_defaults=True)
    return str(target.kind), {name: value for name, value in values.items() if name != "kind"}, (
        (tmp_path / "recipe.yaml").read_text()
    )  # fmt: skip


TAIL = (*(0,) * 90, *(1,) * 60, *(2,) * 30, *(3,) * 16, *(4,) * 9, *(5,) * 5, 7, 9)
GLASS = (1,) * 70 + (2,) * 76 + (3,) * 17 + (5,) * 13 + (6,) * 9 + (7,) * 29


@pytest.mark.parametrize(
    ("name", "codes", "kind", "doubt"),
    [
        ("Type", GLASS, "category", "if they are quantities and not codes"),
        ("y", GLASS, "category", "if they are quantities and not codes"),
        ("visits", GLASS, "count", "are codes of classes, write {kind: category}"),
        ("n_items", (0, 1, 2, 3) * 50, "number", "are codes of classes, write {kind: category}"),
        ("y", TAIL, "count", "write {kind: category}"),
        ("state", (10, 20, 30) * 60, "category", "if they are quantities and not codes"),
        ("dose", (5, 10, 20) * 60, "number", "write {kind: category}"),
    ],
)  # fmt: skip
def test_codes_are_told_from_counts_and_the_doubt_is_stated(
    bmcli: Bmcli, tmp_path: Path, name: str, codes: Sequence[int], kind: str, doubt: str
) -> None:
    lines = [f"{i % 13 / 3},{i % 7},{code}" for i, code in enumerate(codes)]
    (tmp_path / "glass.csv").write_text("\n".join([f"a,b,{name}", *lines]) + "\n")
    done = bmcli("init", "glass.csv", "--target", name, "--json")
    assert done.code == 0, done.err
    found, _, text = read_target(tmp_path)
    assert found == kind
    assert any(doubt in note for note in done.json()["notes"])
    assert doubt.split()[-1] in text


def test_classes_of_one_row_go_to_training_and_are_counted(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{i / 3},{i % 7},{'ab'[i % 2] if i > 4 else f'single{i}'}" for i in range(100)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,z,y", *lines]) + "\n")
    done = bmcli("init", "rows.csv", "--target", "y", "--json")
    assert "5 of 7 classes have one row: these rows go to training" in " ".join(done.json()["notes"])
    trained = bmcli("train", "recipe.yaml", "train.epochs=1", "--json")
    assert trained.code == 0, trained.err
    assert "rows moved to training, since no training row had their class" in trained.err


@pytest.mark.parametrize("values", [(0.5, 1.5), (1.0, 2.0), (True, False), ("yes", "no")], ids=str)
def test_two_values_of_json_are_classes(bmcli: Bmcli, tmp_path: Path, values: tuple[object, object]) -> None:
    rows = [{"x": i / 3, "z": i % 7, "y": values[i % 2]} for i in range(80)]
    (tmp_path / "rows.jsonl").write_text(write_json(rows))
    done = bmcli("init", "rows.jsonl", "--target", "y", "--json")
    assert done.code == 0, done.err
    assert read_target(tmp_path)[0] == "category"
    trained = bmcli("train", "recipe.yaml", "train.epochs=1", "train.stop=null", "--json")
    assert trained.code == 0, trained.err
    assert "test/accuracy" in trained.json()["metrics"]


TAGS = (["red", "old"], ["old"], ["new", "red"], [], ["new"], ["red"])


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (lambda tags: str(tags), {}),
        (json.dumps, {}),
        (";".join, {}),
        ("|".join, {"separator": "|"}),
        (" | ".join, {"separator": "|"}),
    ],
    ids=["Python", "JSON", "semicolons", "bars", "bars and blanks"],
)
def test_labels_in_a_cell_are_labels(
    bmcli: Bmcli, tmp_path: Path, write: Callable[[list[str]], str], options: dict[str, object]
) -> None:
    lines = [f'{i / 3},{i % 7},"{write(TAGS[i % 6]).replace(chr(34), chr(34) * 2)}"' for i in range(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,z,tags", *lines]) + "\n")
    done = bmcli("init", "rows.csv", "--target", "tags")
    assert done.code == 0, done.err
    assert read_target(tmp_path)[:2] == ("labels", options)
    prepared = prepare_data(load_recipe(str(tmp_path / "recipe.yaml")).recipe, tmp_path / "cache")
    assert prepared.spec.target("tags").classes == ("new", "old", "red")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_lists_of_texts_are_labels(bmcli: Bmcli, tmp_path: Path, ending: str) -> None:
    rows = [{"x": i / 3, "z": i % 7, "tags": TAGS[i % 6]} for i in range(90)]
    if ending == "jsonl":
        (tmp_path / "rows.jsonl").write_text(write_json(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    done = bmcli("init", f"rows.{ending}", "--target", "tags")
    assert done.code == 0, done.err
    trained = bmcli("train", "recipe.yaml", "train.epochs=1", "train.stop=null", "--json")
    assert trained.code == 0, trained.err
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert prepare_data(recipe, tmp_path / "cache").spec.target("tags").classes == ("new", "old", "red")


def test_rows_without_an_answer_are_left_out_and_counted(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{i / 3},{i % 7},{'' if i % 10 == 3 else 'ab'[i % 2]}" for i in range(100)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,z,y", *lines]) + "\n")
    done = bmcli("init", "rows.csv", "--target", "y", "--json")
    assert "missing labels: 10 of 100 rows have no y" in " ".join(done.json()["notes"])
    text = (tmp_path / "recipe.yaml").read_text()
    assert "invalid: skip" in text
    assert "10 rows without y are left out" in text
    trained = bmcli("train", "recipe.yaml", "train.epochs=1", "--json")
    assert trained.code == 0, trained.err
    assert "rows left out for them: 10" in trained.err


def test_missing_labels_of_several_are_no_labels(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{i / 3},{i % 7},{';'.join(TAGS[i % 6])}" for i in range(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,z,tags", *lines]) + "\n")
    assert bmcli("init", "rows.csv", "--target", "tags").code == 0
    assert "invalid" not in (tmp_path / "recipe.yaml").read_text()


def test_one_frequent_class_is_an_imbalance(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{i / 3},{i % 7},{'rare' if i % 20 == 0 else 'usual'}" for i in range(400)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,z,y", *lines]) + "\n")
    done = bmcli("init", "rows.csv", "--target", "y", "--json")
    assert "class imbalance: 95% of the rows have the same class" in " ".join(done.json()["notes"])


def test_copies_and_codes_of_the_target_are_dropped(init: Callable[..., Drafted]) -> None:
    rows = [f"{i % 13 / 3},{'xyz'[i % 3]},{i % 3 + 1},{i % 13 / 2}" for i in range(120)]
    columns = init("\n".join(["a,kind,kind_code,b", *rows]) + "\n", "--target", "kind")
    assert [columns[name]["role"] for name in ("a", "kind_code", "b")] == ["input", "dropped", "input"]
    (Path("recipe.yaml")).unlink()
    rows = [f"{i % 7},{i * i % 89},{i * i % 89}.0" for i in range(120)]
    columns = init("\n".join(["a,price,price_again", *rows]) + "\n", "--target", "price", name="prices.csv")
    assert (columns["price_again"]["role"], columns["price_again"]["why"]) == ("dropped", "a copy of price")


def test_prose_without_blanks_is_an_input(init: Callable[..., Drafted], tmp_path: Path) -> None:
    words = {"good": ["精彩", "很好", "喜欢", "推荐"], "bad": ["无聊", "失望", "糟糕", "差劲"]}
    rows = [
        f"{i % 5},这部电影{words[y][i % 4]}大家{words[y][i // 4 % 4]}{'音乐故事演员'[i % 5 : i % 5 + 2]}{i % 17},{y}"
        for i in range(120)
        for y in ["good" if i % 3 else "bad"]
    ]
    columns = init("\n".join(["stars,text,y", *rows]) + "\n", "--target", "y")
    assert (columns["text"]["role"], columns["text"]["kind"]) == ("input", "text")
    assert "tokens: characters" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table.csv", "--target", "grde"], "Did you mean 'grade'?"),
        (["table.csv", "--target", "constant"], "every row has the same value"),
        (["tabel.csv"], "Did you mean 'table.csv'?"),
        (["notes.md"], "no source reads files ending in '.md'"),
        (["empty"], "contains neither tables nor pictures"),
        (["mixed"], "expected one table, one table per split, or files of one ending; found"),
    ],
)
def test_faults_say_what_came_and_what_to_do(
    bmcli: Bmcli, tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    (tmp_path / "table.csv").write_text(table())
    (tmp_path / "notes.md").write_text("some words")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "people.csv").write_text(table())
    (tmp_path / "mixed" / "houses.jsonl").write_text("{}\n")
    done = bmcli("init", *arguments, "--json")
    assert done.code == 2
    (fault,) = done.json()["faults"]
    assert message in fault["message"] + fault["suggestion"]


def test_a_target_that_is_free_text_is_refused(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("src,tgt\n" + "".join(f"word {i} of,Wort {i} von\n" for i in range(80)))
    done = bmcli("init", "pairs.csv", "--target", "tgt")
    assert done.code == 2
    assert "no kind of target generates text" in done.err


def test_a_file_that_is_there_stays(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table())
    (tmp_path / "recipe.yaml").write_text("mine")
    done = bmcli("init", "table.csv", "--target", "grade")
    assert done.code == 2
    assert "exists already" in done.err
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert bmcli("init", "table.csv", "--target", "grade", "--output", "other.yaml").code == 0


def test_what_tells_the_target_is_dropped(init: Callable[..., Drafted]) -> None:
    lines = (f"{i / 7},{('spam-1', 'ham-1', 'ham-2')[i % 3]},{('spam', 'ham', 'ham')[i % 3]}" for i in range(90))
    columns = init("length,folder,label\n" + "\n".join(lines))
    assert columns["folder"]["role"] == "dropped"
    assert "occurs with one class of label only" in str(columns["folder"]["why"])


def test_sentences_are_text(init: Callable[..., Drafted], bmcli: Bmcli) -> None:
    columns = init("text,label\n" + "".join(f"{WORDS[i % 4]} {i},{'ab'[i % 2]}\n" for i in range(100)))
    assert columns["text"]["kind"] == "text"
    assert bmcli("train", "recipe.yaml", "train.epochs=1").code == 0


def test_files_by_split_keep_them(bmcli: Bmcli, tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "train.csv").write_text(table(60))
    with gzip.open(folder / "test.csv.gz", "wt") as packed:
        packed.write(table(30))
    assert bmcli("init", "birds", "--target", "grade").code == 0
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert list(recipe.data.source.path) == ["train", "test"]  # type: ignore[attr-defined]
    assert recipe.data.split.validation == 0.2
    assert bmcli("train", "recipe.yaml", "train.epochs=1").code == 0


def test_the_data_is_named_as_seen_from_the_recipe(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "price of $ugar.csv").write_text(table())
    assert bmcli("init", "data/price of $ugar.csv", "--target", "grade", "--output", "data/own.yaml").code == 0
    text = read_text(tmp_path / "data" / "own.yaml", "own.yaml", ("data",))
    written = parse_tree(text, "own.yaml", tmp_path).plain()
    assert written["data"]["source"]["path"] == "price of $$ugar.csv"
    assert bmcli("validate", "data/own.yaml", "--deep").code == 0


@pytest.mark.parametrize(
    ("arrays", "model"),
    [
        ({"x": np.zeros((40, 8, 8), "uint8"), "y": np.arange(40) % 2}, "cnn"),
        ({"x": np.random.default_rng(0).normal(size=(40, 12, 3)), "y": np.arange(40) % 2}, "cnn"),
        ({"x": np.random.default_rng(0).normal(size=(40, 5)), "y": np.arange(40) * 0.5}, "mlp"),
    ],
)
def test_arrays_get_the_family_of_their_shape(
    bmcli: Bmcli, tmp_path: Path, arrays: dict[str, np.ndarray], model: str
) -> None:
    arrays["x"][::2] += 1  # nothing is constant
    np.savez(tmp_path / "some.npz", **arrays)
    assert bmcli("init", "some.npz").code == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.model.kind == model
    done = bmcli("train", "recipe.yaml", "train.epochs=1")
    assert done.code == 0, done.err


@pytest.mark.parametrize(("steps", "blocks"), [(1, 1), (2, 1), (5, 1), (9, 2), (30, 3), (1500, 3)])
def test_a_series_of_any_length_gets_blocks_that_leave_steps(
    bmcli: Bmcli, tmp_path: Path, steps: int, blocks: int
) -> None:
    np.savez(tmp_path / "some.npz", x=np.random.default_rng(0).normal(size=(40, steps, 2)), y=np.arange(40) % 2)
    assert bmcli("init", "some.npz").code == 0
    options: Any = load_recipe(str(tmp_path / "recipe.yaml")).recipe.model
    assert (options.kind, len(options.filters), options.normalization) == ("cnn", blocks, "batch")
    assert bmcli("validate", "recipe.yaml", "--deep").code == 0


def test_a_table_that_names_pictures_reads_them(bmcli: Bmcli, tmp_path: Path) -> None:
    from keras.utils import array_to_img

    (tmp_path / "shapes" / "pictures").mkdir(parents=True)
    lines = ["file,label"]
    for number in range(40):
        pixels = np.full((8, 8, 3), 40 * (number % 2) + number, "uint8")
        array_to_img(pixels, scale=False).save(tmp_path / "shapes" / "pictures" / f"{number}.png")
        lines.append(f"pictures/{number}.png,{'ab'[number % 2]}")
    (tmp_path / "shapes" / "shapes.csv").write_text("\n".join(lines))
    assert bmcli("init", "shapes").code == 0
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert (recipe.data.source.kind, recipe.model.kind) == ("image_folder", "cnn")
    assert bmcli("train", "recipe.yaml", "train.epochs=1").code == 0


def test_names_from_elsewhere_stay_text(init: Callable[..., Drafted], tmp_path: Path) -> None:
    names = ["a b", "100%", "x: y", "# no", "${z}", "[q]", "null", "1e3", 'say "hi", you']
    header = ",".join('"' + name.replace('"', '""') + '"' for name in [*names, "label"])
    lines = [",".join([*(f"{(i * k) % 11 / 3}" for k in range(1, 10)), "uv"[i % 2]]) for i in range(60)]
    init("\n".join([header, *lines]))
    text = (tmp_path / "recipe.yaml").read_text()
    assert len(text.splitlines()) < 40
    load_recipe(str(tmp_path / "recipe.yaml"))


def test_many_columns_stay_below_forty_lines(init: Callable[..., Drafted], bmcli: Bmcli, tmp_path: Path) -> None:
    names = [f"quantity_{number}" for number in range(80)]
    months = [f"{1990 + i // 12}-{1 + i % 12:02}" for i in range(60)]
    lines = [",".join([months[i], *(str(i * k % 13) for k in range(80)), "uv"[i % 2]]) for i in range(60)]
    init("\n".join([",".join(["month", *names, "label"]), *lines]))
    text = (tmp_path / "recipe.yaml").read_text()
    assert 'month: {kind: date, format: "%Y-%m"}' in text
    assert len(text.splitlines()) < 40
    assert bmcli("validate", "recipe.yaml", "--deep").code == 0


def patients(rows: int = 200) -> str:
    """Make a table of ten rows a patient."""
    lines = [f"{1000 + row // 10},{row * 7 % 23},{'yes' if row // 10 % 3 == 0 else 'no'}" for row in range(rows)]
    return "\n".join(["patient_id,dose,ill", *lines]) + "\n"


def test_rows_that_belong_together_are_in_one_split(init: Callable[..., Drafted], tmp_path: Path) -> None:
    columns = init(patients(), "--target", "ill")
    assert columns["patient_id"]["role"] == "group"
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert recipe.data.split.group == "patient_id"
    text = (tmp_path / "recipe.yaml").read_text()
    assert "patient_id identifies rows that belong together: 20 values, 10 rows of each" in text
    raw = read_raw_splits(recipe.data, recipe.data.targets_by_name(), recipe.seed, ("patient_id",))
    found = [set(np.asarray(raw.columns["patient_id"])[raw.indices[split]]) for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == 20
    assert [column.name for column in prepare_data(recipe, tmp_path / "cache").spec.inputs] == ["dose"]


def test_a_group_is_no_input_where_the_data_defines_the_splits(init: Callable[..., Drafted], tmp_path: Path) -> None:
    lines = patients().splitlines()
    splits = ["split", *("test" if row >= 160 else "train" for row in range(200))]
    init("\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True)), "--target", "ill")
    data = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data
    assert data.split.group is None
    assert "patient_id" in data.drop


def test_plan_warns_of_a_group_that_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(patients())
    lines = ["name: own", "data:", "  source: {kind: csv, path: table.csv}", "  targets: {ill: category}", "model: mlp"]
    (tmp_path / "own.yaml").write_text("\n".join(lines))
    prepared = prepare_data(load_recipe(str(tmp_path / "own.yaml")).recipe, tmp_path / "cache")
    assert [column.name for column in prepared.spec.inputs] == ["patient_id", "dose"]
    (warning,) = [each for each in list_warnings(prepared, parameters=10) if "patient_id" in each]
    assert "identifies rows that belong together, but is an input" in warning
    assert warning.endswith("Write `split: {group: patient_id}`, which also takes it out of the inputs.")


def test_one_unknown_day_leaves_dates(init: Callable[..., Drafted], bmcli: Bmcli, tmp_path: Path) -> None:
    days = ["unknown" if row == 7 else f"2021-{row % 12 + 1:02}-{row % 28 + 1:02}" for row in range(200)]
    columns = init("\n".join(["day,y", *(f"{day},{row}" for row, day in enumerate(days))]), "--target", "y")
    assert columns["day"]["kind"] == "date"
    data = prepare_data(load_recipe(str(tmp_path / "recipe.yaml")).recipe, tmp_path / "cache")
    assert data.spec.inputs[0].state["formats"] == ["iso"]
    encoded = np.concatenate([np.asarray(data.split(split).inputs["day"])[:, :5] for split in SPLITS])
    assert (encoded == 0).all(axis=1).sum() == 1  # the middle of all parts
    done = bmcli("train", "recipe.yaml", "train.epochs=1")
    assert done.code == 0, done.err


def test_days_of_eight_digits_are_dates(init: Callable[..., Drafted], tmp_path: Path) -> None:
    lines = ["day,y", *(f"2021{row % 12 + 1:02}{row % 28 + 1:02},{row % 12}" for row in range(200))]
    columns = init("\n".join(lines), "--target", "y")
    assert columns["day"]["kind"] == "date"
    assert 'day: {kind: date, format: "%Y%m%d"}' in (tmp_path / "recipe.yaml").read_text()
    found = prepare_data(load_recipe(str(tmp_path / "recipe.yaml")).recipe, tmp_path / "cache").split("train")
    trend = np.asarray(found.inputs["day"])[:, 0]
    assert np.corrcoef(trend, np.asarray(found.targets["y"]).reshape(-1))[0, 1] > 0.99


def test_the_order_of_day_and_month_is_written_with_its_reason(init: Callable[..., Drafted], tmp_path: Path) -> None:
    days = [date(2021, 1, 1) + timedelta(days=row // 2) for row in range(120)]
    lines = [f"{day:%d/%m/%Y},{day:%m.%d.%Y},{'uv'[row % 2]}" for row, day in enumerate(days)]
    init("\n".join(["start,end,label", *lines]), "--target", "label")
    text = (tmp_path / "recipe.yaml").read_text()
    split = load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.split
    assert (split.time, split.time_format) == ("start", "%d/%m/%Y")
    assert "since its times follow each other every day" in text
    assert "days are first, as in 13/01/2021" in " ".join(text.replace("#", "").split())
    assert 'end: {kind: date, format: "%m.%d.%Y"}' in text
    assert "# end: dates; months are first, as in 01.13.2021" in text


def test_a_doubtful_order_of_day_and_month_is_said(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{row % 12 + 1:02}/{row % 11 + 1:02}/2021,{row % 7},{'uv'[row % 2]}" for row in range(120)]
    (tmp_path / "table.csv").write_text("\n".join(["when,size,label", *lines]))
    done = bmcli("init", "table.csv", "--target", "label")
    assert "no cell shows whether days or months are first: it is read as %m/%d/%Y" in " ".join(done.err.split())
    assert 'format: "%m/%d/%Y"' in (tmp_path / "recipe.yaml").read_text()


def test_seconds_since_1970_are_numbers_with_a_doubt(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = [f"{1_600_000_000 + row * 86_399},{'uv'[row % 2]}" for row in range(120)]
    (tmp_path / "table.csv").write_text("\n".join(["created_at,label", *lines]))
    done = bmcli("init", "table.csv", "--target", "label")
    assert "if its numbers are seconds since 1970, write" in " ".join(done.err.split())
    assert "1 number" in (tmp_path / "recipe.yaml").read_text()


def test_an_hourly_series_without_other_columns_is_split_by_time_and_keeps_its_dates(
    init: Callable[..., Drafted], bmcli: Bmcli, tmp_path: Path
) -> None:
    hours = [datetime(2024, 1, 1) + timedelta(hours=row) for row in range(200)]
    columns = init("\n".join(["time,load", *(f"{hour:%Y-%m-%d %H:%M},{hour.hour + 0.5}" for hour in hours)]))
    assert columns["time"]["role"] == "input"
    text = (tmp_path / "recipe.yaml").read_text()
    assert "# by time, since its times follow each other every hour: oldest rows for training, newest for test" in text
    assert "add an input of them, {kind: lags, of: load, steps: [1]}" in text
    assert "size for 120 training rows with 1 input;" in text  # not 160, the validation rows included
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert (recipe.data.split.time, list(recipe.data.inputs or {})) == ("time", ["time"])
    assert bmcli("train", "recipe.yaml", "train.epochs=1").code == 0


def test_days_with_many_rows_are_split_by_time_and_are_no_input(init: Callable[..., Drafted], tmp_path: Path) -> None:
    days = [datetime(2024, 1, 1) + timedelta(days=row // 24) for row in range(1200)]
    rows = (f"{day:%Y-%m-%d},{row % 24},{row % 24 * 2.5}" for row, day in enumerate(days))
    columns = init("\n".join(["day,hour,bikers", *rows]))
    assert (columns["day"]["role"], columns["hour"]["role"]) == ("time", "input")
    assert "every day" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("name", ["date_of_birth", "day"])
def test_dates_that_are_no_times_of_rows_are_inputs_of_a_random_split(
    init: Callable[..., Drafted], tmp_path: Path, name: str
) -> None:
    """Births are no times of rows; a split by the days of two classes one after the other would test one of them."""
    start, step = date(1950, 1, 1), 37 if name == "date_of_birth" else 1
    days = [start + timedelta(days=row * step % 9001) for row in range(300)]
    rows = (f"{day},{row % 7},{'uv'[row >= 150]}" for row, day in enumerate(days))
    columns = init("\n".join([f"{name},size,label", *rows]), "--target", "label")
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.data.split.time is None
    assert columns[name]["role"] == "input"


def test_rows_of_different_days_are_split_by_time_in_any_format(
    init: Callable[..., Drafted], bmcli: Bmcli, tmp_path: Path
) -> None:
    days = [date(2021, 1, 1) + timedelta(days=row * 37 % 120) for row in range(120)]
    init("\n".join(["day,size,label", *(f"{day:%d.%m.%Y},{day.day},{'uv'[day.day % 2]}" for day in days)]))
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert (recipe.data.split.time, recipe.data.split.time_format) == ("day", "%d.%m.%Y")
    assert "day" not in (recipe.data.inputs or {})
    raw = read_raw_splits(recipe.data, recipe.data.targets_by_name(), recipe.seed, ("day",))
    tested = [days[row] for row in raw.indices["test"]]
    assert min(tested) > max(days[row] for row in raw.indices["train"])


def test_init_starts_without_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table())
    code = (
        "import sys\nfrom bmcli.__main__ import main\ntry: main()\nexcept SystemExit as left: assert not left.code\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "init", "table.csv", "--target", "grade"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"


TARGETS = {
    "penguins.csv": "species", "titanic.csv": "survived", "credit_data.csv": "Status", "letter.csv.gz": "lettr",
    "spambase.csv.gz": "type", "diamonds.csv.gz": "price", "ames.csv.gz": "Sale_Price",
    "concrete.csv": "compressive_strength", "bikeshare.csv": "bikers", "abalone.csv": "rings",
    "auto_imports.csv": "price", "elecdemand.csv": "Demand", "us_births.csv": "births", "tate_art": "year",
    "emoji_multimodal": "group",
}  # fmt: skip
NOT_YET = {"cmudict_g2p", "debian_desc_en_de", "tinyshakespeare"}  # their targets are text


def real_data() -> list[Path]:
    """List tables, archives and folders below the folder BMCLI_TEST_DATA."""
    root = Path(os.environ.get("BMCLI_TEST_DATA", "/nowhere"))
    found: list[Path] = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        several = folder.name in ("tabular", "forecasting", "timeseries")
        found += sorted(folder.iterdir()) if several else [folder]
    return [path for path in found if path.name not in NOT_YET]


@pytest.mark.slow
@pytest.mark.parametrize("data", real_data() or [None], ids=lambda data: data.name if data else "none")
def test_real_data_gets_a_recipe_that_trains(bmcli: Bmcli, data: Path | None) -> None:
    if data is None:
        pytest.skip("BMCLI_TEST_DATA names no folder of data sets")
    target = ["--target", TARGETS[data.name]] if data.name in TARGETS else []
    made = bmcli("init", data, *target)
    assert made.code == 0, made.err
    assert len(Path("recipe.yaml").read_text().splitlines()) < 40
    assert bmcli("validate", "recipe.yaml").code == 0
    done = bmcli("train", "recipe.yaml", "train.epochs=1", "train.stop.patience=1", "--json")
    assert done.code == 0, done.err
    assert any(name.startswith("test/") for name in done.json()["metrics"])
