"""Files as people have them: what `init` writes, and what a training says of them."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.commands.conftest import Bmcli, Done, bmcli

__all__ = ["bmcli"]  # the fixture

FLOWERS = "".join(
    f"{5 + n % 7 / 10},{3 + n % 4 / 10},Iris-{'virginica' if n % 7 > 3 else 'setosa'}\n" for n in range(150)
)
RECIPE = """\
name: flowers
data:
  source: {kind: csv, path: flowers.data}
  targets: {column_3: {kind: category}}
model: {kind: linear}
train: {epochs: 1, batch_size: 32, tensorboard: false}
runtime: {jit: false}
"""


def draft(bmcli: Bmcli, folder: Path, name: str, content: str, target: str) -> tuple[Done, str]:
    """Write a file and a recipe for it; return the call and the recipe."""
    (folder / name).write_text(content)
    done = bmcli("init", name, "--target", target)
    assert done.code == 0, done.err
    return done, (folder / "recipe.yaml").read_text()


def test_temperatures_keep_their_decimals(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = "".join(f"{n % 40},{n % 10};0,5;{'warm' if n % 40 > 19 else 'kalt'}\n" for n in range(200))
    done, recipe = draft(bmcli, tmp_path, "t.csv", "t, C;h, %;y\n" + rows, "y")
    assert yaml.safe_load(recipe)["data"]["source"]["delimiter"] == ";"
    assert "',' would also split the rows, into 3 cells" in done.err
    assert "# t.csv: read with the delimiter ';'" in recipe


def test_quotes_at_the_start_of_two_fields_swallow_no_rows(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = "".join(
        f"{'ham' if n % 2 else 'spam'}\t{chr(34) * (n in (40, 140))}word{n} and some more text here\n"
        for n in range(300)
    )
    done, recipe = draft(bmcli, tmp_path, "sms.txt", "label\tmsg\n" + rows, "label")
    assert "300 rows, 2 columns" in recipe
    source = yaml.safe_load(recipe)["data"]["source"]
    assert (source["delimiter"], source["quote"]) == ("\t", "none")
    assert "sms.txt:42: a quote that begins a cell does not end it" in done.err


def test_a_file_without_a_header_is_written_down_with_the_reason(bmcli: Bmcli, tmp_path: Path) -> None:
    done, recipe = draft(bmcli, tmp_path, "flowers.data", FLOWERS, "column_3")
    assert "150 rows, 3 columns" in recipe
    assert yaml.safe_load(recipe)["data"]["source"]["header"] is False
    assert "# flowers.data: read without a header: the first row ('5.0', '3.0', 'Iris-setosa')" in recipe
    assert "read without a header" in done.err


def test_a_recipe_that_leaves_the_header_open_is_read_alike_with_a_word(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "flowers.data").write_text(FLOWERS)
    (tmp_path / "flowers.yaml").write_text(RECIPE)
    checked = bmcli("validate", "flowers.yaml", "--deep", "--json").json()
    assert sum(checked["rows"].values()) == 150
    assert "flowers.data: read without a header" in checked["notes"][0]
    trained = bmcli("train", "flowers.yaml", "--json")
    assert trained.code == 0, trained.err
    assert "note: flowers.data: read without a header" in trained.err
    lock = yaml.safe_load((Path(trained.json()["run"]) / "recipe.lock.yaml").read_text())
    assert lock["data"]["source"]["header"] is False
    (tmp_path / "new.data").write_text("5.1,3.1,Iris-setosa\n")
    assert bmcli("predict", trained.json()["run"], "new.data", "--output", "out.csv", "--json").json()["rows"] == 1


def test_a_recipe_for_names_that_are_not_there_says_what_was_guessed(bmcli: Bmcli, tmp_path: Path) -> None:
    (tmp_path / "flowers.data").write_text(FLOWERS)
    (tmp_path / "flowers.yaml").write_text(RECIPE.replace("column_3", "species"))
    done = bmcli("validate", "flowers.yaml", "--deep")
    assert done.code == 2
    assert "no column 'species'" in done.err
    assert "read without a header" in done.err


def test_an_index_of_pandas_is_no_input(bmcli: Bmcli, tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 7},{'yes' if n % 7 > 3 else 'no'}\n" for n in range(60))
    done, recipe = draft(bmcli, tmp_path, "t.csv", ",a,y\n" + rows, "y")
    assert yaml.safe_load(recipe)["data"]["drop"] == ["Unnamed: 0"]
    assert "labels the rows, as the index of pandas and the row names of R do" in done.out


def test_a_column_of_odd_values_stops_nothing_unless_it_is_used(bmcli: Bmcli, tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"a": n % 7, "meta": (n, [n], {"deep": n}, "x")[n % 4], "y": "yes" if n % 7 > 3 else "no"}) + "\n"
        for n in range(60)
    )
    _, recipe = draft(bmcli, tmp_path, "t.jsonl", lines, "y")
    assert "meta" in yaml.safe_load(recipe)["data"]["drop"]
    done = bmcli("init", "t.jsonl", "--target", "meta", "--output", "other.yaml")
    assert done.code == 2
    assert "column 'meta': expected a number, as in line 1, received a list" in done.err
