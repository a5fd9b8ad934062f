"""Mistakes of users, failing disks and attacks end in a message and an exit code, never in a traceback."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bmcli.data import store
from bmcli.errors import RunFailed
from bmcli.runs import Run
from tests.conftest import WriteRecipe

from .conftest import Bmcli

TABLE = """\
bmcli: 1
name: table
data: {source: {kind: csv, path: table.csv}, targets: {y: {kind: category}}}
model: {kind: mlp, hidden: [4]}
train: {epochs: 1, batch_size: 16, tensorboard: false}
"""


def write_table(folder: Path, header: str = "a,b,y", rows: int = 40, name: str = "table.csv") -> None:
    """Write a table whose last column has the classes u and v; all others are numbers."""
    random = np.random.default_rng(0)
    numbers = header.count(",")
    lines = [",".join([*(f"{n:.3f}" for n in random.normal(size=numbers)), "uv"[i % 2]]) for i in range(rows)]
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def table(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> Path:
    """Write a recipe of a small table."""
    write_table(tmp_path)
    return write_recipe(TABLE)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run, trained by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("kept")}


@pytest.fixture
def run(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, kept: dict[str, Path]) -> Path:
    """Copy of a finished run, to be damaged."""
    if "run" not in kept:
        write_table(kept["folder"])
        recipe = kept["folder"] / "recipe.yaml"
        recipe.write_text(TABLE)
        done = bmcli("train", recipe, "--runs", kept["folder"] / "runs", "--json")
        kept["run"] = Path(done.json()["run"])
    return Path(shutil.copytree(kept["run"], tmp_path / "copy"))


def test_columns_called_like_parts_of_the_network_are_trained_and_measured(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    header = "network,dense,input,concatenate,loss,kind,a/b,c.d,it's,[/x],é,y"
    write_table(tmp_path, header)
    done = bmcli("train", write_recipe(TABLE), "--json")
    assert done.code == 0, done.err
    again = bmcli("evaluate", "table", "--json")
    assert again.json()["metrics"]["test/accuracy"] == done.json()["metrics"]["test/accuracy"]


def test_classes_of_any_text_are_printed_as_they_are_but_for_control_characters(
    bmcli: Bmcli, table: Path, tmp_path: Path
) -> None:
    classes = ["[/x]", "<script>", "=cmd()", "\x1b[31mred", "x" * 300]
    rows = [f'{i % 7},{i % 3},"{classes[i % 5]}"' for i in range(60)]
    (tmp_path / "table.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    done = bmcli("train", table)
    assert done.code == 0, done.err
    assert all(text in done.out for text in classes if text.isprintable())
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.metrics=[{kind: precision, class_id: 5}]", "class_id is 5, but 'y' has 2 classes"),
        ("train.metrics=[{kind: recall, top_k: 3}]", "top_k is 3, but 'y' has 2 classes"),
        ("model={kind: layers, layers: [{kind: concatenate, from: [a, b]}]}", "no layer has weights to train"),
        ("model={kind: layers, layers: [{kind: add, from: [a, b], name: sums}, {kind: dense, units: 2, from: sumz}]}",
         "Does `from: sumz` mean this layer?"),
        ("train.callbacks=[{kind: early_stopping, verbose: 1}]", "no option 'verbose'"),
        ("data.source.path={train: table.csv, test: nowhere.csv}", "nowhere.csv: no such file"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_a_fault_and_leaves_no_run(
    bmcli: Bmcli, table: Path, tmp_path: Path, override: str, message: str
) -> None:
    done = bmcli("train", table, override, "--json")
    assert done.code == 2, done.err
    assert message in done.err
    assert done.json()["faults"][0]["line"]
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_file_for_each_split_can_take_the_place_of_one_file(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    write_table(tmp_path, rows=12, name="more.csv")
    done = bmcli("validate", table, "data.source.path={train: table.csv, test: more.csv}", "--deep", "--json")
    assert done.json()["rows"] == {"train": 40, "validation": 0, "test": 12}


def test_rows_left_out_for_bad_cells_are_told_and_counted(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(file.read_text() + "bad,1,u\n1,2,\n")
    stopped = bmcli("train", table, "data.inputs={a: number, b: number}", "--json")
    assert [fault["message"].split("  ")[0] for fault in stopped.json()["faults"]] == ["table.csv:42", "table.csv:43"]
    done = bmcli("train", table, "data.inputs={a: number, b: number}", "data.invalid=skip")
    assert done.code == 0, done.err
    assert "cells that cannot be read: 1 of 'a', 1 of 'y'; rows left out for them: 2" in done.out + done.err
    data = json.loads((tmp_path / "runs/table/latest/data.json").read_text())
    assert (data["invalid_cells"], data["skipped_rows"], sum(data["counts"].values())) == ({"a": 1, "y": 1}, 2, 40)


def test_a_lock_keeps_what_was_found_in_a_table(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(file.read_text().replace(",", ";"))
    assert bmcli("train", table).code == 0
    lock = bmcli("show", "table", "--json").json()
    source = lock["recipe"]["data"]["source"] if "recipe" in lock else lock["data"]["source"]
    assert (source["delimiter"], source["encoding"]) == (";", "utf-8")
    (tmp_path / "new.csv").write_text(file.read_text())
    assert bmcli("evaluate", "table", "--data", "new.csv", "--json").code == 0


def test_an_array_without_numbers_is_a_fault(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", x=np.zeros((30, 0)), y=np.arange(30) % 3)
    recipe = write_recipe(TABLE.replace("kind: csv, path: table.csv", "kind: npz, path: table.npz"))
    done = bmcli("train", recipe, "--json")
    assert done.code == 2
    assert "expected rows with values" in done.err


def test_the_latest_lock_trains_again(bmcli: Bmcli, table: Path) -> None:
    assert bmcli("train", table).code == 0
    again = bmcli("train", "runs/table/latest/recipe.lock.yaml", "--json")
    assert again.code == 0, again.err


def test_a_stray_file_beside_the_runs_does_not_hide_a_fault(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    (tmp_path / "runs/table").mkdir(parents=True)
    (tmp_path / "runs/table/stray").touch()
    done = bmcli("train", table, "model={kind: cnn}", "--json")
    assert done.code == 2, done.err
    assert [path.name for path in (tmp_path / "runs/table").iterdir()] == ["stray"]


@pytest.mark.parametrize("verb", [["evaluate"], ["train", "--resume"]])
def test_a_name_that_no_file_can_have_is_no_run(bmcli: Bmcli, verb: list[str]) -> None:
    assert bmcli(*verb, "x" * 5000, "--json").code == 2


@pytest.mark.parametrize("override", ["seed=9", "data.split.train=0.5", "train.epochs=9", "model.hidden=[7]"])
def test_what_was_trained_cannot_be_changed_when_measuring(bmcli: Bmcli, run: Path, override: str) -> None:
    done = bmcli("evaluate", run, override, "--json")
    assert done.code == 2
    assert "cannot change after training" in done.err


def test_a_fault_of_another_file_is_not_told_of_the_recipe(bmcli: Bmcli, run: Path) -> None:
    fault = bmcli("evaluate", run, "--data", "nowhere.csv", "--json").json()["faults"][0]
    assert fault["file"] is None
    assert "nowhere.csv: no such file" in fault["message"]


def _cut_layers(run: Path) -> None:
    """Write a model whose description names layers that do not exist."""
    path = run / "model.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"] = config["config"]["layers"][:1]
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _bomb(run: Path) -> None:
    with zipfile.ZipFile(run / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"0" * 20_000_000)


def _folder(run: Path) -> None:
    (run / "model.keras").unlink()
    (run / "model.keras").mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda run: (run / "model.keras").unlink(),
    "cut": lambda run: (run / "model.keras").write_bytes((run / "model.keras").read_bytes()[:500]),
    "garbage": lambda run: (run / "model.keras").write_bytes(b"garbage"),
    "a folder": _folder,
    "without layers": _cut_layers,
    "a bomb": _bomb,
    "without its data": lambda run: (run / "data.json").unlink(),
    "with damaged data": lambda run: (run / "data.json").write_bytes(b"[1]\xff"),
    "with another object": lambda run: (run / "data.json").write_text("[]"),
    "with a damaged lock": lambda run: (run / "recipe.lock.yaml").write_bytes(b"\xff{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_a_fault(bmcli: Bmcli, run: Path, damage: str) -> None:
    DAMAGES[damage](run)
    done = bmcli("evaluate", run, "--json")
    assert done.code == 2, done.err
    assert done.json()["faults"][0]["message"]


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[]", b"3"])
def test_damaged_records_of_a_run_are_replaced_or_left_out(bmcli: Bmcli, run: Path, content: bytes) -> None:
    for name in ("evaluation.json", "status.json", "metrics.jsonl"):
        (run / name).write_bytes(content)
    assert bmcli("runs", "--runs", run.parent.parent, "--json").code == 0
    assert bmcli("show", run, "--json").code == 0
    done = bmcli("evaluate", run, "--json")
    assert done.code == 0, done.err
    assert set(Run(run).read_evaluations()) == {"test"}


def test_a_lock_that_is_no_text_is_a_fault_of_show(bmcli: Bmcli, run: Path) -> None:
    (run / "recipe.lock.yaml").write_bytes(b"seed: [\xff")
    assert bmcli("show", run, "--json").code == 2


def test_a_disk_that_fills_while_saving_says_how_to_go_on(
    bmcli: Bmcli, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("bmcli.networks.network.save_network", full)
        done = bmcli("train", table, "--json")
    assert done.code == 1
    fault = done.json()["faults"][0]
    assert "no space left on device" in fault["message"]
    assert "--resume" in fault["suggestion"]
    again = bmcli("train", "--resume", "table", "--json")
    assert again.code == 0, again.err
    assert again.json()["epochs"] == 1


def test_a_cache_that_cannot_be_written_is_a_failure_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match="cannot write the prepared data"), store.translate_write_errors(tmp_path):
        (tmp_path / "file" / "inside").mkdir()


def test_an_interrupt_that_a_library_hides_is_still_one(
    bmcli: Bmcli, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hides(*_: object, **__: object) -> None:
        import os
        import signal

        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr("bmcli.data.preparation.prepare", hides)
    done = bmcli("train", table, "--json")
    assert done.code == 130
    assert done.json()["faults"][0]["message"].startswith("interrupted")


MIXED = {
    "a stray text among numbers": (
        [f"{n * 1.37:.2f}" for n in range(80)] + ["abc"],
        "table.csv:82  column 'a': expected a number, received 'abc'. Add it to `missing:",
        "numbers; missing: 'abc' (1)",
    ),
    "dates in three formats": (
        # In no order, and not every day, so that rows are not split by them.
        [("2024-01-%02d", "%02d/01/2024", "Jan %02d 2024")[n % 3] % (1 + n * n % 28) for n in range(81)],
        "column 'a': its dates are written in 3 formats: iso, %b %d %Y and %d/%m/%Y",
        "dates; days are first, as in 17/01/2024",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_column_of_several_sorts_is_a_fault_that_init_settles(
    bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path, name: str
) -> None:
    cells, message, why = MIXED[name]
    lines = [f"{cell},{n % 5},{'uv'[n % 2]}" for n, cell in enumerate(cells)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    done = bmcli("train", write_recipe(TABLE))
    assert (done.code, message in done.err) == (2, True), done.err
    assert not list(tmp_path.glob("runs/*/*"))
    drafted = bmcli("init", "table.csv", "--output", "found.yaml")
    assert (drafted.code, why in drafted.out) == (0, True)
    checked = bmcli("validate", "found.yaml", "--deep")
    assert checked.code == 0, checked.err


def test_a_target_that_tells_rows_apart_is_a_fault(bmcli: Bmcli, write_recipe: WriteRecipe, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},c{n}\n" for n in range(200)))
    done = bmcli("train", write_recipe(TABLE))
    assert done.code == 2
    assert "recipe.yaml:3:" in done.err
    assert "target 'y': nearly every training row has a different class" in done.err


@pytest.mark.parametrize("verb", [["evaluate", "table"], ["train", "--resume", "table", "train.epochs=3"]])
def test_data_that_changed_since_training_is_told_whatever_else_is_wrong_with_it(
    bmcli: Bmcli, table: Path, tmp_path: Path, verb: list[str]
) -> None:
    assert bmcli("train", table).code == 0
    file = tmp_path / "table.csv"
    for text in ("a,b,y\n1,2,u\n", "a,b,y\n1,2\n", file.read_text() + "1,2,u\n"):
        file.write_text(text)
        done = bmcli(*verb)
        assert (done.code, "the data changed since this run was trained" in done.err) == (2, True), done.err
    file.rename(tmp_path / "tables.csv")
    done = bmcli(*verb)
    assert (done.code, "table.csv: no such file. Did you mean 'tables.csv'?" in done.err) == (2, True), done.err


def test_a_file_that_lacks_a_column_is_named(bmcli: Bmcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a,y\n1,u\n")
    assert "new.csv: no column 'b'. Known: a, y." in bmcli("evaluate", run, "--data", "new.csv").err
    assert "new.csv: no column 'b'. Known: a, y." in bmcli("predict", run, "new.csv").err


def test_a_lost_file_is_told_with_its_nearest_name(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").rename(tmp_path / "tabel.csv")
    for verb in ("validate", "train"):
        done = bmcli(verb, table)
        assert (done.code, "table.csv: no such file. Did you mean 'tabel.csv'?" in done.err) == (2, True), done.err


def test_records_that_are_no_rows_are_told_and_counted(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(file.read_text() + "1,2\n1,2,u,v\n")
    stopped = bmcli("train", table)
    assert (stopped.code, "table.csv:42  expected 3 cells, received 2." in stopped.err) == (2, True)
    done = bmcli("train", table, "data.invalid=skip")
    assert done.code == 0, done.err
    assert "malformed records left out: 2" in done.out + done.err
    assert json.loads((tmp_path / "runs/table/latest/data.json").read_text())["malformed_records"] == 2


def test_lines_that_are_too_deep_are_told_and_counted(bmcli: Bmcli, table: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"a": n / 7, "b": -n, "y": "uv"[n % 2]}) for n in range(40)]
    (tmp_path / "table.jsonl").write_text("\n".join([*rows[:20], "[" * 20_000, *rows[20:]]) + "\n")
    source = "data.source={kind: jsonl, path: table.jsonl}"
    stopped = bmcli("train", table, source)
    assert (stopped.code, "table.jsonl:21  lists and objects are nested" in stopped.err) == (2, True), stopped.err
    done = bmcli("train", table, source, "data.invalid=skip")
    assert done.code == 0, done.err
    assert "malformed records left out: 1" in done.out + done.err
    assert json.loads((tmp_path / "runs/table/latest/data.json").read_text())["malformed_records"] == 1
