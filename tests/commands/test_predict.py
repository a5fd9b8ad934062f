"""`bmcli predict`: rows in, predictions of the trained model out."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bmcli.answers import AnswerTable
from bmcli.answers.classes import ClassAnswers
from bmcli.answers.numbers import NumberAnswers
from bmcli.commands import predict
from bmcli.commands.train import train
from bmcli.layers import register
from bmcli.runs import Run
from bmcli.terminal.console import Console
from bmcli.workflows.training import TrainingContext
from tests.pictures import pixels, write

from .conftest import Bmcli

RECIPE = """\
name: birds
data:
  source: {kind: csv, path: birds.csv}
  drop: [name]
  targets: {species: {kind: category}, mass: {kind: number}}
model: {kind: mlp, hidden: [8]}
train: {epochs: 2, batch_size: 16, tensorboard: false}
"""
HEADER = ["name", "wing", "island", "species", "mass"]
COLUMNS = ["species", *(f"species_probability_{name}" for name in ("auk", "gull", "tern")), "mass"]


def birds(count: int) -> list[list[str]]:
    """Write rows whose species and mass follow from wing and island; some cells are missing."""
    rows = []
    for number in range(count):
        wing = "" if number % 11 == 0 else str(20 + number * 7 % 13)
        island = ("north", "south", "")[number % 3]
        species = ("auk", "gull", "tern")[(number * 7 % 13) // 5]
        rows.append([f"b{number}", wing, island, species, str(1000 + number * 7 % 13)])
    return rows


def text(rows: list[list[str]], header: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run with two targets."""
    folder = tmp_path_factory.mktemp("birds")
    (folder / "birds.csv").write_text(text(birds(120), HEADER))
    (folder / "recipe.yaml").write_text(RECIPE)
    console = Console(verbosity=-1)
    trained = train(
        str(folder / "recipe.yaml"), (), TrainingContext(folder / "runs", cache, console.make_progress, console.log)
    )
    assert trained.run is not None
    return trained.run.folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Rows without targets, and a column that the model does not know."""
    path = tmp_path / "new.csv"
    path.write_text(text([[*row[:3], "x"] for row in birds(50)], ["name", "wing", "island", "note"]))
    return path


def records(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out)))


def test_predictions_are_those_of_the_kept_model(bmcli: Bmcli, run: Path, new: Path) -> None:
    import keras
    import tensorflow as tf

    done = bmcli("predict", run, new, "-q")
    assert done.code == 0, done.err
    found = records(done.out)
    assert list(found[0]) == COLUMNS
    register()
    model = keras.saving.load_model(Run(run).model)
    rows = birds(50)
    outputs = model(
        {
            "wing": tf.constant([float(row[1] or "nan") for row in rows]),
            "island": tf.constant([row[2] for row in rows]),
        }
    )
    probabilities = np.array([[float(row[name]) for name in COLUMNS[1:4]] for row in found])
    np.testing.assert_allclose(probabilities, outputs["species"].numpy(), atol=1e-6)
    np.testing.assert_allclose([float(row["mass"]) for row in found], outputs["mass"].numpy(), rtol=1e-6)
    names = np.array(["auk", "gull", "tern"])
    assert [row["species"] for row in found] == names[probabilities.argmax(axis=1)].tolist()


def test_numbers_are_in_their_own_unit(bmcli: Bmcli, run: Path, new: Path) -> None:
    masses = [float(row["mass"]) for row in records(bmcli("predict", run, new, "-q").out)]
    assert 900 < min(masses) <= max(masses) < 1200


def test_every_format_holds_the_same(bmcli: Bmcli, run: Path, new: Path, tmp_path: Path) -> None:
    for ending in ("csv", "parquet", "jsonl"):
        done = bmcli("predict", run, new, "--output", f"out.{ending}", "--keep", "name", "--json")
        assert done.code == 0, done.err
        answer = done.json()
        assert (answer["rows"], answer["skipped"]) == (50, 0)
        assert answer["columns"] == ["name", *COLUMNS]
    rows = records((tmp_path / "out.csv").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["name"] for row in rows] == [f"b{number}" for number in range(50)]
    assert len(rows) == len(lines) == len(table)
    for row, line, record in zip(rows, lines, table, strict=True):
        assert row["name"] == line["name"] == record["name"]
        assert np.float32(row["mass"]) == np.float32(line["mass"]) == np.float32(record["mass"])


def test_kept_values_stay_as_they_are_unless_a_spreadsheet_is_meant(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    names = ["+", "@user2", "-17B1", "=cmd()", "plain"]
    (tmp_path / "new.csv").write_text(
        "name,wing,island\n" + "".join(f"{name},{20 + row},north\n" for row, name in enumerate(names))
    )
    done = bmcli("predict", run, "new.csv", "--keep", "name")
    assert [row["name"] for row in records(done.out)] == names
    assert "4 texts of the output begin like formulas" in done.err
    assert "--spreadsheet-safe" in done.err
    safe = bmcli("predict", run, "new.csv", "--keep", "name", "--spreadsheet-safe")
    assert [row["name"] for row in records(safe.out)] == [*(f"'{name}" for name in names[:4]), "plain"]
    assert "formulas" not in safe.err


def test_columns_that_the_model_does_not_read_are_named(bmcli: Bmcli, run: Path, new: Path, tmp_path: Path) -> None:
    assert "not read by the model: 'name', 'note'" in bmcli("predict", run, new).err
    assert bmcli("predict", run, new, "--keep", "name", "--output", "out.csv", "--json").json()["notes"] == [
        "not read by the model: 'note'."
    ]
    (tmp_path / "birds.csv").write_text(text([row[1:] for row in birds(5)], HEADER[1:]))
    assert "not read by the model" not in bmcli("predict", run, "birds.csv").err, "targets are known"


def test_a_kept_target_stands_beside_its_prediction(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "birds.csv").write_text(text(birds(5), HEADER))
    found = records(bmcli("predict", run, "birds.csv", "--keep", "species", "--keep", "mass").out)
    assert [row["species_true"] for row in found] == [row[3] for row in birds(5)]
    assert [row["mass_true"] for row in found] == [row[4] for row in birds(5)]
    assert set(found[0]) == {"species_true", "mass_true", *COLUMNS}


def test_a_kept_column_of_the_name_of_a_prediction_is_a_fault(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("wing,island,species_probability_auk\n20,north,0.5\n21,south,0.25\n")
    done = bmcli("predict", run, "new.csv", "--keep", "species_probability_auk", "--output", "out.csv")
    assert done.code == 2
    assert "column 'species_probability_auk' cannot be kept: the predictions have a column of this name" in done.err
    assert not (tmp_path / "out.csv").exists()


def test_new_rows_may_have_another_delimiter_encoding_and_index(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    rows = [row[:3] for row in birds(9)]
    (tmp_path / "plain.csv").write_text(text(rows, HEADER[:3]))
    table = "\n".join(f"{number};{';'.join(row)}" for number, row in enumerate(rows))
    (tmp_path / "other.csv").write_bytes(f"sep=;\r\n;name;wing;island\n{table}\n".encode("utf-16"))
    expected = records(bmcli("predict", run, "plain.csv", "--keep", "name").out)
    assert records(bmcli("predict", run, "other.csv", "--keep", "name").out) == expected


def test_options_for_all_commands_may_stand_before_the_command(bmcli: Bmcli, run: Path, new: Path) -> None:
    quiet = bmcli("-q", "predict", run, new)
    assert quiet.code == 0, quiet.err
    assert quiet.err == ""
    assert bmcli("--json", "predict", run, new, "--output", "out.csv").json()["rows"] == 50


def test_many_small_batches_give_the_same_rows(
    bmcli: Bmcli, run: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = records(bmcli("predict", run, new, "--keep", "name", "-q").out)
    monkeypatch.setattr(predict, "_MAX_BATCH_ROWS", 7)
    pieces = records(bmcli("predict", run, new, "--keep", "name", "-q").out)
    assert [row["name"] for row in pieces] == [row["name"] for row in whole]
    np.testing.assert_allclose([float(r["mass"]) for r in pieces], [float(r["mass"]) for r in whole], rtol=1e-6)


def given(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Put a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_standard_input_may_be_csv_or_json_lines(
    bmcli: Bmcli, run: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bmcli("predict", run, new, "-q").out
    given(monkeypatch, new.read_text())
    assert bmcli("predict", run, "-", "-q").out == expected
    lines = [json.dumps({"wing": float(r[1]) if r[1] else None, "island": r[2] or None}) for r in birds(50)]
    given(monkeypatch, "\n".join(lines) + "\n")
    assert bmcli("predict", run, "-", "-q").out == expected


def test_a_bad_row_on_standard_input_is_named_by_its_line(
    bmcli: Bmcli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, "wing,island\n20,north\nwide,south\n")
    done = bmcli("predict", run, "-")
    assert done.code == 2
    assert "standard input:3  column 'wing': expected a number, received 'wide'" in done.err


def test_rows_and_lines_are_counted_if_answers_have_several_lines_or_none(
    bmcli: Bmcli, run: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_MAX_BATCH_ROWS", 16)

    def number_lines(answers: ClassAnswers, predictions: np.ndarray) -> AnswerTable:
        counts = np.arange(len(predictions)) % 3
        return AnswerTable({"line": pa.array(np.arange(counts.sum()))}, np.repeat(np.arange(len(counts)), counts))

    for answers in (ClassAnswers, NumberAnswers):
        monkeypatch.setattr(answers, "make_columns", number_lines)
    done = bmcli("predict", run, new, "--keep", "name", "--output", "out.csv", "--json")
    assert done.code == 0, done.err
    found = [row["name"] for row in records((tmp_path / "out.csv").read_text())]
    assert found == [f"b{start + row}" for start in (0, 16, 32, 48) for row in range(min(16, 50 - start))
                     for _ in range(row % 3)]  # fmt: skip
    answer = done.json()
    assert (answer["rows"], answer["lines"], answer["skipped"]) == (50, len(found), 0)
    assert f"50 rows to other.csv in {len(found)} lines" in bmcli("predict", run, new, "--output", "other.csv").err


def test_a_bad_row_is_a_fault_and_leaves_no_file(bmcli: Bmcli, run: Path, new: Path, tmp_path: Path) -> None:
    new.write_text(new.read_text() + "b50,wide,north,x\n")
    before = sorted(tmp_path.iterdir())
    done = bmcli("predict", run, new, "--output", "out.csv")
    assert done.code == 2
    assert "new.csv:52  column 'wing'" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_bad_cell_is_refused_before_tensorflow_starts(run: Path, tmp_path: Path) -> None:
    rows = [["b", "20", "north"]] * 10_000  # more than one batch
    (tmp_path / "new.csv").write_text(text([*rows, ["b", "wide", "north"]], ["name", "wing", "island"]))
    code = (
        "import sys\nfrom bmcli.__main__ import main\ntry: main()\nexcept SystemExit as left: print(left.code)\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(run), "new.csv"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert "new.csv:10002  column 'wing'" in done.stderr
    assert done.stdout.splitlines() == ["2", "[]"]


def test_kept_cells_are_as_they_came_also_where_they_mark_a_missing_value(
    bmcli: Bmcli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of an input, which the model takes as missing."""
    content = 'name,wing,island\nNA,20,north\nnull,NULL,NA\n"?",N/A,""\n,20,south\n'
    (tmp_path / "new.csv").write_text(content)
    (tmp_path / "empty.csv").write_text("name,wing,island\na,20,north\nb,,\nc,,\nd,20,south\n")
    expected = records(bmcli("predict", run, "empty.csv").out)
    given(monkeypatch, content)
    for data in ("new.csv", "-"):
        done = bmcli("predict", run, data, "--keep", "name", "--keep", "wing", "--keep", "island")
        assert done.code == 0, done.err
        found = records(done.out)
        assert [[row.pop(name) for name in ("name", "wing", "island")] for row in found] == [
            ["NA", "20", "north"], ["null", "NULL", "NA"], ["?", "N/A", ""], ["", "20", "south"],
        ]  # fmt: skip
        assert found == expected


def test_a_bad_cell_says_how_to_write_it_and_names_no_option_of_a_recipe(
    bmcli: Bmcli, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text('wing,island\n20,north\n"20,5",south\n"21,5",south\n')
    (fault,) = json.loads(bmcli("predict", run, "new.csv", "--output", "out.csv", "--json").out)["faults"]
    assert fault["message"] == (
        "new.csv:3  column 'wing': expected a number, received '20,5'. 2 cells are no better: '20,5' (1) and '21,5' "
        "(1)."
    )
    assert fault["suggestion"] == (
        "Write it as in the training rows, for example 1234.5, or leave out such rows with --skip-bad-rows."
    )


def test_a_header_that_only_the_new_file_has_is_named(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("wing,place,colour,species\n20,north,red,auk\n")
    (fault,) = json.loads(bmcli("predict", run, "new.csv", "--output", "out.csv", "--json").out)["faults"]
    assert fault["message"] == "new.csv: no column 'island'."
    assert fault["suggestion"] == "Its other columns: place, colour."


def test_a_first_line_that_is_no_header_as_in_training_is_named(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("20,north\n21,south\n22,south\n")
    faults = json.loads(bmcli("predict", run, "new.csv", "--output", "out.csv", "--json").out)["faults"]
    assert [each["message"] for each in faults] == ["new.csv: no column 'wing'.", "new.csv: no column 'island'."]
    assert "its first line has values like those of the rows below it" in faults[0]["suggestion"]


def test_bad_rows_may_be_skipped_and_are_counted(bmcli: Bmcli, run: Path, new: Path) -> None:
    lines = new.read_text().splitlines()
    for place in (1, 9, 10, len(lines) - 1):
        cells = lines[place].split(",")
        lines[place] = ",".join([cells[0], "wide", *cells[2:]])
    new.write_text("\n".join(lines) + "\n")
    done = bmcli("predict", run, new, "--skip-bad-rows", "--keep", "name")
    assert done.code == 0, done.err
    assert "4 skipped" in done.err
    names = [row["name"] for row in records(done.out)]
    assert names == [f"b{number}" for number in range(50) if number not in (0, 8, 9, 49)]


def test_records_of_too_few_cells_are_among_the_bad_rows(bmcli: Bmcli, run: Path, new: Path) -> None:
    lines = new.read_text().splitlines()
    new.write_text("\n".join([*lines[:5], "broken,1", *lines[5:], "a,b,c,d,e"]) + "\n")
    done = bmcli("predict", run, new)
    assert (done.code, "new.csv:6  expected 4 cells, received 2." in done.err) == (2, True)
    assert "and close every quote. Or leave out such rows with --skip-bad-rows." in done.err
    done = bmcli("predict", run, new, "--skip-bad-rows")
    assert done.code == 0, done.err
    assert "2 skipped" in done.err
    assert len(records(done.out)) == 50


def test_no_row_that_can_be_read_is_a_fault(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("wing,island\nwide,north\n")
    done = bmcli("predict", run, "bad.csv", "--skip-bad-rows", "--output", "out.csv")
    assert done.code == 2
    assert "no row could be read" in done.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new.csv", "--keep", "nmae"], "Did you mean 'name'?"),
        (["lacking.csv"], "no column 'island'"),
        (["birds.csv", "--keep", "species", "--keep", "species_true"], "another kept column is named 'species_true'"),
        (["new.csv", "--spreadsheet-safe", "--output", "out.jsonl"], "--spreadsheet-safe has no effect"),
        (["new.csv", "--format", "parquet"], "cannot be written to standard output"),
        (["new.csv", "--output", "new.csv"], "exists already"),
        (["new.csv", "--output", "out.xlsx"], "unknown file ending"),
        (["new.csv", "--output", "nowhere/out.csv"], "no such folder"),
        (["nwe.csv"], "Did you mean 'new.csv'?"),
        (["new.csv", "--json"], "need --output FILE"),
    ],
)
def test_faults_come_before_tensorflow_and_say_what_to_do(
    bmcli: Bmcli, run: Path, new: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "lacking.csv").write_text("wing\n20\n")
    (tmp_path / "birds.csv").write_text(text([[*row, "auk"] for row in birds(5)], [*HEADER, "species_true"]))
    done = bmcli("predict", run, *arguments)
    assert done.code == 2
    assert message in done.err + done.out


def test_an_unknown_run_is_a_fault(bmcli: Bmcli, new: Path) -> None:
    assert bmcli("predict", "nowhere", new).code == 2


def test_pictures_of_a_folder_are_told_by_their_names(bmcli: Bmcli, tmp_path: Path) -> None:
    from keras.utils import array_to_img

    for number in range(40):
        folder = tmp_path / "shapes" / ("bright", "dark")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), (number % 2) * 200 + number, "uint8")
        array_to_img(pixels, scale=False).save(folder / f"{number}.png")
    assert bmcli("init", "shapes").code == 0
    trained = bmcli("train", "recipe.yaml", "train.epochs=1")
    assert trained.code == 0, trained.err
    done = bmcli("predict", "shapes", "shapes/dark")
    assert done.code == 0, done.err
    found = records(done.out)
    assert list(found[0]) == ["file", "label", "label_probability_bright", "label_probability_dark"]
    assert [row["file"] for row in found] == sorted(f"{number}.png" for number in range(1, 40, 2))


def test_a_folder_of_pictures_is_listed_by_the_rules_of_training(bmcli: Bmcli, tmp_path: Path) -> None:
    for number in range(40):
        name = f"{number}" + (".png", ".JPG", ".bmp", ".gif")[number // 2 % 4]
        write(tmp_path / "shapes" / "ab"[number % 2] / name, pixels(8, 8, seed=number), name[-3:].lower())
    for name in ("a/._0.png", "a/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/a/0.png", "b/Thumbs.db", ".DS_Store"):
        (tmp_path / "shapes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shapes" / name).write_bytes(b"\0")
    drafted = bmcli("init", "shapes", "--json")
    assert "5 files or folders left out, which hold no data" in drafted.json()["notes"][0]
    trained = bmcli("train", "recipe.yaml", "train.epochs=1")
    assert trained.code == 0, trained.err
    assert "note: 5 files or folders left out" in trained.err
    done = bmcli("predict", "shapes", "shapes", "--output", "all.csv", "--json")
    assert done.code == 0, done.err
    answer = done.json()
    assert (answer["rows"], answer["skipped"], len(answer["left_out"])) == (40, 0, 5)
    (tmp_path / "shapes" / "a" / "notes.txt").write_text("words")
    write(tmp_path / "shapes" / "a" / "copy.old", pixels(8, 8), "png")
    faulty = bmcli("predict", "shapes", "shapes/a")
    assert faulty.code == 2
    assert "a/copy.old: expected a picture, that is a file ending in one of .jpg," in faulty.err
    done = bmcli("predict", "shapes", "shapes/a", "--skip-bad-rows", "--output", "some.csv", "--json")
    answer = done.json()
    assert (answer["rows"], answer["skipped"]) == (20, 1)
    assert answer["left_out"] == ["._0.png", ".ipynb_checkpoints", "notes.txt"]


def test_more_rows_take_no_more_memory(run: Path, tmp_path: Path) -> None:
    """Batches are encoded one after the other: none is larger than the limit."""
    from bmcli.recipe.load import load_recipe
    from bmcli.run_data import read_data_spec

    many = tmp_path / "many.csv"
    many.write_text(text([row[:3] for row in birds(20_000)], HEADER[:3]))
    spec, recipe = read_data_spec(Run(run)), load_recipe(str(Run(run).lock)).recipe
    request = predict.PredictionRequest(many, None, None, (), skip_bad_rows=False, spreadsheet_safe=False)
    with predict._open_rows(request, recipe.data.source.model_dump(exclude_unset=True), spec) as (rows, _):
        sizes = [count for _, _, count in predict._encode_batches(rows, spec, {}, skip=False, encode=len)]
    assert sum(sizes) == 20_000
    assert max(sizes) <= predict._MAX_BATCH_ROWS
