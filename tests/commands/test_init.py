"""`bmcli init`: a recipe that trains as it is, from nothing but data."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bmcli.recipe.load import load_recipe
from bmcli.recipe.nodes import parse_tree, read_text

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
    assert "Candidates: wing (number), species (3 values), sex (2 values)" in done.err
    assert "--target" in done.err
    assert not (tmp_path / "recipe.yaml").exists()


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
        ({"x": np.random.default_rng(0).normal(size=(40, 12, 3)), "y": np.arange(40) % 2}, "rnn"),
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
